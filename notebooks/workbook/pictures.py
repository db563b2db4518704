"""Pictures that several notebooks use. Each function returns a `Picture`, which Jupyter shows as PNG."""

import io
import re
from xml.etree import ElementTree

import numpy as np
from cycler import cycler
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Polygon, Rectangle
from matplotlib.path import Path

from autograd.svg import Graph

BLUE, RED, GREEN, GREY, GOLD = "#2f6db3", "#c4453c", "#3a8f5c", "#8a8a8a", "#c99a2e"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.grid": False,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=[BLUE, RED, GREEN, GOLD, GREY]),
}


class Picture:
    """A matplotlib Figure. Its PNG holds no date and no version: drawn again, it has the same bytes."""

    def __init__(self, figure, words):
        self.figure, self.words = figure, words

    def _repr_png_(self):
        buffer = io.BytesIO()
        with rc_context(STYLE):
            self.figure.savefig(
                buffer, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None}
            )
        return buffer.getvalue()

    def __repr__(self):
        return f"[picture: {self.words}]"


def panels(columns=1, rows=1, width=8.0, height=3.2, **options):
    """A Figure and its axes: one, a list of them, or rows of lists."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, **options)
    return figure, axes


def ipython():
    """The IPython that runs this code, or None outside of a notebook."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()


def show(picture, handle=None):
    """Display a picture in the middle of a cell; outside of a notebook, do nothing.

    Returns a handle. Given an earlier picture's handle, it replaces that picture.
    """
    if ipython() is None:
        return None
    from IPython.display import display

    if handle is None:
        return display(picture, display_id=True)
    handle.update(picture)
    return handle


def as_matrix(array):
    """Any array as a matrix to look at: (..., columns) -> (rows, columns)."""
    array = np.asarray(array, float)
    return array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)


def heat_map(axes, matrix, title="", limit=None, numbers=None, **labels):
    """A matrix in colours, white at 0, red above and blue below; with its numbers if there are few."""
    matrix = as_matrix(matrix)
    limit = limit or largest_of(matrix)
    aspect = "auto" if max(matrix.shape) > 12 else "equal"
    axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect=aspect)
    axes.set(title=title, xticks=[], yticks=[], **labels)
    if numbers is None:
        numbers = matrix.size <= 40
    if numbers:
        for (i, j), value in np.ndenumerate(matrix):
            color = "w" if abs(value) > 0.65 * limit else "k"
            axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=8, color=color)


def largest_of(matrix):
    """The largest absolute value; 1 if there is none above 0."""
    return np.abs(matrix[np.isfinite(matrix)]).max(initial=0.0) or 1.0


def comparison(yours, true):
    """Your array, the true one and their difference side by side, the first two in the same colours."""
    yours, true = as_matrix(yours)[:16, :32], as_matrix(true)[:16, :32]
    figure, axes = panels(3, width=9, height=max(1.5, min(3.5, 0.8 + 0.35 * len(true))))
    limit = largest_of(true)
    heat_map(axes[0], yours, "yours", limit)
    heat_map(axes[1], true, "true", limit)
    with np.errstate(invalid="ignore"):
        heat_map(axes[2], yours - true, "difference")
    return Picture(figure, "yours, true, difference")


def reference_lines(axes, references):
    """Dashed lines at these heights, {text: height}; the texts stand to the right of the axes."""
    beside = axes.get_yaxis_transform()  # x in parts of the width, y as in the data
    for text, height in references.items():
        axes.axhline(height, color=GREY, ls="--", lw=0.8)
        axes.text(1.01, height, text, transform=beside, va="center", fontsize=8, color=GREY)


def with_values(references):
    """{name: value} with the value in the name too, as reference_lines shows it."""
    return {f"{name}: {value:.2f}": value for name, value in references.items()}


# --- graphs as PNG, beside their SVG --------------------------------------------------------------


def rasterise(svg):
    """The PNG of an SVG text of autograd.svg, for places that show no SVG (a notebook not trusted yet).

    It knows rectangles, paths of M and C, polygons, texts, and such pictures inside.
    """
    root = ElementTree.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    with rc_context(STYLE):
        figure = Figure(figsize=(width / 100, height / 100))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        _paint(axes, root, 0.0, 12)
    return Picture(figure, "a graph")._repr_png_()


def _paint(axes, parent, top, font_size):
    """Draw the elements inside `parent`, whose upper edge lies at `top`."""
    for element in parent:
        kind, get = element.tag.rpartition("}")[2], element.get
        x, y = float(get("x", 0)), top + float(get("y", 0))
        if kind == "svg":
            _paint(axes, element, y, font_size)
        elif kind == "rect":
            width, height = float(get("width")), float(get("height"))
            style = {"facecolor": get("fill"), "edgecolor": get("stroke", "none")}
            axes.add_patch(Rectangle((x, y), width, height, **style))
        elif kind == "text":
            across = "center" if get("text-anchor") == "middle" else "left"
            style = {"color": get("fill", "black"), "weight": get("font-weight", "normal"), "ha": across}
            # pixels to points, a little smaller for a wider font
            size = float(get("font-size", font_size)) * 0.68
            axes.text(x, y, element.text, size=size, **style)
        elif kind == "polygon":
            axes.add_patch(Polygon(_points(get("points"), top), color=get("fill")))
        else:
            points = _points(get("d"), top)
            codes = [Path.MOVETO] + [Path.CURVE4] * (len(points) - 1)
            axes.add_patch(PathPatch(Path(points, codes), fill=False, edgecolor=get("stroke")))


def _points(text, top):
    """The numbers in the text, two a point: (n, 2)."""
    points = np.array([float(number) for number in re.findall(r"-?[\d.]+", text)]).reshape(-1, 2)
    points[:, 1] += top
    return points


def show_graphs_as_png_too():
    """Have IPython make both pictures of a Graph."""
    if ipython() is not None:
        png = ipython().display_formatter.formatters["image/png"]
        png.for_type(Graph, lambda graph: rasterise(graph._repr_svg_()))


show_graphs_as_png_too()
