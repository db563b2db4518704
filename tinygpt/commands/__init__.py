"""The commands of `python -m tinygpt`: what is done with a trained model. Each has its own file."""

import sys

from tinygpt.cli import VERSION
from tinygpt.commands import evaluate, export, list_runs, page, plot, sample
from tinygpt.config import UserError
from tinygpt.names import NOT_A_COMMAND, nearest

COMMANDS = {
    "sample": sample.main,
    "eval": evaluate.main,
    "export": export.main,
    "page": page.main,
    "plot": plot.main,
    "list": list_runs.main,
}


def main(argv: list[str] | None = None) -> None:
    """`python -m tinygpt COMMAND ...`"""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(
            "usage: python -m tinygpt COMMAND ... (or --version); --help after a command lists its options\n"
        )
        print("\n".join(f"  {name:8} {command.__doc__}" for name, command in COMMANDS.items()))
        return
    if argv[0] == "--version":
        print(VERSION)
        return
    if argv[0] not in COMMANDS:
        raise UserError(f"unknown command {argv[0]!r}; {nearest(argv[0], COMMANDS, NOT_A_COMMAND)}")
    COMMANDS[argv[0]](argv[1:])
