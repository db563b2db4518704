"""Everything that is drawn with matplotlib. It is imported late: that takes longer than all else together.

The pictures do not depend on the machine's settings: they use matplotlib's own style, and Agg, which draws
into memory and needs no screen. A notebook leaves in MPLBACKEND a backend that may not be installed where
the program runs; matplotlib would fail on that name when it is imported.
"""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SOFTWARE = "tinygpt plot"  # the maker, in the PNG file of a comparison
# Colours that people with any kind of colour blindness can tell apart (Okabe and Ito, 2008), without yellow,
# which is too light for a thin line. With other marks they serve for more runs than there are colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
LINES = (("-", "validation"), ("--", "train"))
FEW = 60  # points of a curve up to which each is marked
# Fonts that have Chinese, Japanese or Korean letters; matplotlib's own has none.
CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB",
    "Heiti SC", "Arial Unicode MS", "Microsoft YaHei", "SimHei", "SimSun", "Malgun Gothic", "Yu Gothic",
)  # fmt: skip


@dataclass
class Curve:
    """The losses of a run, all lists of one length. x is what they are drawn over."""

    name: str
    x: list[float]
    train: list[float]
    validation: list[float]


def losses(evaluations: Sequence[dict[str, Any]], best: dict[str, Any]) -> bytes:
    """loss.png: both losses of a run over its steps, from the evaluations in its metrics.jsonl."""
    with _matplotlib() as new_figure:
        figure = new_figure(figsize=(7, 4.5))
        axes = figure.add_subplot()
        steps = [line["step"] for line in evaluations]
        for name, label in (("train_loss", "train"), ("val_loss", "validation")):
            axes.plot(steps, [line[name] for line in evaluations], marker="o", label=label)
        title = f"best validation loss {best['val_loss']:.4f}"
        axes.set(xlabel="step", ylabel="loss (nats per token)", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
        return _png(figure)


def comparison(curves: Sequence[Curve], x_label: str) -> tuple[bytes, bool]:
    """(picture, whether all names could be written) of the losses of several runs in one diagram.

    Every run has a colour; validation is a solid line and train a broken one.
    """
    with _matplotlib() as new_figure, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        figure = new_figure(figsize=(9, 5))
        axes = figure.add_subplot()
        handles = []
        for i, curve in enumerate(curves):
            color = COLOURS[i % len(COLOURS)]
            mark = MARKS[i // len(COLOURS) % len(MARKS)]
            marked = len(curve.x) <= FEW or i >= len(COLOURS)
            style = dict(color=color, marker=mark if marked else None, markersize=4)
            style |= dict(markevery=max(1, len(curve.x) // FEW))
            handles += axes.plot(curve.x, curve.validation, **style)
            axes.plot(curve.x, curve.train, linestyle="--", linewidth=1, alpha=0.7, **style)
        for style, _ in LINES:
            handles += axes.plot([], [], color="#555555", linestyle=style)
        axes.set(xlabel=x_label, ylabel="loss (nats per token)")
        axes.grid(alpha=0.3)
        # Beside the diagram, where it hides no curve.
        legend = axes.legend(handles, [" "] * len(handles), loc="upper left", bbox_to_anchor=(1.01, 1))
        names = [*(curve.name for curve in curves), *(label for _, label in LINES)]
        for text, name in zip(legend.get_texts(), names, strict=True):
            # As it is: "$" starts no formula here, and a leading "_" hides nothing.
            text.set_parse_math(False)
            text.set_text(_short(name))
        picture = _png(figure, bbox_inches="tight", metadata={"Software": SOFTWARE})
    return picture, not any("missing from" in str(warning.message) for warning in warned)


def is_comparison(start: bytes) -> bool:
    """Whether a file that begins with these bytes, 100 or more, is a picture that `comparison` drew."""
    return start.startswith(b"\x89PNG\r\n") and b"tEXtSoftware\0" + SOFTWARE.encode() in start[:100]


def reason(error: Exception) -> str:
    """What went wrong, in a line that is not too long."""
    if isinstance(error, MemoryError):
        return "out of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200].rstrip(".")


@contextlib.contextmanager
def _matplotlib() -> Iterator[Any]:
    """Yield matplotlib's Figure, in its default style; without warnings, and with fonts for most names."""
    was_imported = "matplotlib" in sys.modules
    chosen = os.environ.pop("MPLBACKEND", None)
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)  # it warns of folders and fonts that it misses
    try:
        import matplotlib
        from matplotlib import font_manager, style
        from matplotlib.figure import Figure
    finally:
        if chosen is not None:
            os.environ["MPLBACKEND"] = chosen
    if chosen and not was_imported:  # the rest of a notebook may rely on it
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = chosen
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in CJK_FONTS if name in installed)]
    with warnings.catch_warnings(), style.context("default"):
        warnings.simplefilter("ignore")
        matplotlib.rcParams["font.family"] = fonts
        yield Figure


def _png(figure, **options):
    """The bytes of a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)  # becomes the figure's canvas
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, **options)
    return buffer.getvalue()


def _short(name, longest=40):
    """A name on one line, without its middle if it is long."""
    name = " ".join(name.encode("utf-8", "replace").decode().split())
    half = longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half + 1 :]}"
