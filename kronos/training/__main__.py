"""`python -m kronos.training tokenizer|predictor`: train one stage, alone or under torchrun."""

from kronos.console import run_command, show_log
from kronos.training.cli import app

if __name__ == "__main__":
    show_log()
    run_command(app)
