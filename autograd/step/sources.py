"""The source of an operation, from its file, and the place of each pullback in it."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import linecache
import textwrap
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from types import CodeType, FunctionType

from autograd.ops.linalg import Shared
from autograd.step.film import Place, Source
from autograd.tape import AddingPullback, SummingPullback

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
PACKAGE = Path(__file__).resolve().parent.parent


class Sources:
    """Collects the sources that a film shows: `texts` is {key: Source}."""

    def __init__(self):
        self.texts: dict[str, Source] = {}
        self._spans = {}  # of each key: (file, first line, last line)
        self._arguments = {}

    def of_operation(self, operation: Callable | None) -> str | None:
        """The key of an operation's own source; None without an operation or a file."""
        code = code_of(getattr(operation, "raw", operation))
        return code and self._of_code(code, outermost=False)

    def place_of(self, pullback: Callable | None, of_operation: str | None) -> Place | None:
        """Where a pullback stands: in the operation's own source if it can; None if it is in no file."""
        code = code_of(pullback)
        key = code and (of_operation if self._holds(of_operation, code) else self._of_code(code, True))
        function = key and _definition(code)
        if not function:  # in no file, or in one that has changed since
            return None
        also = [_definition(helper) for helper in _helpers(pullback) if self._holds(key, helper)]
        return Place(
            source=key,
            first=function.lineno,
            last=function.end_lineno,
            columns=self._columns(key, function),
            also=tuple((each.lineno, each.end_lineno) for each in also if each),
        )

    def arguments(self, key: str | None) -> list[tuple[str, bool]]:
        """(name, whether it is a differentiable input) of the arguments of the function of a source."""
        return self._arguments.get(key, [])

    def _of_code(self, code, outermost):
        """The key of the source of a function, or of the operation around it."""
        function = _operation_around(code) if outermost else _definition(code)
        if function is None:
            return None
        first = _first_line(function)
        span = (code.co_filename, first, function.end_lineno)
        for key, other in self._spans.items():
            if other == span:
                return key
        file = _shown(code.co_filename)
        key = self._free_key(f"{file}:{first}")
        lines = linecache.getlines(code.co_filename)[first - 1 : function.end_lineno]
        self._spans[key] = span
        self._arguments[key] = [(each.arg, each.annotation is None) for each in function.args.args]
        self.texts[key] = Source(file, first, textwrap.dedent("".join(lines)).rstrip())
        return key

    def _free_key(self, key):
        """The key, or with a number if another file of this name has one: cells are all called the same."""
        keys = itertools.chain([key], (f"{key} ({n})" for n in itertools.count(2)))
        return next(each for each in keys if each not in self.texts)

    def _holds(self, key, code):
        """Whether a function lies within the source of this key."""
        file, first, last = self._spans.get(key, (None, 0, 0))
        return code.co_filename == file and first <= code.co_firstlineno <= last

    def _columns(self, key, function):
        """Begin and end of a function in its line of the source, which may be less indented than the file."""
        if function.lineno != function.end_lineno:
            return None
        file, first, last = self._spans[key]
        lines = linecache.getlines(file)[first - 1 : last]
        cut = len(lines[0]) - len(textwrap.dedent("".join(lines)).splitlines(True)[0])
        line = linecache.getline(file, function.lineno).encode()
        return tuple(len(line[:n].decode()) - cut for n in (function.col_offset, function.end_col_offset))


def code_of(function: Callable | None) -> CodeType | None:
    """The code of a function, of the one wrapped in it, or of an object's __call__; None for C and None."""
    if isinstance(function, (AddingPullback, SummingPullback, Shared)):
        return code_of(function.function)
    if isinstance(function, partial):
        return code_of(function.func)
    function = inspect.unwrap(function) if callable(function) else function
    if not hasattr(function, "__code__"):
        function = type(function).__call__
    return getattr(function, "__code__", None)


def _helpers(function) -> Iterator[CodeType]:
    """The functions that a pullback holds as local names, and those that these hold."""
    if isinstance(function, (AddingPullback, SummingPullback, Shared)):
        function = function.function
    for cell in getattr(function, "__closure__", None) or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if isinstance(value, (FunctionType, Shared)):
            yield code_of(value)
            yield from _helpers(value)


@lru_cache(64)
def _functions(file: str, text: str) -> list[tuple[Function, ...]]:
    """Every function of a file as a chain: those around it, outermost first, and itself."""
    chains = []

    def visit(node, around):
        if isinstance(node, Function):
            around = (*around, node)
            chains.append(around)
        for child in ast.iter_child_nodes(node):
            visit(child, around)

    with contextlib.suppress(SyntaxError):  # of a cell with a magic command
        visit(ast.parse(text), ())
    return chains


def _chain(code) -> tuple[Function, ...]:
    """The functions around a function in its file, and itself; () if there is no such file.

    Several lambdas may begin in one line. Then the columns of the code tell which it is.
    """
    text = "".join(linecache.getlines(code.co_filename))
    sign = code.co_firstlineno, code.co_name
    found = [chain for chain in _functions(code.co_filename, text) if _sign(chain[-1]) == sign]
    if len(found) > 1:
        at = [(line, column) for line, _, column, _ in code.co_positions() if column]
        found = [chain for chain in found if all(_within(place, chain[-1]) for place in at)]
    return found[-1] if found else ()


def _first_line(function):
    """With its decorators."""
    return min(each.lineno for each in (function, *getattr(function, "decorator_list", ())))


def _sign(function):
    """What its code object says of a function: its first line and its name."""
    return _first_line(function), getattr(function, "name", "<lambda>")


def _within(place, function):
    """Whether a place (line, column) lies in a function."""
    begin = function.lineno, function.col_offset
    return begin <= place <= (function.end_lineno, function.end_col_offset)


def _definition(code) -> Function | None:
    chain = _chain(code)
    return chain[-1] if chain else None


def _operation_around(code) -> Function | None:
    """The innermost function with the decorator `op` around a function, or else the outermost."""
    chain = _chain(code)
    decorated = [function for function in chain if "op" in _decorators(function)]
    return (decorated or chain[:1] or [None])[-1]


def _decorators(function):
    """The last names of its decorators: op of @op and of @ag.op."""
    decorators = getattr(function, "decorator_list", ())
    return [getattr(each, "attr", getattr(each, "id", "")) for each in decorators]


def _shown(file):
    """How a file is named: from the folder of the package on, or just its name."""
    path = Path(file)
    if path.is_absolute() and path.is_relative_to(PACKAGE.parent):
        return path.relative_to(PACKAGE.parent).as_posix()
    if "ipykernel" in file or file.startswith("<ipython"):
        return "a cell of the notebook"
    return path.name
