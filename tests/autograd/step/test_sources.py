"""The source that a film shows is the operation's own, and what it marks is the pullback that runs."""

import inspect
import linecache
import sys
import textwrap

import numpy as np
import pytest

import autograd as ag
from autograd import backend, op, recording, step_through, tape
from autograd.ops.linalg import Shared
from autograd.step import record
from autograd.step.record import Recording
from autograd.step.sources import Sources
from tests.autograd.step.losses import LOSSES, leaf
from tests.operations import CASES


def marked(film, step):
    """The text that a step marks."""
    return text_at(step.place, film.sources)


def text_at(place, texts):
    source = texts[place.source]
    lines = source.text.splitlines()[place.first - source.first_line : place.last - source.first_line + 1]
    return lines[0][slice(*place.columns)] if place.columns else textwrap.dedent("\n".join(lines))


def what_it_uses(code):
    """Its arguments and variables, all other names, and its numbers and texts."""
    names = {*code.co_names, *code.co_freevars}
    return (
        code.co_name,
        code.co_varnames,
        names,
        [each for each in code.co_consts if not inspect.iscode(each)],
    )


def compiled(text):
    code = compile(text, "text", "exec")
    return next(each for each in code.co_consts if inspect.iscode(each))


@pytest.mark.parametrize("name", CASES)
def test_the_pullback_of_every_operation_is_marked(name):
    """What is marked is compiled: it uses the same names and numbers as the pullback itself."""
    with Recording() as recorded:
        CASES[name].function(*CASES[name].inputs())
    sources = Sources()
    pullbacks = [
        (pullback, sources.place_of(pullback, sources.of_operation(made.operation)))
        for made in recorded.events
        for pullback in made.pullbacks
        if pullback
    ]
    assert pullbacks
    for pullback, place in pullbacks:
        text = text_at(place, sources.texts)
        assert what_it_uses(compiled(text)) == what_it_uses(pullback.__code__), text


def test_each_of_several_lambdas_in_one_line_is_told_apart():
    film = step_through(lambda: (leaf(2) * leaf(2)).sum())
    texts = [marked(film, step) for step in film.steps if step.kind == "backward"]
    assert texts[1:] == ["lambda g: unbroadcast(g * y, x.shape)", "lambda g: unbroadcast(g * x, y.shape)"]


OF_THE_WALK = {module.__file__ for module in (tape, recording, backend, record)}
WRAPPERS = {each.__call__.__code__ for each in (tape.AddingPullback, tape.SummingPullback, Shared)}


def codes_that_run(loss):
    """(film, codes): of each pullback that the walk calls, in order, the function that runs."""
    codes = []

    def note(frame, event, _):
        code, caller = frame.f_code, frame.f_back
        while caller and caller.f_code in WRAPPERS:
            caller = caller.f_back
        is_pullback = caller and caller.f_code is tape.walk.__code__ and code not in WRAPPERS
        if event == "call" and is_pullback and code.co_filename not in OF_THE_WALK:
            codes.append(code)

    sys.setprofile(note)
    try:
        return step_through(loss), codes
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("make", [each for each in LOSSES if "checkpoint" not in each.__name__])
def test_what_is_marked_is_what_runs(make):
    film, codes = codes_that_run(make()[0])
    steps = [step for step in film.steps if step.kind == "backward"]
    for step, code in zip(steps, codes, strict=True):
        assert what_it_uses(compiled(marked(film, step))) == what_it_uses(code)
        assert step.place.first == code.co_firstlineno


def test_helpers_are_marked_too():
    film = step_through(lambda: ag.linear(leaf(2, 3), leaf(3, 2), activation="relu").sum())
    place = next(step.place for step in film.steps if step.to == 0)
    source = film.sources[place.source]
    ((first, _),) = place.also
    assert source.text.splitlines()[first - source.first_line].strip() == "def dpre_of(dout):"
    assert source.file == "autograd/ops/linalg.py" and source.text.startswith("@op\ndef linear(")


def test_a_pullback_in_another_function_shows_that():
    film = step_through(lambda: ag.maximum(leaf(2), leaf(2, seed=1)).sum())
    node = film.node("maximum")
    assert film.sources[node.source].text.startswith("@op\ndef maximum(")
    place = next(step.place for step in film.steps if step.node == node.id and step.kind == "backward")
    assert film.sources[place.source].text.startswith("def _choose(")


class Doubled:
    def __call__(self, g):
        return g * 2


def test_a_pullback_that_is_an_object():
    double = op(lambda x: (x * 2, Doubled()))
    film = step_through(lambda: double(leaf(2)).sum())
    assert marked(film, film.steps[-1]) == "def __call__(self, g):\n    return g * 2"


@op
def own(x, y):
    """An operation of a user, äöü, whose pullbacks are of several kinds."""
    total = Shared(lambda g: g * 2)

    def dx(g):
        return total(g)

    return x * 2 + y * 2, (dx, lambda g: total(g))  # ä: a letter of two bytes


def test_operations_of_users():
    film = step_through(lambda: own(leaf(2), leaf(2)).sum())
    first, second = [step for step in film.steps if step.kind == "backward"][1:]
    assert marked(film, first) == "def dx(g):\n    return total(g)"
    assert marked(film, second) == "lambda g: total(g)"
    assert film.sources[first.place.source].file == "tests/autograd/step/test_sources.py"


def test_an_operation_within_a_function_and_after_letters_of_two_bytes():
    @op
    def inner(x):
        ä = 2
        return ä * x, (lambda g: ä * g)

    for loss in (lambda: inner(leaf(2)).sum(), inner(leaf(2)).sum()):
        film = step_through(loss)
        assert marked(film, film.steps[-1]) == "lambda g: ä * g"
        assert film.sources[film.node("inner").source].text.startswith("@op\ndef inner(x):\n    ä = 2")


CELL = """
from autograd import op

@op
def cube(x):
    return x**3, lambda g: g * 3 * x**2
"""


def test_a_cell_of_a_notebook():
    file = "/tmp/ipykernel_123/456.py"
    namespace = {}
    exec(compile(CELL, file, "exec"), namespace)
    linecache.cache[file] = (len(CELL), None, CELL.splitlines(True), file)
    film = step_through(lambda: namespace["cube"](leaf(2)).sum())
    del linecache.cache[file]
    assert film.sources[film.node("cube").source].file == "a cell of the notebook"
    assert marked(film, film.steps[-1]) == "lambda g: g * 3 * x**2"


def test_what_is_in_no_file_has_no_source():
    namespace = {}
    exec(CELL, namespace)
    film = step_through(lambda: namespace["cube"](leaf(2)).sum())
    assert film.node("cube").source is None and film.steps[-1].place is None
    negative = op(lambda x: (-x, np.negative))
    assert step_through(lambda: negative(leaf(2)).sum()).steps[-1].place is None


def test_draw_does_not_hide_a_pullback():
    x = leaf(2)
    loss = (x * 2.0).sum()
    ag.draw(loss)
    film = step_through(loss)
    assert marked(film, film.steps[-1]) == "lambda g: unbroadcast(g * y, x.shape)"


def test_a_source_stands_once():
    sources = Sources()
    keys = {sources.of_operation(operation) for operation in (ag.add, ag.add, ag.exp)}
    assert len(keys) == len(sources.texts) == 2
