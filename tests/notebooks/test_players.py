"""The players of notebooks 2, 6 and 7: what is committed, and the film of notebook 2's scalar engine."""

import base64
import html
import json
import linecache
import math
from pathlib import Path

import numpy as np
import pytest

import autograd as ag
from tests.autograd.step.films import Page
from workbook import scalar
from workbook.film import step_through
from workbook.scalar import Value, op

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
KB = 1024
# {notebook: (players, KB of each at most, KB of the notebook at most)}
PLAYERS = {
    "02_a_scalar_engine": (3, 120, 600),
    "06_causal_attention": (2, 150, 600),
    "07_build_and_train_the_gpt": (1, 1000, 1700),
}


def outputs_of(name):
    """The outputs of a committed notebook by kind: [{"text/html": text, ...}]."""
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return [{kind: "".join(text) for kind, text in each.get("data", {}).items()} for each in outputs]


def players_of(name):
    return [output for output in outputs_of(name) if "srcdoc=" in output.get("text/html", "")]


def page_in(player):
    """The page that stands in an output's iframe."""
    return Page(html.unescape(player["text/html"].partition("srcdoc='")[2].partition("'")[0]))


# --- what is committed ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAYERS)
def test_a_committed_notebook_holds_players_and_stills_and_stays_small(name):
    count, each_at_most, all_at_most = PLAYERS[name]
    players = players_of(name)
    assert len(players) == count
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < all_at_most * KB
    for player in players:
        assert base64.b64decode(player["image/png"]).startswith(b"\x89PNG")
        assert player["image/png"].strip() in player["text/html"]  # where iframes are taken out
        assert "backward: to whom a gradient goes" in player["text/plain"]
        assert len(player["text/html"]) < each_at_most * KB
        film = page_in(player).film["films"][0]
        assert {step["kind"] for step in film["steps"]} == {"forward", "backward"}


def test_the_gpt_is_stepped_through_whole_and_its_large_page_stands_once():
    (player,) = players_of("07_build_and_train_the_gpt")
    films = page_in(player).film["films"]
    handed = {step["to"] for step in films[0]["steps"] if step["kind"] == "backward"}
    assert handed >= {node["id"] for node in films[0]["nodes"][:-1]}  # every node gets a gradient
    names = {node["name"] for node in films[0]["nodes"]}
    assert {"embedding", "layer_norm", "causal_attention", "linear_cross_entropy"} <= names
    assert len(films) > 30  # with those inside
    assert not players_of("solutions/07_build_and_train_the_gpt")
    still = [each for each in outputs_of("solutions/07_build_and_train_the_gpt") if each == without(player)]
    assert len(still) == 1


def without(player):
    return {kind: text for kind, text in player.items() if kind != "text/html"}


def test_a_solved_engine_shows_its_own_rules_and_an_open_one_shows_none():
    open_page, solved_page = (
        page_in(players_of(f"{folder}02_a_scalar_engine")[0]) for folder in ("", "solutions/")
    )
    assert open_page.film["sources"] == {}
    sources = solved_page.film["sources"].values()
    assert {source["file"] for source in sources} == {"a cell of the notebook"}
    starts = sorted(source["text"].partition("(")[0] for source in sources)
    assert starts == ["def add", "def multiply", "def tanh"]


# --- the film of the scalar engine ----------------------------------------------------------------


def example():
    """The notebook's first graph, and its names."""
    a, b = Value(2.0), Value(-3.0)
    c = op(scalar.multiply)(a, b)
    d = op(scalar.add)(c, a)
    loss = op(scalar.tanh)(op(scalar.multiply)(d, Value(0.5)))
    return loss, dict(a=a, b=b, c=c, d=d, loss=loss)


def backward_steps(film):
    return [
        (film.nodes[step.node].name, *map(float, (step.incoming, step.contribution, step.total)), step.adds)
        for step in film.steps
        if step.kind == "backward"
    ]


def test_the_film_of_the_scalar_engine_has_the_numbers_of_the_library():
    film = step_through(example()[0])
    a, b, half = (ag.Tensor(value, requires_grad=True, dtype="float64") for value in (2.0, -3.0, 0.5))

    def library():
        c = a * b
        return ag.tanh((c + a) * half)

    theirs = ag.step_through(library)
    for mine, other in zip(backward_steps(film), backward_steps(theirs), strict=True):
        assert mine[0] == other[0] and mine[4] == other[4]
        np.testing.assert_allclose(mine[1:4], other[1:4], rtol=1e-12)


def test_names_values_and_inputs_are_those_of_the_engine():
    loss, names = example()
    film = step_through(loss, **names, other=Value(1.0))
    c = film.node("c")
    assert (c.name, float(c.value), c.input_names) == ("multiply", -6.0, ["x", "y"])
    assert [film.nodes[i].label for i in c.inputs] == ["a", "b"]
    assert "d and leaf are known" in film.steps[2].why and film.node("loss").id == film.nodes[-1].id


