"""The tape as a picture, and a Tensor as HTML."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

import autograd as ag
from autograd import Tensor, draw
from autograd.svg import NO_GRADIENT
from tinygpt.config import GPTConfig
from tinygpt.model import GPT


def leaf(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


def small_graph():
    x, W = leaf(4, 3), leaf(3, 5, seed=1)
    h = (x @ W).tanh()
    loss = (h * h).mean()
    return draw(loss, x=x, W=W, h=h), loss


def words(graph):
    return [
        element.text
        for element in ElementTree.fromstring(graph._repr_svg_()).iter()
        if element.tag.endswith("text")
    ]


def rectangles(graph):
    found = re.findall(
        r'<rect x="([-\d.]+)" y="([-\d.]+)" width="([\d.]+)" height="([\d.]+)" rx', graph._repr_svg_()
    )
    return [tuple(map(float, r)) for r in found]


def test_the_picture_names_operations_leaves_and_the_shapes_on_the_edges():
    graph, _ = small_graph()
    text = words(graph)
    assert {"x", "W", "matmul", "h = tanh", "multiply", "mean"} <= set(text)
    assert {"(4, 3)", "(3, 5)", "(4, 5) × 2", "(4, 5)"} <= set(text)  # h * h uses h twice


def test_gradients_appear_with_backward_although_the_tape_is_freed():
    graph, loss = small_graph()
    assert words(graph).count(NO_GRADIENT) == 6
    loss.backward()
    text = words(graph)
    assert NO_GRADIENT not in text and "grad 1" in text
    assert loss.node.pullbacks is None  # the picture kept nothing alive


def test_the_gradients_shown_are_those_of_the_tape():
    x = Tensor(np.array([3.0, -4.0]), requires_grad=True)
    y = x * 2.0
    loss = (y * y).sum()
    graph = draw(loss, x=x, y=y)
    loss.backward()
    gradients = {box.lines[0]: box.gradient_text() for box in graph.boxes}
    rms = np.sqrt((x.grad**2).mean())  # d loss / dx = 8 x, d loss / dy = 4 x
    assert gradients["x"] == f"grad rms {rms:.2g}" and gradients["y = multiply"] == f"grad rms {rms / 2:.2g}"


def test_one_element_shows_its_gradient_whatever_its_shape():
    x = Tensor([[3.0]], requires_grad=True)
    graph = draw(loss := x * x, x=x)
    loss.backward()
    assert "grad 6" in words(graph) and "grad 1" in words(graph)


def test_drawing_does_not_change_the_gradients():
    ids = np.random.default_rng(2).integers(0, 11, (2, 8))
    grads = []
    for drawn in (False, True):
        model = GPT(GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8))
        loss = model.loss(ids, ids)
        graph = draw(loss, **dict(model.named_parameters())) if drawn else None
        loss.backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(np.array_equal(a, b) for a, b in zip(*grads, strict=True))
    assert NO_GRADIENT not in words(graph) and "transformer.h.1.mlp.c_fc.weight" in words(graph)


def test_no_two_boxes_overlap_and_all_lie_inside():
    model = GPT(GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8))
    ids = np.zeros((1, 8), int)
    graph = draw(model.loss(ids, ids), **dict(model.named_parameters()))
    found = rectangles(graph)
    assert len(found) == len(graph.boxes)
    for i, (x, y, w, h) in enumerate(found):
        for x2, y2, w2, h2 in found[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    root = ElementTree.fromstring(graph._repr_svg_())
    assert all(x >= 0 and x + w <= float(root.get("width")) for x, _, w, _ in found)
    assert all(y >= 0 and y + h <= float(root.get("height")) for _, y, _, h in found)


def test_a_long_tape_is_cut_and_says_so():
    x = y = leaf(2)
    for _ in range(1000):
        y = y + x
    assert "950 older operations" in words(draw(y, limit=50))


def test_a_leaf_a_constant_and_a_freed_tape_can_be_drawn():
    x = leaf(2)
    assert words(draw(x, x=x)) == ["x", "(2,) float64", NO_GRADIENT]
    assert "(2,) float64" in words(draw(Tensor([1.0, 2.0], dtype=np.float64)))
    loss = (x * x).sum()
    loss.backward()
    assert "tape freed by backward()" in words(draw(loss))


def test_names_are_escaped_and_the_file_is_what_is_shown(tmp_path):
    x = leaf(2)
    graph = draw(x.sum(), **{"<&>": x})
    assert "<&>" in words(graph)
    graph.save(tmp_path / "graph.svg")
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == graph._repr_svg_()
    assert "sum" in repr(graph)


def test_drawing_twice_gives_the_same_bytes():
    assert small_graph()[0]._repr_svg_() == small_graph()[0]._repr_svg_()


def test_a_tensor_shows_itself_as_html():
    x = leaf(2, 3)
    assert NO_GRADIENT in x._repr_html_() and x._repr_html_().count("<td") == 6
    y = ag.exp(x)
    y.sum().backward()
    assert "made by <b>exp</b>" in y._repr_html_() and "grad rms" in x._repr_html_()
    large = leaf(5, 100, 100)._repr_html_()
    assert large.count("…") == 7 and "the first of 5" in large
    assert "<td" not in Tensor(np.zeros((0, 3)))._repr_html_()
    assert "nan" in Tensor([np.nan, 1.0])._repr_html_() and "scalar" in Tensor(2.0)._repr_html_()
