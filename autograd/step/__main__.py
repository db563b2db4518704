"""`python -m autograd.step EXAMPLE`: step through a backward pass in a terminal, or write it as a page."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from autograd.step import step_through
from autograd.step.examples import EXAMPLES
from autograd.step.film import Film
from autograd.step.terminal import KEYS, play, show_all

NOT_THE_USERS = (str(Path(__file__).resolve().parent.parent), importlib.__path__[0], "<frozen")


class Refused(Exception):
    """Something on the command line that cannot be used. The message is one line."""


def main(argv: list[str] | None = None) -> None:
    """Step through the backward pass of a loss."""
    parser = _Parser(
        prog="python -m autograd.step",
        description=main.__doc__,
        epilog=_help_on_targets(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("target", nargs="?", help="an example, FILE.py:FUNCTION or MODULE:FUNCTION")
    parser.add_argument("--html", metavar="FILE", help="write a page for a browser instead")
    args = parser.parse_args(argv)
    if args.target is None:
        parser.print_help()
        return
    try:
        out = None if args.html is None else _checked_out(Path(args.html))
        film = film_of(args.target)
        if out:
            _save(film, out)
        elif sys.stdin.isatty() and sys.stdout.isatty():
            play(film)
        else:
            show_all(film)
    except Refused as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # into head, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _help_on_targets():
    lines = [f"  {name:<12}{inspect.getdoc(example)}" for name, example in EXAMPLES.items()]
    return "\n".join(
        [
            "examples:",
            *lines,
            "",
            "a loss of yours: a function without arguments that returns the loss, or a Film of step_through;",
            "  FILE.py:FUNCTION or MODULE:FUNCTION, for example tinygpt.stepping:gpt",
            "",
            f"keys: {KEYS}; also the arrow keys, space, Home, End and Esc",
        ]
    )


def film_of(target: str) -> Film:
    """The film of an example or of a user's function. Refused if there is none."""
    place, colon, name = target.rpartition(":")
    if not colon:
        if target not in EXAMPLES:
            near = _nearest(target, EXAMPLES)
            raise Refused(f"no example {target!r}{near}; FILE.py:FUNCTION steps through a loss of yours")
        return step_through(EXAMPLES[target])
    function = _function(_module(place), name, place)
    try:
        return step_through(function)
    except Exception as error:
        raise Refused(_in_one_line(error)) from None


def _nearest(name, names):
    found = difflib.get_close_matches(name, names, 1, cutoff=0.4)
    return f", did you mean {found[0]}" if found else f"; there are {', '.join(names)}"


def _module(place: str) -> ModuleType:
    """The module of a file or a dotted name."""
    if place.endswith(".py") and not Path(place).is_file():
        raise Refused(f"there is no file {place}")
    try:
        return _module_of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise Refused(f"cannot import {place}: {_in_one_line(error)}") from None


def _module_of_file(path):
    """Run by its path, since `import random` would not find a random.py of the user's."""
    sys.path.insert(0, str(path.resolve().parent))  # for what it imports itself
    spec = importlib.util.spec_from_file_location(f"file_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _function(module: ModuleType, name: str, place: str) -> Callable:
    function = getattr(module, name, None)
    if function is None:
        names = [other for other, value in vars(module).items() if inspect.isfunction(value)]
        raise Refused(f"{place} has no function {name!r}{_nearest(name, names) if names else ''}")
    if not callable(function):
        raise Refused(f"{name} in {place} is no function")
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError) as error:
        raise Refused(f"{name} in {place}: {error}; write a function without arguments around it") from None
    return function


def _in_one_line(error):
    """What went wrong, and in which line of which file."""
    message = " ".join(str(error).split())
    if message.startswith("step_through"):
        return message
    kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(NOT_THE_USERS)
    ]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{kind}{message}{place}"


def _checked_out(path: Path) -> Path:
    """Refused unless a page may be written there: in place of a page of this command, or of nothing."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise Refused(f"--html {path}: the page is an HTML file; end it in .html")
    if not path.parent.is_dir():
        raise Refused(f"--html {path}: there is no folder {path.parent}")
    if os.path.lexists(path) and not (path.is_file() and b"<title>Step through:" in path.read_bytes()[:2000]):
        raise Refused(f"{path} exists and is not a page of this command; give another name")
    return path


def _save(film, path):
    try:
        film.save(path)
    except OSError as error:
        raise Refused(f"cannot write {path}: {error.strerror or error}") from None
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    main()
