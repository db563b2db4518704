"""The page of a film, and its still picture, without a browser."""

import base64
import functools
import hashlib
import html
import io
import json
import re

import numpy as np
import pytest

import autograd as ag
from autograd import Tensor, step_through
from autograd.step import page, still
from autograd.step.views import ALL, ancestors, films_of, first_view, fold, gradient_words, views_of
from tests.autograd.step import losses
from tests.autograd.step.films import (
    Page,
    array_film,
    block_film,
    film_of,
    gpt_film,
    scalar_film,
    unpacked,
)

BAD = '</script><script>alert(1)</script> & "quoted" \' <!--'


def renamed(film, name):
    """The film as JSON with another title and another name for its first node."""
    film = film.as_json()
    film["title"] = film["nodes"][0]["label"] = film["nodes"][0]["called"] = name
    return film


@functools.cache
def scalar_png():
    return still.png(scalar_film().as_json())


# --- the page -------------------------------------------------------------------------------------


def test_the_page_fetches_nothing_and_runs_its_own_script_only():
    parts = Page(page.document(array_film().as_json()))
    policy = next(attributes["content"] for _, attributes in parts.tags if "http-equiv" in attributes)
    for directive, text in (("script-src", parts.texts["script"]), ("style-src", parts.texts["style"])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert [tag for tag, attributes in parts.tags if {"src", "onclick", "style"} & set(attributes)] == []
    assert [attributes["href"] for _, attributes in parts.tags if "href" in attributes] == ["data:,"]
    script = parts.texts["script"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|fetch|XMLHttp", script)


def test_names_of_the_user_stay_text():
    parts = Page(page.document(renamed(scalar_film(), BAD)))
    assert [tag for tag, _ in parts.tags].count("script") == 2
    assert parts.film["films"][0]["nodes"][0]["label"] == BAD
    assert f"<title>Step through: {html.escape(BAD)}</title>" in page.document(renamed(scalar_film(), BAD))


def test_the_numbers_in_a_page_are_those_of_the_film():
    film, packed = block_film(), Page(page.document(block_film().as_json())).film
    compared = 0
    for step, shown in zip(film.steps, packed["films"][0]["steps"], strict=True):
        if step.kind == "backward":
            for name in ("incoming", "contribution", "total"):
                array, matrix = getattr(step, name), unpacked(packed["arrays"][shown[name]])
                first = array.reshape(-1, *array.shape[-2:])[0] if array.ndim > 1 else array.reshape(1, -1)
                if matrix.shape == first.shape:  # no thumbnail
                    assert np.abs(matrix - first).max() <= 2e-5 * np.abs(array).max()
                    compared += 1
    assert compared > 50


def test_equal_arrays_stand_in_a_page_once():
    arrays = Page(page.document(block_film().as_json())).film["arrays"]
    assert len(arrays) > 100  # some differ only in digits that the page does not keep
    assert len({json.dumps(array) for array in arrays}) > 0.95 * len(arrays)


def test_a_block_of_a_gpt_fits_into_two_million_bytes():
    """And two small blocks too. test_player_browser.py has a block that is as large as the laptop's."""
    for film in (block_film(), gpt_film()):
        assert len(page.document(film.as_json()).encode()) < 1_000_000


def test_an_output_is_the_page_in_a_frame_of_its_own():
    film, picture = renamed(scalar_film(), BAD), b"\x89PNG"
    parts = Page(page.output(film, picture))
    (image,) = (attributes for tag, attributes in parts.tags if tag == "img")
    (frame,) = (attributes for tag, attributes in parts.tags if tag == "iframe")
    assert [tag for tag, _ in parts.tags] == ["div", "img", "iframe"]
    assert frame["srcdoc"] == page.document(film)
    assert BAD in frame["title"] and BAD in image["alt"]
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == picture


def test_a_film_shows_itself_and_saves_itself(tmp_path):
    bundle = scalar_film()._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == scalar_png()
    assert bundle["text/html"] == page.output(scalar_film().as_json(), scalar_png())
    scalar_film().save(tmp_path / "step.html")
    assert (tmp_path / "step.html").read_text(encoding="utf-8") == page.document(scalar_film().as_json())


def test_recorded_again_the_bytes_are_the_same():
    again = film_of(losses.scalars).as_json()
    assert page.document(again) == page.document(scalar_film().as_json())
    assert still.png(again) == scalar_png()


@pytest.mark.parametrize("case", losses.LOSSES, ids=lambda case: case.__name__)
def test_every_film_has_a_page(case):
    film = film_of(case).as_json()
    packed = Page(page.document(film)).film
    assert len(packed["films"]) == len(films_of(film))
    for each in packed["films"]:
        assert all(node["inside"] is None or packed["films"][node["inside"]] for node in each["nodes"])


# --- folding --------------------------------------------------------------------------------------


def in_order(boxes):
    """Whether all inputs stand before their users."""
    place = {box: i for i, box in enumerate(boxes)}
    return all(place[source] < place[box] for box in boxes for source, _ in box.inputs)


@pytest.mark.parametrize("film", [scalar_film, block_film, gpt_film])
def test_every_view_has_every_node_once(film):
    film = films_of(film().as_json())[0]
    for view in views_of(film):
        assert sorted(n for box in view.boxes for n in box.nodes) == [node["id"] for node in film["nodes"]]
        assert in_order(view.boxes)
    assert all(len(box.nodes) == 1 for box in views_of(film)[-1].boxes)


def test_the_views_of_a_gpt():
    views = {view.name: view for view in views_of(films_of(gpt_film().as_json())[0])}
    assert list(views)[:4] == ["", "transformer", "transformer.h.0", "transformer.h.1"]
    assert first_view(list(views.values())) == "transformer"
    assert [box.lines[0] for box in views[""].boxes if box.can_open] == [
        "transformer",
        "linear_cross_entropy",
    ]
    opened = views["transformer.h.1.attn"]
    assert opened.open == ["transformer", "transformer.h.1", "transformer.h.1.attn"]
    assert {"h.0", "mlp", "c_attn.weight", "ln_1.bias"} <= {box.lines[0] for box in opened.boxes}
    assert ALL in views and views[ALL].open == [name for name in views if name not in ("", ALL)]


def test_a_number_in_a_module_belongs_to_the_name_before_it():
    assert ancestors("transformer.h.0.attn") == ["transformer", "transformer.h.0", "transformer.h.0.attn"]
    assert ancestors("h.10") == ["h.10"] and ancestors("") == []


def test_a_module_called_twice_has_two_boxes():
    """In one box it would come before itself."""
    film = films_of(film_with_module("layer"))[0]
    boxes = fold(film, [])
    assert [len(box.nodes) for box in boxes if box.module == "layer"] == [4, 3]
    assert in_order(boxes)
    assert [source.module for source, _ in boxes[-1].inputs] == ["layer"]


def film_with_module(module):
    """layer(relu(layer(x))).sum(), where the layer is tanh(x @ w) * v; v is not in the module."""
    x, w, v = losses.leaf(3, 3), losses.leaf(3, 3, seed=1), losses.leaf(3, seed=2)
    layer = lambda x: ag.tanh(x @ w) * v
    film = step_through(lambda: layer(ag.relu(layer(x))).sum(), x=x, w=w, v=v).as_json()
    for node in film["nodes"]:
        if node["name"] in ("matmul", "tanh", "multiply") or node["label"] == "w":
            node["module"] = module
    return film


def test_a_folded_module_keeps_its_own_weights_and_hands_on_at_its_edges():
    film = films_of(block_film().as_json())[0]
    boxes = fold(film, [])
    attn = next(box for box in boxes if box.lines[0] == "attn")
    labels = {film["nodes"][n]["label"] for n in attn.nodes if film["nodes"][n]["kind"] == "leaf"}
    assert labels == {"attn.c_attn.weight", "attn.c_proj.weight", "attn.c_proj.bias"}
    assert film["nodes"][attn.result]["name"] == "residual_linear"
    assert attn.lines[1] == "3 operations"


# --- the still picture ----------------------------------------------------------------------------


def test_the_still_picture_has_the_moments_where_gradients_add_up_and_the_last():
    film = films_of(block_film().as_json())[0]
    moments = still.main_moments(film, views_of(film)[0].boxes)
    adding = [i for i, step in enumerate(film["steps"]) if step.get("adds")]
    assert len(moments) == 4 and len(set(adding) & set(moments)) == 2
    assert moments[-1] == len(film["steps"]) - 1


def test_if_all_is_in_one_box_the_still_picture_has_the_last_moment():
    film = films_of(film_with_module("layer"))[0]
    for node in film["nodes"]:
        node["module"] = "all"
    (box,) = fold(film, [])
    assert still.main_moments(film, [box]) == [len(film["steps"]) - 1]


def test_the_still_picture_is_a_small_png_whatever_the_users_style():
    import matplotlib
    from PIL import Image

    with matplotlib.rc_context({"font.size": 40, "text.usetex": True, "path.sketch": (9, 9, 9)}):
        assert still.png(scalar_film().as_json()) == scalar_png()
    assert len(scalar_png()) < 40_000
    picture = np.asarray(Image.open(io.BytesIO(scalar_png())).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10 and picture.mean() > 200


@pytest.mark.filterwarnings("error")
def test_a_label_that_looks_like_a_formula_or_that_the_font_lacks_is_drawn():
    assert still.png(renamed(scalar_film(), r"$\frac{$ 权重")).startswith(b"\x89PNG")


def test_an_empty_gradient_has_words():
    film = film_of(losses.nothing_in_it).as_json()
    assert gradient_words(film, 0, len(film["steps"]) - 1) == "grad rms 0"


def test_of_a_very_long_graph_the_still_picture_has_the_beginning(monkeypatch):
    from PIL import Image

    monkeypatch.setattr(still, "LARGEST", 300)
    film = step_through(lambda: functools.reduce(lambda x, _: x * 1.0, range(25), losses.leaf())).as_json()
    assert Image.open(io.BytesIO(still.png(film))).size[1] == 300


def test_a_film_of_one_operation_has_a_page_and_a_picture():
    film = step_through(lambda: Tensor(2.0, requires_grad=True) * 1.0).as_json()
    assert still.png(film).startswith(b"\x89PNG")
    assert Page(page.document(film)).film["films"][0]["first_view"] == ""
