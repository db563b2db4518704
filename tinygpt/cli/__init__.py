"""The command line of `train.py` and `python -m tinygpt`: flags, help, notes and errors."""

from tinygpt.cli.arguments import Start, device_for, train_config
from tinygpt.cli.exits import exit_with_code
from tinygpt.cli.parser import VERSION, Parser

__all__ = ["VERSION", "Parser", "Start", "device_for", "exit_with_code", "train_config"]
