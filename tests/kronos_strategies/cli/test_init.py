"""`kronos init` writes the files of the repository, and nothing over a user's changes."""

from pathlib import Path

from .conftest import run

CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_files_written_are_those_of_the_repository(capsys, tmp_path):
    code, out, _ = run(capsys, "init", tmp_path / "new" / "configs")
    assert code == 0
    written = {file.name: file.read_bytes() for file in (tmp_path / "new" / "configs").iterdir()}
    assert written == {file.name: file.read_bytes() for file in CONFIGS.glob("*.yaml")}
    assert f"Next: qrun {tmp_path / 'new' / 'configs' / 'kronos_csi300.yaml'}" in out


def test_a_file_that_a_user_changed_is_kept_unless_it_may_be_replaced(capsys, tmp_path):
    run(capsys, "init", tmp_path)
    mine = tmp_path / "kronos_us.yaml"
    mine.write_text("mine")
    code, _, err = run(capsys, "init", tmp_path)
    assert code == 2
    assert "kronos_us.yaml" in err
    assert "--overwrite" in err
    assert mine.read_text() == "mine"
    assert run(capsys, "init", tmp_path, "--overwrite")[0] == 0
    assert mine.read_bytes() == (CONFIGS / "kronos_us.yaml").read_bytes()


def test_writing_the_same_files_again_changes_nothing(capsys, tmp_path):
    run(capsys, "init", tmp_path)
    assert run(capsys, "init", tmp_path)[0] == 0