def test_nothing_changes_in_the_engine():
    loss, names = example()
    scalar.backward(loss)
    before = [(value.grad, value.pullbacks) for value in names.values()]
    step_through(loss, **names)
    assert [(value.grad, value.pullbacks) for value in names.values()] == before


def test_a_value_that_is_used_twice_by_one_operation():
    a = Value(3.0)
    b = op(scalar.add)(a, a)
    film = step_through(op(scalar.add)(b, b), scalar.backward, a=a, b=b)
    assert [step[3] for step in backward_steps(film)] == [1, 2, 2, 4]
    assert float(film.gradient("a")) == 4.0


def oldest_branch_first(root):
    """Right, but not newest first: depth first, from the left."""
    order, seen = [], set()

    def visit(value):
        if value not in seen:
            seen.add(value)
            for parent in reversed(value.parents):
                visit(parent)
            order.append(value)

    visit(root)
    for value in order:
        value.grad = 0.0
    root.grad = 1.0
    for value in reversed(order):
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            parent.grad += pullback(value.grad)


def test_a_walk_in_another_order_is_shown_as_it_goes():
    a = Value(0.5)
    left, right = op(scalar.exp)(a), op(scalar.tanh)(a)
    loss = op(scalar.add)(left, right)
    newest, other = step_through(loss), step_through(loss, oldest_branch_first)
    assert [step[0] for step in backward_steps(newest)] == ["add", "add", "tanh", "exp"]
    assert [step[0] for step in backward_steps(other)] == ["add", "add", "exp", "tanh"]
    assert "the newest of the 2 operations" in newest.steps[5].why
    assert "2 operations are waiting; this walk takes it first" in other.steps[5].why
    np.testing.assert_array_equal(newest.gradient("leaf"), other.gradient("leaf"))


def overwriting(root):
    for value in scalar.topological_order(root):
        value.grad = 0.0
    root.grad = 1.0
    for value in scalar.topological_order(root):
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            parent.grad = pullback(value.grad)


def test_a_wrong_walk_is_refused_and_the_engine_is_as_before():
    a = Value(3.0)
    b = op(scalar.add)(a, a)
    loss = op(scalar.add)(b, b)
    before = loss.pullbacks
    with pytest.raises(ValueError, match="hands on 1 from add, to which 2 comes in all"):
        step_through(loss, overwriting)
    with pytest.raises(ValueError, match="no gradient at all"):
        step_through(loss, lambda root: None)
    with pytest.raises(ZeroDivisionError):
        step_through(loss, lambda root: 1 / 0)
    assert loss.pullbacks is before and a.grad is None
    with pytest.raises(ValueError, match="a leaf"):
        step_through(Value(1.0))


def square(x):
    return x * x, lambda g: g * 2 * x


@pytest.mark.parametrize("folder", [None, "/somewhere/else/autograd"])
def test_a_rule_from_the_workbook_shows_no_source_wherever_the_package_is(monkeypatch, folder):
    if folder:
        monkeypatch.setattr("autograd.step.sources.PACKAGE", Path(folder))
    x = Value(2.0)
    film = step_through(op(scalar.exp)(op(square)(x)), x=x)
    assert film.node("exp").source is None and film.node("exp").input_names == ["x"]
    assert [bool(step.place) for step in film.steps if step.kind == "backward"] == [False, True]
    assert [source.text.split("(")[0] for source in film.sources.values()] == ["def square"]


CELL = "def double(x):\n    return x + x, lambda g: g * 2.0\n"
OTHER = "def cube(x):\n    return x**3, lambda g: g * 3 * x * x\n"


def test_rules_of_the_learner_show_their_own_source():
    """Two cells: both are called "a cell of the notebook", and both rules begin in line 1."""
    rules = {}
    for number, text in enumerate((CELL, OTHER)):
        file = f"/tmp/ipykernel_1/{number}.py"
        exec(compile(text, file, "exec"), rules)
        linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    x = Value(2.0)
    film = step_through(op(rules["cube"])(op(rules["double"])(x)), x=x)
    shown = [film.sources[step.place.source].text for step in film.steps if step.kind == "backward"]
    assert shown == [OTHER.rstrip(), CELL.rstrip()]
    assert CELL.splitlines()[1][slice(*film.steps[-1].place.columns)] == "lambda g: g * 2.0"


def test_pullbacks_that_stand_elsewhere():
    def rule(x, y):
        return x * y, (y.__mul__, x.__mul__)  # written in C

    x, y = Value(2.0), Value(3.0)
    film = step_through(op(rule)(x, y), x=x, y=y)
    assert film.steps[-1].place is None and (film.gradient("x"), film.gradient("y")) == (3.0, 2.0)
    assert film.nodes[-1].input_names == ["input 0", "input 1"]
    same = lambda g: g
    film = step_through(op(lambda x, y: (x + y, (same, same)))(x, y))
    assert film.nodes[-1].input_names == ["input 0", "input 1"] and film.steps[-1].place


def test_infinite_numbers_can_be_shown():
    x = Value(math.inf)
    film = step_through(op(scalar.add)(x, Value(1.0)), x=x)
    assert math.isinf(film.node("x").value) and "Infinity" in json.dumps(film.as_json())
