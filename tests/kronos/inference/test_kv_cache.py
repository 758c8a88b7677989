"""The caches against attention written out: one query at a time, over the keys that it may see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kronos.inference.kv_cache import Cursor, PrefixCache, causal

N, HEADS, WIDTH, LONGEST, STEPS = 3, 2, 4, 7, 5
LENGTHS = {"even": [LONGEST] * N, "ragged": [7, 2, 5]}


class Case:
    """A prefix and the suffixes of S samples: random queries, keys and values."""

    def __init__(self, lengths: list[int], samples: int, steps: int = STEPS) -> None:
        random = torch.Generator().manual_seed(0)
        self.lengths, self.samples, self.steps = lengths, samples, steps
        self.prefix = [torch.randn(N, LONGEST, HEADS, WIDTH, generator=random) for _ in range(3)]
        self.own = [torch.randn(N, samples, steps, HEADS, WIDTH, generator=random) for _ in range(3)]
        even = len(set(lengths)) == 1
        self.cursor = Cursor(torch.tensor(lengths), LONGEST, even, steps)
        self.cache = PrefixCache(self.cursor, samples, steps)

    def bars(self, first: int, count: int) -> list[Tensor]:
        """Queries, keys and values (N, S * count, heads, w) of these bars of all samples."""
        return [x[:, :, first : first + count].flatten(1, 2) for x in self.own]

    def extend(self, first: int, count: int) -> Tensor:
        """(N, S, count, d): those bars, by the cache."""
        self.cursor.advance(first, count)
        return self.cache.extend(*self.bars(first, count)).unflatten(1, (self.samples, count))

    def wanted(self, first: int, count: int, oldest: list[int] | None = None) -> Tensor:
        """(N, S, count, d): those bars, with nothing but softmax(q k) v of what they may see."""
        oldest = oldest or [0] * N
        out = torch.empty(N, self.samples, count, HEADS, WIDTH)
        for n, s, t, head in torch.cartesian_prod(
            *(torch.arange(size) for size in (N, self.samples, count, HEADS))
        ):
            seen = slice(max(oldest[n], 0), self.lengths[n])
            upto = first + t + 1
            keys, values = (
                torch.cat([shared[n, seen, head], own[n, s, :upto, head]])
                for shared, own in zip(self.prefix[1:], self.own[1:], strict=True)
            )
            out[n, s, t, head] = (keys @ self.own[0][n, s, first + t, head]).softmax(0) @ values
        return out.flatten(3)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 9])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_each_path_sees_its_windows_prefix_and_its_own_past(lengths: list[int], samples: int) -> None:
    case = Case(lengths, samples)
    case.cache.store(*case.prefix[1:])
    for step in range(STEPS):
        close(case.extend(step, 1), case.wanted(step, 1))


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_all_bars_at_once_are_what_they_are_one_by_one(lengths: list[int], samples: int) -> None:
    case, again = Case(lengths, samples), Case(lengths, samples)
    for one in (case, again):
        one.cache.store(*one.prefix[1:])
    whole = case.extend(0, STEPS)
    close(whole, case.wanted(0, STEPS))
    close(whole, torch.cat([again.extend(step, 1) for step in range(STEPS)], dim=2))


def test_bars_may_be_passed_in_several_calls() -> None:
    case = Case(LENGTHS["ragged"], 3)
    case.cache.store(*case.prefix[1:])
    for first, count in ((0, 2), (2, 1), (3, 2)):
        close(case.extend(first, count), case.wanted(first, count))


@pytest.mark.parametrize("at_once", [True, False])
def test_no_bar_of_a_suffix_sees_a_later_one_or_another_samples(at_once: bool) -> None:
    outcomes = []
    for changed in (False, True):
        case = Case(LENGTHS["even"], 3)
        case.cache.store(*case.prefix[1:])
        if changed:
            for x in case.own:
                x[:, 1, 3:] += 7  # the second sample's last two bars
        if at_once:
            outcomes.append(case.extend(0, STEPS))
        else:
            outcomes.append(torch.cat([case.extend(step, 1) for step in range(STEPS)], dim=2))
    before, after = outcomes
    same = torch.ones(3, STEPS, dtype=torch.bool)
    same[1, 3:] = False
    assert torch.equal(before[:, same], after[:, same])
    assert not torch.isclose(before[:, ~same], after[:, ~same]).all(-1).any()


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_the_oldest_positions_can_be_hidden_ever_more_of_them(lengths: list[int], samples: int) -> None:
    case = Case(lengths, samples)
    case.cache.store(*case.prefix[1:])
    # Negative where a row is not full yet; in the end a whole prefix is gone and the suffix remains.
    for step, oldest in enumerate(([1, -4, -1], [2, 0, 0], [3, 1, 1], [6, 1, 4], [7, 2, 5])):
        oldest = [min(o, length) for o, length in zip(oldest, lengths, strict=True)]
        case.cursor.mask_oldest(torch.tensor(oldest))
        close(case.extend(step, 1), case.wanted(step, 1, oldest))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_the_prefix_alone_can_be_read_from_any_number_of_queries(lengths: list[int]) -> None:
    case = Case(lengths, samples=4)
    case.cache.store(*case.prefix[1:])
    for step in range(2):
        queries = case.own[0][:, :, step]  # (N, S, heads, w)
        wanted = torch.stack(
            [
                torch.einsum(
                    "shl,lhw->shw",
                    torch.einsum("shw,lhw->shl", queries[n], case.prefix[1][n, :length]).softmax(-1),
                    case.prefix[2][n, :length],
                )
                for n, length in enumerate(lengths)
            ]
        )
        close(case.cache.read_prefix(queries), wanted.flatten(2))


def test_filling_the_prefix_attends_within_it_causally() -> None:
    case = Case(LENGTHS["ragged"], samples=2)
    q, k, v = case.prefix
    ours = case.cache.prefill(q, k, v)
    assert torch.equal(ours, causal(q, k, v))
    for n, t, head in torch.cartesian_prod(*(torch.arange(size) for size in (N, LONGEST, HEADS))):
        weights = (k[n, : t + 1, head] @ q[n, t, head]).softmax(0)  # unscaled: queries come scaled
        close(ours[n, t].view(HEADS, WIDTH)[head], weights @ v[n, : t + 1, head])
    close(case.extend(0, 1), case.wanted(0, 1))  # and keeps it


def test_padding_after_a_short_prefix_and_empty_slots_are_never_read() -> None:
    case = Case(LENGTHS["ragged"], samples=2)
    for x in case.prefix[1:]:
        x[1, 2:] = 1e4
    case.cache.store(*case.prefix[1:])
    case.cache.own_keys.fill_(1e4)
    case.cache.own_values.fill_(1e4)
    close(case.extend(0, 2), case.wanted(0, 2))


def test_caches_of_two_layers_share_a_cursor_and_nothing_else() -> None:
    case = Case(LENGTHS["even"], samples=2)
    other = PrefixCache(case.cursor, 2, STEPS)
    case.cache.store(*case.prefix[1:])
    other.store(*(-x for x in case.prefix[1:]))
    for step in range(2):
        case.cursor.advance(step)
        other.extend(*(-x for x in case.bars(step, 1)))
        close(case.extend(step, 1), case.wanted(step, 1))
