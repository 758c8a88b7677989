"""The command line, run in this process."""

from kronos_strategies.cli import main


def run(capsys, *tokens) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `kronos TOKENS`."""
    try:
        main([str(token) for token in tokens])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()
