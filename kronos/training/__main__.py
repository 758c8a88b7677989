"""`python -m kronos.training tokenizer|predictor`: train one stage, alone or under torchrun."""

from kronos.console import run_command
from kronos.training.cli import app, show_log

if __name__ == "__main__":
    show_log()
    run_command(app)
