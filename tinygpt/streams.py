"""Standard input, output and error, made safe to use wherever the programs are started."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO


def make_safe() -> None:
    """Make the standard streams usable, whatever they are connected to. Both programs begin with it.

    A stream that is closed leads to nowhere. A character that standard output cannot show becomes "?".
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # A new file gets the lowest free number, here that of the closed stream. If it stayed free, a
            # checkpoint might get it, and then what is written to the stream by its number.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace")):
        if hasattr(stream, "reconfigure") and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=errors)


def tell(text: str) -> None:
    """Print a line on standard error, apart from the output. If it cannot be written, nothing happens."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


@contextlib.contextmanager
def output() -> Iterator[None]:
    """Print to standard output, and at once. If that fails the rest is dropped, and an OSError says why."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        _give_up(sys.stdout)
        raise OSError(error.errno, error.strerror, "standard output") from None


def finish_output() -> None:
    """Write what standard output still holds; as in `output`."""
    with output():
        pass


def _give_up(stream: TextIO) -> None:
    """Lead a stream to nowhere, or else Python would fail once more on what it holds, when it ends."""
    with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
