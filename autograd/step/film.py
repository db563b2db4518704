"""A Film: the forward and backward pass of one loss, recorded step by step. Plain data, and as JSON."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autograd.step import page, still
from autograd.step.heatmaps import Heatmaps
from autograd.step.text import film_text


@dataclass(frozen=True)
class Source:
    """The text of a function as it stands in its file, from line number `first_line` on."""

    file: str
    first_line: int
    text: str


@dataclass(frozen=True)
class Place:
    """The pullback of one input: lines `first` to `last` of a Source, whose key is `source`.

    columns: where it begins and ends in its line (from 0, the end excluded) if it stands in one line. also:
    pairs (first, last), the lines of local functions that it calls.
    """

    source: str
    first: int
    last: int
    columns: tuple[int, int] | None = None
    also: tuple[tuple[int, int], ...] = ()


@dataclass
class FilmNode:
    """A leaf, a constant or an operation.

    called: its label or name, with its number if others are called the same. inputs: the numbers of its
    input nodes in the film, None for an input that is not there (bias=None). input_names: the operation's own
    names of them. options: its other arguments, as text. value: a copy of what it holds, None if that is not
    known. make_inside: makes the film inside, when somebody looks.
    """

    id: int
    name: str
    label: str
    kind: str  # "leaf", "constant" or "operation"
    shape: tuple[int, ...]
    dtype: str
    value: np.ndarray | None
    called: str = ""
    module: str = ""
    inputs: list[int | None] = field(default_factory=list)
    input_names: list[str] = field(default_factory=list)
    options: str = ""
    source: str | None = None
    make_inside: Callable[[], Film | None] | None = None

    @functools.cached_property
    def inside(self) -> Film | None:
        """A fused operation as a film of its own, composed of primitives; None for a primitive."""
        return self.make_inside() if self.make_inside else None


@dataclass
class Step:
    """One step: an operation computed ("forward"), or a gradient handed to one input ("backward").

    node: the operation. nodes: in a long film a forward step computes several, of one module. The rest
    belongs to backward steps. `incoming` is the gradient of the operation's result, `contribution` what its
    pullback number `input` makes of it for the node number `to`, `total` the gradient which that node has
    now, and `adds` says whether something was there before.
    """

    kind: str
    node: int
    why: str
    nodes: list[int] = field(default_factory=list)
    input: int | None = None
    to: int | None = None
    incoming: np.ndarray | None = None
    contribution: np.ndarray | None = None
    total: np.ndarray | None = None
    adds: bool = False
    place: Place | None = None


@dataclass(repr=False)
class Film:
    """A loss, stepped through: `nodes` in the order of their creation, and `steps`. See step_through."""

    title: str
    nodes: list[FilmNode]
    steps: list[Step]
    sources: dict[str, Source] = field(default_factory=dict)

    def node(self, title: str) -> FilmNode:
        """The last node with this label or, if there is none, of this operation. KeyError without one."""
        for attribute in ("label", "name"):
            for node in reversed(self.nodes):
                if getattr(node, attribute) == title:
                    return node
        raise KeyError(f"no node of this film is called {title!r}")

    def gradient(self, title: str) -> np.ndarray | None:
        """d loss / d node at the end of the film, for the node of this name; None if it gets none."""
        number = self.node(title).id
        if number == self.nodes[-1].id:
            return next(step.incoming for step in self.steps if step.kind == "backward")
        return next((step.total for step in reversed(self.steps) if step.to == number), None)

    def as_json(self) -> dict[str, Any]:
        """The film as a dict of what JSON knows, with all films inside."""
        arrays, sources = Heatmaps(), {}
        film = self._as_json(arrays, sources)
        listed = {key: vars(source) for key, source in sources.items()}
        return film | {"sources": listed, "arrays": arrays.list}

    def save(self, path: str | Path) -> None:
        """Write the film as one HTML page that plays it, without a server or a network."""
        Path(path).write_text(page.document(self.as_json()), encoding="utf-8")

    def __repr__(self) -> str:
        return film_text(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """For notebooks: the player, a still picture for where scripts are taken out, and text."""
        film = self.as_json()
        png = still.png(film)
        picture = base64.b64encode(png).decode()
        return {"text/html": page.output(film, png), "image/png": picture, "text/plain": str(self)}

    def _as_json(self, arrays, sources):
        """Arrays and sources of all films inside each other stand in one list and one dict."""
        sources |= self.sources
        return {
            "title": self.title,
            "nodes": [_node_as_json(node, arrays, sources) for node in self.nodes],
            "steps": [_step_as_json(step, arrays) for step in self.steps],
        }


def _node_as_json(node, arrays, sources):
    known = {name: value for name, value in vars(node).items() if name != "make_inside"}
    return known | {
        "shape": list(node.shape),
        "value": arrays.number(node.value),
        "inside": node.inside._as_json(arrays, sources) if node.inside else None,
    }


def _step_as_json(step, arrays):
    known = {"kind": step.kind, "node": step.node, "why": step.why}
    if step.kind == "forward":
        return known | {"nodes": step.nodes}
    for name in ("incoming", "contribution", "total"):
        known[name] = arrays.number(getattr(step, name))
    known |= {"input": step.input, "to": step.to, "adds": step.adds}
    place = step.place
    return known | {
        "source": place and place.source,
        "lines": place and [place.first, place.last],
        "columns": place and place.columns and list(place.columns),
        "also": [list(lines) for lines in place.also] if place else [],
    }
