from __future__ import annotations

import pytest
import torch

from kronos.engine.device import CPU_BUDGET, default_budget, find_device


@pytest.mark.parametrize("device", ["cuda:77", "abacus", ""])
def test_a_device_that_is_not_there_is_refused_by_name_in_one_sentence(device: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^device '{device}' cannot be used here \(.+\)\. .*'cpu'"
    ) as refusal:
        find_device(device)
    assert "\n" not in str(refusal.value)


def test_of_a_long_reason_the_first_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*args: object, **kwargs: object) -> None:
        raise RuntimeError("\nno driver\nCUDA kernel errors might be reported elsewhere\n")

    monkeypatch.setattr("torch.empty", empty)
    with pytest.raises(ValueError, match=r"^device 'cuda' cannot be used here \(no driver\)\. Pass .*\.$"):
        find_device("cuda")


def test_a_device_is_found_by_name_and_taken_as_it_is() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "fastest"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_without_a_name_the_fastest_there_is_is_found(
    cuda: bool, mps: bool, fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert find_device(None).type == fastest


def test_an_accelerator_gives_a_part_of_what_it_has_and_a_cpu_little(monkeypatch: pytest.MonkeyPatch) -> None:
    free, total = 10 * 2**30, 80 * 2**30
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, total))
    monkeypatch.setattr("torch.mps.recommended_max_memory", lambda: free)
    assert default_budget(torch.device("cpu")) == CPU_BUDGET < 2**30
    for accelerator in ("cuda", "mps"):
        assert 0.25 * free < default_budget(torch.device(accelerator)) < 0.75 * free
        assert isinstance(default_budget(torch.device(accelerator)), int)
