"""Boxes and arrows as an SVG picture, with a layout of our own, so that no other program is needed."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Callable
from pathlib import Path

NO_GRADIENT = "no gradient yet"
# pixels
LINE = 16  # the height of a line of text
LETTER = 6.5  # the width of a letter; a bold one is wider
GAP = 18  # between boxes of a layer
LAYER_GAP = {"right": 64, "down": 58}  # between layers, by direction; the labels of the edges stand there
WIDEST = 860  # a graph that is longer from left to right is drawn from top to bottom
SWEEPS = 8  # of the layout, up and down the layers


@dataclasses.dataclass(eq=False)
class Box:
    """A node of the picture: `lines` of text, and `inputs`, pairs (Box, label of the edge).

    gradient: text, or a function that gives it when the picture is shown.
    """

    lines: list[str]
    inputs: list[tuple[Box, str]] = dataclasses.field(default_factory=list)
    gradient: str | Callable[[], str] = ""
    is_leaf: bool = False

    def gradient_text(self) -> str:
        return self.gradient() if callable(self.gradient) else self.gradient

    def size(self) -> tuple[float, float]:
        """Width and height, with room for a later gradient, so that nothing moves when it comes."""
        lines = [*self.lines, NO_GRADIENT] if self.gradient else self.lines
        return LETTER * max(1.1 * len(lines[0]), *map(len, lines)) + 16, LINE * len(lines) + 10


class Graph:
    """A picture of boxes (inputs before their users). Jupyter shows it; `save` writes it as an .svg file."""

    def __init__(self, boxes: list[Box]):
        self.boxes = boxes

    def _repr_svg_(self) -> str:
        return to_svg(self.boxes)

    def save(self, path: str | Path) -> None:
        Path(path).write_text(self._repr_svg_(), encoding="utf-8")

    def __repr__(self) -> str:
        return "\n".join(map(_in_words, self.boxes))


def _in_words(box):
    """The box on one line: its text | its inputs | its gradient."""
    inputs = ", ".join(source.lines[0] for source, _ in box.inputs)
    return " | ".join(filter(None, [" ".join(box.lines), inputs, box.gradient_text()]))


def to_svg(boxes: list[Box]) -> str:
    """The SVG text of boxes that are listed with inputs before their users."""
    placed = layout(boxes)
    drawn = [_draw_edge(edge, placed) for edge in placed.edges]
    drawn += [_draw_box(box, *placed.centers[box]) for box in boxes]
    width, height = placed.size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(drawn)}</svg>'
    )


# --- layout: layers from the leaves to the output -------------------------------------------------


class Crossing:
    """The place of an edge in a layer that it crosses."""

    def size(self):
        return 0, 8


@dataclasses.dataclass
class Edge:
    """From an input to its user: `path` holds both boxes and the Crossings between them."""

    path: list[Box | Crossing]
    label: str


@dataclasses.dataclass
class Layout:
    """Where everything stands: the centre (x, y) of each Box and Crossing; size: (width, height) of all."""

    edges: list[Edge]
    centers: dict[Box | Crossing, tuple[float, float]]
    size: tuple[int, int]
    to_the_right: bool


def layout(boxes: list[Box], widest: float = WIDEST) -> Layout:
    """A place for each box. They go from left to right if that is not wider than `widest`, else down."""
    layers, edges = _layers(boxes)
    gaps = LAYER_GAP["right"] * (len(layers) - 1)
    to_the_right = sum(_depths(layers, True)) + gaps <= widest
    centers, size = _place(layers, edges, to_the_right)
    return Layout(edges, centers, tuple(round(n) for n in size), to_the_right)


def _layers(boxes):
    """(layers, edges): lists of the items (Box or Crossing) that stand side by side, and all Edges."""
    # the longest way to the output, so that a leaf stands beside its first user
    height = dict.fromkeys(boxes, 0)
    for box in reversed(boxes):
        for source, _ in box.inputs:
            height[source] = max(height[source], height[box] + 1)
    top = max(height.values())
    layers = [[] for _ in range(top + 1)]
    for box in boxes:
        layers[top - height[box]].append(box)
    edges = []
    for box in boxes:
        for source, label in dict.fromkeys(box.inputs):
            times = box.inputs.count((source, label))
            crossings = [Crossing() for _ in range(height[source] - height[box] - 1)]
            for i, crossing in enumerate(crossings, start=top - height[source] + 1):
                layers[i].append(crossing)
            edges.append(Edge([source, *crossings, box], f"{label} × {times}" if times > 1 else label))
    return layers, edges


def _extent(item, to_the_right):
    """(depth, breadth) of an item: along the direction of the picture, and across it."""
    width, height = item.size()
    return (width, height) if to_the_right else (height, max(width, 8))


def _depths(layers, to_the_right):
    return [max(_extent(item, to_the_right)[0] for item in layer) for layer in layers]


def _place(layers, edges, to_the_right):
    """The centre (x, y) of every item, and the picture's size."""
    across = _place_across(layers, edges, to_the_right)
    low = min(across[item] - _extent(item, to_the_right)[1] / 2 for item in across) - GAP
    high = max(across[item] + _extent(item, to_the_right)[1] / 2 for item in across) + GAP
    centers, along, gap = {}, GAP, LAYER_GAP["right" if to_the_right else "down"]
    for layer, depth in zip(layers, _depths(layers, to_the_right), strict=True):
        for item in layer:
            point = (along + depth / 2, across[item] - low)
            centers[item] = point if to_the_right else point[::-1]
        along += depth + gap
    size = (along - gap + GAP, high - low)
    return centers, size if to_the_right else size[::-1]


