"""Lines typed on a terminal, and an answer to each."""

import contextlib
from collections.abc import Callable
from types import ModuleType

from tinygpt.config import UserError
from tinygpt.streams import tell


def converse(answer: Callable[[str, int], None], read: Callable[[str], str] = input) -> None:
    """Read a line, print its answer, again and again, until Ctrl-D, or Ctrl-C where nothing is typed.

    answer(line, number) prints it; number says how many came before. Ctrl-C ends an answer that is being
    printed. read(prompt) returns a line without its end, as `input` does, with editing and a history if
    Python has readline.
    """
    readline = _readline()
    tell("type the start of a text; Ctrl-C stops what follows it, Ctrl-D leaves")
    number = 0
    while True:
        try:
            line = read("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            if readline and readline.get_line_buffer():
                continue  # only this line is given up, as in a shell
            return
        try:
            answer(line, number)
        except UserError as error:
            tell(f"error: {error}")
            continue
        except KeyboardInterrupt:
            print()
        number += 1


def _readline() -> ModuleType | None:
    """Python's readline, which gives `input` editing and a history, if there is one."""
    with contextlib.suppress(ImportError):
        import readline

        return readline
    return None
