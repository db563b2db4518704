"""`python -m tinygpt list`: all runs in a table."""

import math
import os
import shutil
import sys
from pathlib import Path

from tinygpt.cli.parser import Parser
from tinygpt.config import UserError
from tinygpt.run import overview

DEFAULT = "runs"


def main(argv: list[str]) -> None:
    """List all runs: their settings, steps and best loss."""
    parser = Parser(prog="python -m tinygpt list", description=main.__doc__, allow_abbrev=False)
    text = f"look for runs in this folder, at any depth (default: {DEFAULT})"
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help=text)
    given = parser.parse_args(argv).folders
    for folder in given:
        if not Path(folder).is_dir():
            raise UserError(f"{folder} is not a folder; give one with runs in it")
    folders = given or [DEFAULT]
    found = {os.path.realpath(run): run for folder in folders for run in overview.find_runs(Path(folder))}
    if not found:
        print(f"no runs in {', '.join(folders)}; python train.py makes one, and list FOLDER looks elsewhere")
        return
    print(overview.table([overview.look_at(run) for run in found.values()], _terminal_width()))


def _terminal_width() -> float:
    """The columns of the terminal; output that goes elsewhere has all the room it needs."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return math.inf
    return shutil.get_terminal_size().columns
