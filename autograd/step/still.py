"""A still picture of a film for places that run no script, such as GitHub: a few moments side by side."""

from __future__ import annotations

import io
import re
import warnings

import numpy as np

from autograd import svg
from autograd.step.views import Seen, films_of, first_view, gradient_words, views_of

MOMENTS = {8: 6, 20: 4}  # {at most so many boxes: so many moments}; of more, only the last
WIDTH = 1200  # pixels of a row of moments, at most
TITLE = 40  # pixels above each graph
LARGEST = 2500  # pixels: of a wider or longer graph only the beginning is seen
DPI = 100
COLOURS = 32  # so that a notebook stays small
POINTS = 72 / DPI  # of a pixel
INK, SOFT, LINE, GRADIENT = "#1b1f24", "#57606a", "#b5bcc4", "#9a3412"
FILLS = {  # and the colour around
    "leaf": ("#e4effb", "#3f78b3"),
    "constant": ("#e4effb", "#3f78b3"),
    "operation": ("#f7f4ec", "#8d7a4c"),
    "module": ("#eaf4ec", "#8d7a4c"),
}
LIT = ("#ffd33d", INK)


def png(film: dict) -> bytes:
    """The main moments of a film, given as `Film.as_json` does, as a PNG. Its bytes are always the same."""
    from matplotlib import rc_context, rcParamsDefault
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image  # which matplotlib needs itself

    film = films_of(film)[0]
    boxes = _view(film).boxes
    placed = svg.layout(boxes, widest=0)
    moments = main_moments(film, boxes)
    width, height = (min(n, LARGEST) for n in (placed.size[0], placed.size[1] + TITLE))
    columns = max(1, min(len(moments), WIDTH // width))
    rows = -(-len(moments) // columns)
    defaults = {name: value for name, value in rcParamsDefault.items() if not name.startswith("backend")}
    with rc_context(defaults):
        figure = Figure(figsize=(columns * width / DPI, rows * height / DPI), dpi=DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, columns * width), ylim=(rows * height, 0))
        axes.axis("off")
        for i, step in enumerate(moments):
            corner = (i % columns * width, i // columns * height)
            _draw(axes, film, placed, boxes, step, corner)
        canvas = FigureCanvasAgg(figure)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of letters that the font lacks, in a name
            canvas.draw()
    picture, buffer = Image.fromarray(np.asarray(canvas.buffer_rgba())), io.BytesIO()
    picture.convert("RGB").quantize(COLOURS).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _view(film):
    """The view that a player begins with. If that has too many boxes, the one that has most of the others."""
    views = views_of(film)
    first = next(view for view in views if view.name == first_view(views))
    smaller = [view for view in views if len(view.boxes) <= max(MOMENTS)]
    return first if first in smaller or not smaller else max(smaller, key=lambda view: len(view.boxes))


def main_moments(film: dict, boxes: list[Seen]) -> list[int]:
    """The places of steps: those in which gradients add up and the last, and others between them.

    Only steps back from one of the boxes to another count.
    """
    box_of = {number: box for box in boxes for number in box.nodes}
    steps = film["steps"]
    seen = [
        i
        for i, step in enumerate(steps)
        if step["kind"] == "backward" and box_of[step["node"]] is not box_of[step["to"]]
    ]
    if not seen:
        return [len(steps) - 1]
    most = next((n for size, n in MOMENTS.items() if len(boxes) <= size), 1)
    chosen = [seen[-1], seen[0], *(i for i in seen if steps[i]["adds"])][:most]
    for n in range(most + 1):  # evenly spaced, as many as there is room for
        between = seen[round(n * (len(seen) - 1) / most)]
        if len(set(chosen)) < most:
            chosen.append(between)
    return sorted(set(chosen))


def _draw(axes, film, placed, boxes, step, corner):
    """The graph as it is after a step, with its upper left corner at a point; above it what happens."""
    now, steps = film["steps"][step], film["steps"][: step + 1]
    x0, y0 = corner
    names = [film["nodes"][now[key]]["called"] for key in ("node", "to") if now.get(key) is not None]
    title = _shortened(f"{step + 1}. {' → '.join(names)}", placed.size[0])
    _text(axes, x0 + svg.GAP, y0 + 22, title, 13, INK, weight="bold", ha="left")
    if now.get("adds"):
        _text(axes, x0 + svg.GAP, y0 + 38, _sum(film, step), 11, GRADIENT, ha="left")
    origin = (x0, y0 + TITLE)
    gone = {(each["to"], each["node"]) for each in steps if each["kind"] == "backward"}
    seen = [box for box in boxes if placed.centers[box][1] < LARGEST]
    for edge in (edge for edge in placed.edges if edge.path[0] in seen):
        source, user = edge.path[0], edge.path[-1]
        pairs = {(a, b) for a in source.nodes for b in user.nodes}
        travels = (now.get("to"), now["node"]) in pairs
        _arrow(axes, edge, placed, origin, back=bool(pairs & gone), travels=travels)
    for box in seen:
        x, y = placed.centers[box]
        _box(axes, box, (origin[0] + x, origin[1] + y), now, gradient_words(film, box.result, step))


def _sum(film, step):
    """How a gradient adds up at a step, in words."""
    now, arrays = film["steps"][step], film["arrays"]
    if arrays[now["total"]]["shape"]:
        return "the gradient adds up"
    before = next(each for each in film["steps"][step - 1 :: -1] if each.get("to") == now["to"])
    terms = (before["total"], now["contribution"], now["total"])
    a, b, total = (f"{float(arrays[number]['min']):.4g}" for number in terms)
    return f"it adds up: {a} + {f'({b})' if b.startswith('-') else b} = {total}"


def _shortened(text, width):
    most = int(width / (svg.LETTER * 1.15))
    return text if len(text) <= most else text[: most - 1] + "…"


def _box(axes, box, center, now, gradient):
    from matplotlib.patches import FancyBboxPatch

    (width, height), (x, y) = box.size(), center
    fill, line = LIT if now["node"] in box.nodes else FILLS[box.kind]
    is_target = now.get("to") in box.nodes and now["node"] not in box.nodes
    corners = [(4, 4), (0, 0)] if box.kind == "module" else [(0, 0)]
    for dx, dy in corners:
        axes.add_patch(
            FancyBboxPatch(
                (x - width / 2 + dx, y - height / 2 + dy),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=6",
                facecolor=fill,
                edgecolor=GRADIENT if is_target else line,
                linewidth=2 if is_target else 0.9,
            )
        )
    for i, words in enumerate(box.lines):
        color, weight = (INK, "bold") if i == 0 else (SOFT, "normal")
        _text(axes, x, y - height / 2 + svg.LINE * (i + 1), words, 11, color, weight)
    if box.gradient:
        color = SOFT if gradient == svg.NO_GRADIENT else GRADIENT
        _text(axes, x, y + height / 2 - 8, gradient, 11, color)


def _text(axes, x, y, words, pixels, color, weight="normal", ha="center"):
    words = words.replace("$", r"\$")  # no formulas
    axes.text(x, y, words, fontsize=pixels * POINTS * 0.93, color=color, weight=weight, ha=ha)


def _arrow(axes, edge, placed, origin, back, travels):
    """An edge; with its head at the input once a gradient went back along it."""
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path

    points = [(origin[0] + x, origin[1] + y) for x, y in svg.ends_at_borders(edge, placed)]
    color = GRADIENT if back else LINE
    numbers = _numbers(svg.curve(points, placed.to_the_right))
    codes = [Path.MOVETO] + [Path.CURVE4] * (len(numbers) - 1)
    width = 2.2 if travels else 1.0
    axes.add_patch(PathPatch(Path(numbers, codes), fill=False, edgecolor=color, linewidth=width))
    tip, size = (points[0], -7) if back else (points[-1], 6)
    head = _numbers(svg.arrow_head(tip, placed.to_the_right, size))
    axes.add_patch(Polygon(head, color=color, linewidth=0))


def _numbers(text):
    """The points in an SVG path: (n, 2)."""
    return np.array(re.findall(r"-?[\d.]+", text), float).reshape(-1, 2)
