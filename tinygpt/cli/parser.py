"""Reading a command line: argparse whose errors are one line and say what to write instead."""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tinygpt.config import UserError
from tinygpt.names import NOT_IN_COMMANDS, nearest
from tinygpt.version import __version__

VERSION = f"tinygpt {__version__}"
NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
SWITCH_VALUES = ("true", "false", "yes", "no", "on", "off")


class Parser(argparse.ArgumentParser):
    """A command line's flags, with dashes or underscores, each given once.

    absent: what to do instead of flags that other programs have; see `nearest`. UserError for every mistake.
    """

    def __init__(self, *arguments: Any, absent: Mapping[str, str] = NOT_IN_COMMANDS, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.absent = absent

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        words = [self._with_dashes(word) for word in (sys.argv[1:] if args is None else args)]
        words = self._with_negative_numbers(words)
        self._refuse_twice(words)
        return super().parse_known_args(words, namespace)

    def _with_dashes(self, word):
        """--batch_size=3 as --batch-size=3, if there is that flag."""
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        return dashed + equals + value if dashed in self._option_string_actions else word

    def _with_negative_numbers(self, words):
        """--min-lr -1e-5 as --min-lr=-1e-5: argparse takes that number for a flag."""
        joined = []
        for word in words:
            if joined and joined[-1] in self._option_string_actions and NEGATIVE.fullmatch(word):
                joined[-1] += "=" + word
            else:
                joined.append(word)
        return joined

    def _refuse_twice(self, words):
        """argparse would take the last of several values and drop the others without a word."""
        names = [word.partition("=")[0] for word in words]
        for action in self._actions:
            given = [name for name in names if name in action.option_strings]
            if len(given) > 1 and not isinstance(action, argparse._AppendAction):
                several = ", with all its values after it" if action.nargs in ("+", "*") else ""
                raise UserError(
                    f"{' and '.join(_once(given))} is given {_times(len(given))}; give it once{several}"
                )

    def error(self, message: str) -> NoReturn:
        kind, _, rest = message.partition(": ")
        if kind == "unrecognized arguments":
            message = self._about_unknown(rest.split()[0], rest)
        elif "ignored explicit argument" in message:
            message = f"{kind.removeprefix('argument ').replace('/', ' or ')}: it takes no value"
        raise UserError(message)

    def _about_unknown(self, word, rest):
        """What to do about a word that argparse had no place for. rest: all such words."""
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            return f"unknown flag {name}; {self._nearest(name)}"
        flag = "--" + name.replace("_", "-")
        if equals and flag in self._option_string_actions:
            return f"{word} stands alone; did you mean {flag}={value}?"
        if word.lower() in SWITCH_VALUES:
            return f"{word} stands alone; a switch takes no value: it is --NAME or --no-NAME"
        if place := self._place_for(rest):
            return f"{rest} stands alone; did you mean {place} {rest}?"
        return f"{rest} stands alone; --help says what goes where"

    def _nearest(self, word):
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        hint = nearest(word, flags, self.absent)
        return "--help lists them" if hint.startswith("choose from") else hint  # they are too many

    def _place_for(self, word):
        """The flag that a path or text without one was meant for, or None."""
        flags = self._option_string_actions
        if word.endswith(".toml") and "--config" in flags:
            return "--config"
        if Path(word, "ckpt").is_dir() and "--resume" in flags:
            return "--resume"
        return next((flag for flag in ("--data", "--prompt") if flag in flags), None)


def _once(words: Iterable[str]) -> list[str]:
    """The different words, in their order."""
    return list(dict.fromkeys(words))


def _times(number):
    return "twice" if number == 2 else f"{number} times"
