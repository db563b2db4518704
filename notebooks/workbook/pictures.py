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

from autograd.draw import Graph

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
    """A matplotlib Figure whose PNG has no date and no version in it, so that drawing it again gives the same
    bytes.
    """

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


def show(picture):
    """Display a picture in the middle of a cell; outside of a notebook, nothing."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return
    if get_ipython() is not None:
        display(picture)


def as_matrix(array):
    """Any array as a matrix to look at: leading axes stacked."""
    array = np.asarray(array, float)
    return array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)


def heat_map(axes, matrix, title="", limit=None, numbers=None, **labels):
    """A matrix in colours, white at 0, red above and blue below; with its numbers if there are few."""
    matrix = as_matrix(matrix)
    limit = limit or np.abs(matrix[np.isfinite(matrix)]).max(initial=0.0) or 1.0
    image = axes.imshow(
        matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto" if max(matrix.shape) > 12 else "equal"
    )
    axes.set(title=title, xticks=[], yticks=[], **labels)
    if numbers if numbers is not None else matrix.size <= 40:
        for (i, j), value in np.ndenumerate(matrix):
            axes.text(
                j,
                i,
                f"{value:.2g}",
                ha="center",
                va="center",
                fontsize=8,
                color="w" if abs(value) > 0.65 * limit else "k",
            )
    return image


def comparison(yours, true):
    """Yours, the true one and the difference side by side, the first two in the same colours."""
    yours, true = as_matrix(yours)[:16, :32], as_matrix(true)[:16, :32]
    figure, axes = panels(3, width=9, height=max(1.5, min(3.5, 0.8 + 0.35 * len(true))))
    limit = np.abs(true[np.isfinite(true)]).max(initial=0.0) or 1.0
    heat_map(axes[0], yours, "yours", limit)
    heat_map(axes[1], true, "true", limit)
    with np.errstate(invalid="ignore"):
        heat_map(axes[2], yours - true, "difference")
    return Picture(figure, "yours, true, difference")


# --- graphs as PNG, beside their SVG --------------------------------------------------------------


def rasterise(svg):
    """The PNG of an SVG text of autograd.draw: rectangles, paths of M and C, polygons, texts, and such
    pictures inside.

    For wherever SVG is not shown, as in a notebook that Jupyter does not trust yet.
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
    for element in parent:
        kind, get = element.tag.rpartition("}")[2], element.get
        number = lambda name, get=get: float(get(name, 0))
        if kind == "svg":
            _paint(axes, element, top + number("y"), font_size)
        elif kind == "rect":
            corner = number("x"), top + number("y")
            style = {"facecolor": get("fill"), "edgecolor": get("stroke", "none")}
            axes.add_patch(Rectangle(corner, number("width"), number("height"), **style))
        elif kind == "text":
            across = {"middle": "center"}.get(get("text-anchor"), "left")
            style = {"color": get("fill", "black"), "weight": get("font-weight", "normal"), "ha": across}
            # pixels to points, a little smaller for a wider font
            size = float(get("font-size", font_size)) * 0.68
            axes.text(number("x"), top + number("y"), element.text, size=size, **style)
        else:
            points = np.array([float(n) for n in re.findall(r"-?[\d.]+", get("d") or get("points"))]).reshape(
                -1, 2
            )
            points[:, 1] += top
            if kind == "polygon":
                axes.add_patch(Polygon(points, color=get("fill")))
            else:
                codes = [Path.MOVETO] + [Path.CURVE4] * (len(points) - 1)
                axes.add_patch(PathPatch(Path(points, codes), fill=False, edgecolor=get("stroke")))


def show_graphs_as_png_too():
    """Have IPython make both pictures of a Graph."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if get_ipython() is not None:
        png = get_ipython().display_formatter.formatters["image/png"]
        png.for_type(Graph, lambda graph: rasterise(graph._repr_svg_()))


show_graphs_as_png_too()
