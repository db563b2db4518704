"""The views of a film as SVG. A script only sets classes and the texts of the gradients."""

from __future__ import annotations

import html

from autograd import svg
from autograd.step.views import Seen, View

WIDEST = 560  # pixels: a graph that is longer from left to right goes down
ROUND = 10  # what is around the boxes of an open module


def graph_of(view: View) -> str:
    """The SVG of a view. Boxes carry their place in `view.boxes`, and the numbers of their nodes.

    The text of a gradient is left empty, and every edge has two arrow heads: for the way there and back.
    """
    placed = svg.layout(view.boxes, WIDEST)
    width, height = placed.size
    number = {box: i for i, box in enumerate(view.boxes)}
    drawn = [_around(module, view, placed) for module in view.open]
    drawn += [_edge(edge, placed, number) for edge in placed.edges]
    drawn += [_box(box, *placed.centers[box]) for box in view.boxes]
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="group" '
        f'aria-label="Graph of {len(view.boxes)} boxes">{"".join(drawn)}</svg>'
    )


def _around(module, view, placed):
    """What holds the boxes of an open module together: a band around each, and along the edges in between."""
    inside = [box for box in view.boxes if _belongs(box, module)]
    bands = [
        _rectangle(*placed.centers[box], *(n + 2 * ROUND for n in box.size()), 2 * ROUND) for box in inside
    ]
    for edge in placed.edges:
        if edge.path[0] in inside and edge.path[-1] in inside:
            points = [placed.centers[item] for item in edge.path]
            bands.append(f'<path d="{svg.curve(points, placed.to_the_right)}"/>')
    depth = sum(module.startswith(f"{other}.") for other in view.open) % 2
    return f'<g class="module depth{depth}">{"".join(bands)}</g>'


def _belongs(box, module):
    return box.owner == module or box.owner.startswith(f"{module}.")


def _rectangle(x, y, width, height, rounding=6, style=""):
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'rx="{rounding}"{style}/>'
    )


def _text(x, y, text, style):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{html.escape(text)}</text>'


def _box(box: Seen, x, y):
    width, height = box.size()
    parts = [_rectangle(x, y, width, height)]
    if box.kind == "module":  # a second sheet behind the first
        parts.insert(0, _rectangle(x + 4, y + 4, width, height))
    for i, line in enumerate(box.lines):
        style = "name" if i == 0 else "value" if line == box.value else "fact"
        parts.append(_text(x, y - height / 2 + svg.LINE * (i + 1), line, style))
    if box.gradient:
        parts.append(_text(x, y + height / 2 - 8, "", "gradient"))
    if box.can_open:
        parts.append(_opener(x + width / 2, y - height / 2))
    nodes = " ".join(map(str, box.nodes))
    module = f' data-module="{html.escape(box.module)}"' if box.module else ""
    return (
        f'<g class="box {box.kind}" data-nodes="{nodes}" data-result="{box.result}"{module} role="button" '
        f'tabindex="-1">{"".join(parts)}</g>'
    )


def _opener(x, y):
    """A plus in a circle, on the corner of a box that can be opened."""
    plus = f"M{x - 4:.1f},{y:.1f}h8M{x:.1f},{y - 4:.1f}v8"
    return f'<g class="opener"><circle cx="{x:.1f}" cy="{y:.1f}" r="8"/><path d="{plus}"/></g>'


def _edge(edge, placed, number):
    points, to_the_right = svg.ends_at_borders(edge, placed), placed.to_the_right
    there = svg.arrow_head(points[-1], to_the_right)
    back = svg.arrow_head(points[0], to_the_right, -9)
    x, y = (0.5 * a + 0.5 * b for a, b in zip(*points[:2], strict=True))
    label = _text(x, y + 4, edge.label, "label") if edge.label else ""
    return (
        f'<g class="edge" data-edge="{number[edge.path[0]]}-{number[edge.path[-1]]}">'
        f'<path d="{svg.curve(points, to_the_right)}"/><polygon class="there" points="{there}"/>'
        f'<polygon class="back" points="{back}"/>{label}</g>'
    )