def _place_across(layers, edges, to_the_right):
    """Where every item stands within its layer: near the items that it is connected with."""
    before = {item: [] for layer in layers for item in layer}
    after = {item: [] for layer in layers for item in layer}
    for edge in edges:
        for a, b in zip(edge.path, edge.path[1:], strict=False):
            before[b].append(a)
            after[a].append(b)
    across = dict.fromkeys(before, 0.0)
    for layer in layers:
        _spread(layer, across, {item: float(i) for i, item in enumerate(layer)}, to_the_right)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        neighbours = before if forward else after
        for layer in layers if forward else layers[::-1]:
            wanted = {item: _mean([across[n] for n in neighbours[item]], across[item]) for item in layer}
            _spread(layer, across, wanted, to_the_right)
    return across


def _mean(values, default):
    return sum(values) / len(values) if values else default


def _spread(layer, across, wanted, to_the_right):
    """Order a layer by where its items want to be, and put each as near to that as its neighbours allow."""
    layer.sort(key=lambda item: wanted[item])
    end, shift = -math.inf, 0.0
    for item in layer:
        breadth = _extent(item, to_the_right)[1]
        across[item] = max(wanted[item], end + breadth / 2)
        end = across[item] + breadth / 2 + GAP
        shift += wanted[item] - across[item]
    for item in layer:
        across[item] += shift / len(layer)


# --- SVG ------------------------------------------------------------------------------------------


def _draw_text(x, y, text, style):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" {style}>{html.escape(text)}</text>'


def _draw_box(box, x, y):
    width, height = box.size()
    fill, stroke = ("#e3eefa", "#4a7fb5") if box.is_leaf else ("#f6f3ea", "#a08c5b")
    parts = [
        f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'rx="6" fill="{fill}" stroke="{stroke}"/>'
    ]
    for i, line in enumerate(box.lines):
        style = 'font-weight="bold"' if i == 0 else 'fill="#444"'
        parts.append(_draw_text(x, y - height / 2 + LINE * (i + 1), line, style))
    gradient = box.gradient_text()
    if gradient:
        color = "#999" if gradient == NO_GRADIENT else "#b3261e"
        parts.append(_draw_text(x, y + height / 2 - 8, gradient, f'fill="{color}"'))
    return "".join(parts)


def ends_at_borders(edge: Edge, placed: Layout) -> list[tuple[float, float]]:
    """The points of an edge's path, from the border of the input to the border of its user."""
    points = [placed.centers[item] for item in edge.path]
    for end, sign in ((0, 1), (-1, -1)):
        x, y = points[end]
        width, height = edge.path[end].size()
        points[end] = (x + sign * width / 2, y) if placed.to_the_right else (x, y + sign * height / 2)
    return points


def curve(points: list[tuple[float, float]], to_the_right: bool) -> str:
    """A smooth line through the points, as the `d` of an SVG path."""
    line = "M{:.1f},{:.1f}".format(*points[0])
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        middle = (x0 + x1) / 2, (y0 + y1) / 2
        bends = (middle[0], y0, middle[0], y1) if to_the_right else (x0, middle[1], x1, middle[1])
        line += " C{:.1f},{:.1f} {:.1f},{:.1f} {:.1f},{:.1f}".format(*bends, x1, y1)
    return line


def arrow_head(tip: tuple[float, float], to_the_right: bool, size: float = 6) -> str:
    """The corners of an arrow head that points to the right or downwards; to the other side if size < 0."""
    back, side = -size, size / 2
    wings = [(back, -side), (back, side)] if to_the_right else [(-side, back), (side, back)]
    return " ".join(f"{tip[0] + dx:.1f},{tip[1] + dy:.1f}" for dx, dy in [(0, 0), *wings])


def _draw_edge(edge, placed):
    """A smooth line along the edge's path; it ends with an arrow head at the border of the user."""
    points = [placed.centers[item] for item in edge.path]
    points[-1] = ends_at_borders(edge, placed)[-1]
    line, head = curve(points, placed.to_the_right), arrow_head(points[-1], placed.to_the_right)
    label_x, label_y = (0.4 * a + 0.6 * b for a, b in zip(points[0], points[1], strict=True))
    halo = 'fill="#555" font-size="11" stroke="white" stroke-width="3" paint-order="stroke"'
    label = _draw_text(label_x, label_y + 4, edge.label, halo)
    return f'<path d="{line}" fill="none" stroke="#999"/><polygon points="{head}" fill="#999"/>{label}'
