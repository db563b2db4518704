"""A film as text for a terminal: the list of its steps, and one step with the source beside it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np

WIDTH = 100  # columns
NAMES = 60  # of them, at most, for what stands before the numbers of a list
FEW = 6  # numbers that are written out, if they have room
ROOM = 28


def film_text(film: Any) -> str:
    """All steps of a Film, one a line, below the module that they belong to."""
    lines = list(_list(film))
    column = min(NAMES, max(len(line[0]) for line in lines if isinstance(line, tuple)))
    return "\n".join(
        line if isinstance(line, str) else f"{cut(line[0], column):<{column}}  {line[1]}" for line in lines
    )


def step_text(film: Any, number: int, width: int = WIDTH, height: int | None = None) -> str:
    """One step of a Film in full: the numbers, why it comes now, and the pullback in its source.

    number: from 0. Of a source that is longer than the height leaves room for, the pullback is seen.
    """
    step = film.steps[number]
    name = film.nodes[step.node].name
    head = f"step {number + 1} of {len(film.steps)}, {step.kind}"
    facts = _backward_facts(film, step) if step.kind == "backward" else _forward_facts(film, step)
    lines = [f"{cut(film.title, width - 2 - len(head))}  {head}", ""]
    lines += [_row(*fact, width) for fact in facts]
    lines += ["", *textwrap.wrap(step.why, width)]
    if film.nodes[step.node].inside:
        lines += [f"{name} can be opened: it has steps inside."]
    if step.place:
        room = height and height - len(lines) - 2
        source = film.sources[step.place.source]
        lines += ["", source.file, *_beginning_at_the_mark(list(_source(source, step.place, width)), room)]
    return "\n".join(lines)


def value_text(array: np.ndarray | None) -> str:
    """A number, a few numbers, or the shape with the root mean square."""
    if array is None:
        return "not known"
    if array.size == 1:
        return f"{array.item():.4g}"
    text = np.array2string(array, precision=4, separator=", ", max_line_width=WIDTH).replace("\n", "")
    if array.size <= FEW and len(text) <= ROOM:
        return text
    with np.errstate(over="ignore", invalid="ignore"):
        rms = math.sqrt(float((array.astype(np.float64) ** 2).mean()))
    return f"{array.shape} rms {rms:.4g}"


def cut(text: str, width: int) -> str:
    """The text, without its middle if it is too long."""
    if len(text) <= width:
        return text
    end = width // 2 - 1
    return f"{text[: width - end - 1]}…{text[-end:]}"


# --- the list -------------------------------------------------------------------------------------


def _list(film) -> Iterator[str | tuple[str, str]]:
    """Headings, and lines in two parts: what happens, and the number."""
    kinds = [node.kind for node in film.nodes]
    counts = [_count(kinds.count(kind), kind) for kind in ("operation", "leaf", "constant")]
    yield cut(f"{film.title}: {', '.join(filter(None, counts))}", WIDTH)
    yield "before the first step"
    for node in film.nodes:
        if node.kind != "operation":
            yield f"      {_called(node)}", value_text(node.value)
    kind, module, digits = "", "", len(str(len(film.steps)))
    for number, step in enumerate(film.steps, 1):
        if step.kind != kind:
            kind, module = step.kind, ""
            yield kind if kind == "forward" else "backward: to whom a gradient goes, and what it has then"
        node = film.nodes[step.node]
        if node.module != module:
            module = node.module
            yield f"  {module or 'in no module'}"
        what, value = _forward_line(film, step) if kind == "forward" else _backward_line(film, step)
        yield f"  {number:{digits}}  {what}", value


def _count(n, kind):
    plural = {"leaf": "leaves"}.get(kind, f"{kind}s")
    return f"{n} {kind if n == 1 else plural}" if n else ""


def _forward_line(film, step):
    return _formula(film, step), value_text(film.nodes[step.node].value)


def _backward_line(film, step):
    node, total = film.nodes[step.node], value_text(step.total)
    return f"{node.called} -> {_called(film.nodes[step.to], node.module)}", f"{'sum ' * step.adds}{total}"


def _formula(film, step):
    """c = multiply(a, b), or multiply #4(a, b) if it has no label"""
    if len(step.nodes) > 1:
        return f"{len(step.nodes)} operations"
    node = film.nodes[step.node]
    inputs = ["None" if i is None else _called(film.nodes[i], node.module) for i in node.inputs]
    return f"{f'{node.called} = {node.name}' if node.label else node.called}({', '.join(inputs)})"


def _called(node, module=""):
    """What a node is called; a parameter or a number of this module by the rest of its name."""
    name = node.name if node.kind == "constant" and not node.label else node.called
    return name.removeprefix(f"{module}.") if module else name


# --- one step -------------------------------------------------------------------------------------


def _forward_facts(film, step):
    """(name, value): what goes in, and what comes out."""
    if len(step.nodes) > 1:
        return [(film.nodes[i].called, value_text(film.nodes[i].value)) for i in step.nodes]
    node = film.nodes[step.node]
    inputs = zip(node.input_names, node.inputs, strict=True)
    return [
        ("computed", _formula(film, step)),
        *([("with", node.options)] if node.options else []),
        *((name, value_text(film.nodes[i].value)) for name, i in inputs if i is not None),
        ("result", value_text(node.value)),
    ]


def _backward_facts(film, step):
    node, target = film.nodes[step.node], _called(film.nodes[step.to])
    return [
        ("turn of", f"{_formula(film, step)}, input {node.input_names[step.input]}"),
        ("its value", value_text(node.value)),
        ("gradient that comes in", value_text(step.incoming)),
        (f"goes to {target}", value_text(step.contribution)),
        (f"{target} has now", f"{value_text(step.total)}, {'added up' if step.adds else 'its first'}"),
    ]


def _row(name, value, width):
    column = min(34, max(22, width // 3))
    return f"  {cut(name, column):<{column}} {cut(value, width - column - 3)}"


def _source(source, place, width) -> Iterator[str]:
    """The lines around the pullback, marked with >, and those of its helpers, with a dot."""
    marks = dict.fromkeys(range(place.first, place.last + 1), ">")
    for first, last in place.also:
        marks |= dict.fromkeys(range(first, last + 1), "·")
    near = {line + i for line in marks for i in (-2, -1, 0, 1, 2)}
    near |= {source.first_line, source.first_line + 1}
    left_out = False
    for number, text in enumerate(source.text.splitlines(), source.first_line):
        if number not in near:
            left_out = True
            continue
        if left_out:
            yield "       ..."
        left_out = False
        columns = place.columns if number == place.first else None
        yield from _numbered(number, text, marks.get(number, " "), columns, width)


def _numbered(number, text, mark, columns, width):
    """A source line with its number, in pieces of what fits; carets below the columns."""
    room = width - 8
    below = " " * columns[0] + "^" * (columns[1] - columns[0]) if columns else ""
    for start in range(0, max(len(text), 1), room):
        piece, carets = text[start : start + room], below[start : start + room].rstrip()
        yield f"{mark}{'' if start else number:>5}  {piece}".rstrip()
        if carets.strip():
            yield f"        {carets}"


def _beginning_at_the_mark(lines, room):
    """At most so many of the lines, if there is less room than lines: from the first marked one on."""
    if room is None or len(lines) <= room:
        return lines
    first = next(i for i, line in enumerate(lines) if line.startswith(">"))
    start = max(0, min(first - 1, len(lines) - room))
    return lines[start : start + max(room, 2)]
