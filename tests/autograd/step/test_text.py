"""A film as text, and its sentences."""

import numpy as np
import pytest

import autograd as ag
from autograd import step_through
from autograd.step import why
from autograd.step.examples import EXAMPLES, scalar
from autograd.step.text import WIDTH, cut, step_text, value_text
from tests.autograd.step.losses import leaf
from tinygpt import stepping

TITLE = "Five numbers: c = a b, d = c + b, loss = d c; b and c are used twice"
SCALAR = f"""\
{TITLE}: 3 operations, 2 leaves
before the first step
      a                  2
      b                  -3
forward
  1  c = multiply(a, b)  -6
  2  d = add(c, b)       -9
  3  multiply(d, c)      54
backward: to whom a gradient goes, and what it has then
  4  multiply -> d       -6
  5  multiply -> c       -9
  6  d -> c              sum -15
  7  d -> b              -6
  8  c -> a              45
  9  c -> b              sum -36"""

STEP = f"""\
{TITLE}  step 6 of 9, backward

  turn of                           d = add(c, b), input x
  its value                         -9
  gradient that comes in            -6
  goes to c                         -6
  c has now                         -15, added up

The only use of d has handed back its part: the gradient is complete. It is the newest of the 2
operations that are waiting. c is used twice: this part is added to what is there; now it is
complete.

autograd/ops/elementwise.py
"""


def test_the_list_of_the_steps():
    assert str(step_through(scalar)) == SCALAR


def test_one_step_in_full():
    text = step_text(step_through(scalar), 5)
    assert text.startswith(STEP)
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(">"))
    carets = lines[at + 1]
    assert lines[at][carets.index("^") : len(carets)] == "lambda g: unbroadcast(g, x_shape)"


@pytest.mark.parametrize("loss", [*EXAMPLES.values(), stepping.gpt, stepping.block], ids=lambda f: f.__name__)
def test_it_fits_a_terminal(loss):
    film = step_through(loss)
    text = "\n".join([str(film), *(step_text(film, number) for number in range(len(film.steps)))])
    assert max(map(len, text.splitlines())) <= WIDTH


def test_modules_are_headings():
    lines = str(step_through(stepping.gpt)).splitlines()
    at = lines.index("  transformer.h.0.attn.c_attn")
    assert lines[at + 1].split()[1:] == [
        "linear",
        "#9(layer_norm",
        "#7,",
        "weight,",
        "None)",
        "(2,",
        "8,",
        "36)",
        "rms",
        "0.06834",
    ]


def test_values():
    for array, text in (
        (None, "not known"),
        (np.float64(1 / 3), "0.3333"),
        (np.array([1.0, 2.5]), "[1. , 2.5]"),
        (np.array([[1.0], [2.0]]), "[[1.], [2.]]"),
        (np.full((2, 3, 4), -2.0), "(2, 3, 4) rms 2"),
        (np.array([1e300, -1e300, 1, 2]), "(4,) rms inf"),
        (np.zeros((0, 3)), "[]"),
    ):
        assert value_text(array) == text
    assert cut("transformer.h.0.attn", 11) == "transf…attn" and cut("short", 5) == "short"


# --- sentences ------------------------------------------------------------------------------------


def sentences(loss):
    film = step_through(loss)
    return [step.why for step in film.steps if step.kind == "backward"]


def test_why_a_node_has_its_turn():
    x = leaf(2)

    def loss():
        c = x * 2.0
        d = ag.exp(c)
        e = c + d
        return (e * c).sum()

    said = sentences(loss)
    assert said[0].startswith("The way back starts at the loss, sum: d loss / d loss is 1. ")
    assert said[1].startswith(why.turn("multiply", uses=1, waiting=1, newest=True))
    assert said[2].startswith("It is still the turn of multiply: the same gradient goes back to its next")
    assert said[3].startswith(
        "The only use of e has handed back its part: the gradient is complete. It is the newest of the 2 "
        "operations that are waiting. c is used 3 times: this part is added to what is there; 1 more to come."
    )
    assert said[5].startswith("The only use of d") and said[5].endswith("now it is complete.")
    assert said[6].startswith(
        "All 3 uses of c have handed back their part: the gradient is complete. No other"
    )
    assert said[6].endswith("x has no other use, so this is its whole gradient.")


def test_inside_the_way_back_starts_with_what_comes_in():
    inside = step_through(lambda: ag.softmax(leaf(2, 3)).max()).node("softmax").inside
    said = next(step.why for step in inside.steps if step.kind == "backward")
    assert said.startswith("The way back starts at divide, the result, with the gradient that comes in.")


def test_every_sentence_is_true_of_a_gpt():
    """Of whatever is waiting, the newest comes; and a gradient is complete when its turn comes."""
    film = step_through(stepping.gpt)
    uses = {node.id: 0 for node in film.nodes}
    for step in film.steps:
        if step.kind == "backward":
            uses[step.to] += 1
    left, waiting, visited = dict(uses), {film.nodes[-1].id}, set()
    for step in (step for step in film.steps if step.kind == "backward"):
        if step.node not in visited:
            assert left[step.node] == 0 and step.node == max(waiting)
            if visited:
                called = film.nodes[step.node].called
                assert step.why.startswith(why.turn(called, uses[step.node], len(waiting), newest=True))
            visited.add(step.node)
            waiting.remove(step.node)
        left[step.to] -= 1
        if film.nodes[step.to].kind == "operation":
            waiting.add(step.to)
        target, part = film.nodes[step.to].called, uses[step.to] - left[step.to]
        assert step.why.endswith(why.arrives(target, part, uses[step.to]))
    assert not waiting and not any(left.values())
