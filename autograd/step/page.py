"""A film as one page of HTML: the frame, the style and the script in this folder, filled with the film.

The page needs no server and fetches nothing. In a notebook it stands in an iframe of its own. So several
players in one notebook cannot disturb each other or the notebook: each has its own names, style, keys and
content security policy. This works wherever an output may run scripts: JupyterLab, VS Code, an exported
notebook.

All functions take a film as the plain dict that `Film.as_json` gives.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path

from autograd.step.graph import graph_of
from autograd.step.views import films_of, first_view, view_showing, views_of
from autograd.webpage import as_data, fill, policy

HERE = Path(__file__).parent
HEIGHT = 760  # pixels of an output, until its script says how much it needs


def document(film: dict) -> str:
    """The text of a page that shows the film."""
    films = films_of(film)
    views = [views_of(each) for each in films]
    style = _file("player.css")
    script = _file("heatmaps.js") + _file("player.js").removeprefix('"use strict";\n')
    return fill(
        _file("player.html"),
        policy=policy(style, script),
        style=style,
        script=script,
        title=html.escape(film["title"]),
        views="".join(_views(number, each) for number, each in enumerate(views)),
        film=as_data(_packed(films, views)),
    )


def output(film: dict, still: bytes) -> str:
    """The HTML of a notebook's output: the page in an iframe.

    Before it stands the still picture (a PNG), which the page hides. It is seen where iframes are taken out,
    as on GitHub.
    """
    title = html.escape(film["title"])
    picture = base64.b64encode(still).decode()
    page = document(film).replace("&", "&amp;").replace("'", "&#39;")
    return (
        f'<div><img alt="Moments of the film: {title}" style="max-width: 100%" '
        f'src="data:image/png;base64,{picture}">'
        f'<iframe title="Step through: {title}" width="100%" height="{HEIGHT}" frameborder="0" '
        f"srcdoc='{page}'></iframe></div>"
    )


def _views(number, views):
    """Every view of film number `number` as a hidden element."""
    return "".join(
        f'<div class="view" data-film="{number}" data-view="{html.escape(view.name)}" hidden>'
        f"{graph_of(view)}</div>"
        for view in views
    )


def _packed(films, views):
    """What the script reads: all films, and the arrays and sources that they share."""
    packed = [
        {name: each[name] for name in ("title", "steps")}
        | {"nodes": [node | {"view": view_showing(node, those)} for node in each["nodes"]]}
        | {"views": {view.name: view.open for view in those}, "first_view": first_view(those)}
        for each, those in zip(films, views, strict=True)
    ]
    return {"films": packed, "sources": films[0]["sources"], "arrays": films[0]["arrays"]}


def _file(name):
    return (HERE / name).read_text(encoding="utf-8")
