"""One or two plain sentences per step: why it is this node's turn, and what becomes of the gradient.

A use is one that the loss depends on. No other is in a film.
"""

from __future__ import annotations


def computes(name: str, inputs: list[str]) -> str:
    """Of a forward step."""
    inputs = list(dict.fromkeys(inputs))
    known = f"{inputs[0]} is" if len(inputs) == 1 else f"{', '.join(inputs[:-1])} and {inputs[-1]} are"
    return f"{known} known, so {name} is computed; the tape notes how to go back."


def computes_several(module: str, operations: int) -> str:
    """Of a forward step of several operations."""
    return f"{module} computes: {operations} operations, each noted on the tape."


def starts(name: str) -> str:
    """Of the first backward step."""
    return f"The way back starts at the loss, {name}: d loss / d loss is 1."


def starts_inside(name: str) -> str:
    """Of the first backward step of a film inside an operation."""
    return f"The way back starts at {name}, the result, with the gradient that comes in."


def turn(name: str, uses: int, waiting: int, newest: bool) -> str:
    """Of a node's first backward step. waiting: how many nodes have a gradient and wait, this one too.

    newest: whether it is the newest of those, as it always is in the library's own walk.
    """
    if uses == 1:
        complete = f"The only use of {name} has handed back its part: the gradient is complete."
    else:
        both = "Both" if uses == 2 else f"All {uses}"
        complete = f"{both} uses of {name} have handed back their part: the gradient is complete."
    if waiting == 1:
        return f"{complete} No other operation is waiting."
    if newest:
        return f"{complete} It is the newest of the {waiting} operations that are waiting."
    return f"{complete} {waiting} operations are waiting; this walk takes it first."


def next_input(name: str) -> str:
    """Of a node's later backward steps."""
    return f"It is still the turn of {name}: the same gradient goes back to its next input."


def arrives(target: str, part: int, uses: int) -> str:
    """What becomes of a contribution: part number `part` of `uses`."""
    if uses == 1:
        return f"{target} has no other use, so this is its whole gradient."
    if part == 1:
        return f"{target} is used {_times(uses)}: this is the first part of its gradient."
    rest = "now it is complete" if part == uses else f"{uses - part} more to come"
    return f"{target} is used {_times(uses)}: this part is added to what is there; {rest}."


def _times(n):
    return "twice" if n == 2 else f"{n} times"
