"""Playing a film in a terminal: a key, a step."""

from __future__ import annotations

import itertools
import os
import select
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator

from autograd.step.film import Film
from autograd.step.text import WIDTH, cut, step_text

KEYS = "n next, b back, f first, l last, o open, c close, q quit"
CLEAR = "\x1b[H\x1b[2J"
DRAW = ""  # no key: the terminal has another size now
MEANS = {" ": "n", "\r": "n", "\n": "n", "\x1b": "c", "\x04": "q"}  # \x04: Ctrl-D
MEANS |= {f"\x1b{start}{end}": key for start in "[O" for end, key in zip("CDHF", "nbfl", strict=True)}
MEANS |= {"\x1b[1~": "f", "\x1b[4~": "l"}  # Home and End of some terminals


def play(film: Film, keys: Iterable[str] | None = None, write: Callable[[str], object] | None = None) -> None:
    """Show a step, wait for a key, and so on until q or the end of the keys. keys: those of the terminal."""
    write, films = write or _write, [(film, 0)]  # the film shown is the last, and its step
    for pressed in itertools.chain([DRAW], terminal_keys() if keys is None else keys):
        key = MEANS.get(pressed, pressed)
        if key == "q":
            return
        said = _press(key, films)
        write(_screen(films, said))


def show_all(film: Film, write: Callable[[str], object] | None = None) -> None:
    """The list of the steps, and each step in full."""
    write = write or _write
    write(f"{film}\n")
    for number in range(len(film.steps)):
        write(f"\n{'-' * WIDTH}\n{step_text(film, number)}\n")


def _press(key, films):
    """Go where the key leads. What is to be said about it, or ""."""
    film, place = films[-1]
    last = len(film.steps) - 1
    moves = {"n": min(place + 1, last), "b": max(place - 1, 0), "f": 0, "l": last}
    if key in moves:
        films[-1] = film, moves[key]
    elif key == "o":
        step = film.steps[place]
        inside = film.nodes[step.node].inside
        if inside is None:
            return f"There is nothing inside {film.nodes[step.node].name}."
        films.append((inside, [each.kind for each in inside.steps].index(step.kind)))
    elif key == "c":
        if len(films) == 1:
            return "This is the outermost film."
        films.pop()
    elif key != DRAW:
        return "No such key."
    return ""


def _screen(films, said):
    columns, rows = shutil.get_terminal_size()
    width = min(columns - 1, WIDTH)
    above, below = [f"inside: {film.title}" for film, _ in films[:-1]], [said] * bool(said) + [KEYS]
    step = step_text(*films[-1], width, height=rows - len(above) - len(below) - 2)
    return CLEAR + "\n".join([*(cut(line, width) for line in above), step, "", *below, ""])


def _write(text):
    sys.stdout.write(text)
    sys.stdout.flush()


def terminal_keys() -> Iterator[str]:
    """Keys as they are pressed, an arrow as one, and DRAW for a new size; it ends with the input."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        import msvcrt

        while True:
            yield msvcrt.getwch()
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield from _keys_of(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _keys_of(descriptor):
    size = shutil.get_terminal_size()
    while True:
        while not select.select([descriptor], [], [], 0.3)[0]:
            if (now := shutil.get_terminal_size()) != size:
                size = now
                yield DRAW
        pressed = os.read(descriptor, 8).decode(errors="replace")
        if not pressed:
            return
        yield from [pressed] if pressed.startswith("\x1b") else pressed
