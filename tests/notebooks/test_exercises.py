"""The notebooks' exercises: right answers pass, every wrong one is rejected with a diagnosis of its own.

Needs no Jupyter. That the notebooks run and are up to date is checked by `python notebooks/build.py --check`.
"""

import importlib
import io
import json
import pkgutil
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.notebooks import wrong_answers
from workbook import checking, pictures
from workbook.checking import Checks, Exercise, Wrong, judge

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CATALOGUES = [
    importlib.import_module(f"tests.notebooks.wrong_answers.{module.name}").catalogue
    for module in pkgutil.iter_modules(wrong_answers.__path__)
]
WRONG_ANSWERS = [(c.check, answer, words) for c in CATALOGUES for answer, words in c.wrong_answers]
RIGHT_ANSWERS = [(c.check, answer) for c in CATALOGUES for answer in c.right_answers]
EXERCISES = [(c.check, name) for c in CATALOGUES for name in c.check.exercises]


@pytest.mark.parametrize(("check", "answer", "words"), WRONG_ANSWERS, ids=lambda v: getattr(v, "__name__", v))
def test_a_wrong_answer_gets_its_own_diagnosis(check, answer, words):
    verdict = judge(check.exercises[answer.__name__], answer)
    assert verdict.status == "wrong"
    assert words in verdict.diagnosis


@pytest.mark.parametrize(("check", "answer"), RIGHT_ANSWERS, ids=lambda v: getattr(v, "__name__", ""))
def test_another_right_answer_passes(check, answer):
    verdict = judge(check.exercises[answer.__name__], answer)
    assert verdict.status == "right", verdict


@pytest.mark.parametrize(("check", "name"), EXERCISES, ids=[name for _, name in EXERCISES])
def test_the_library_passes_its_own_check(check, name):
    verdict = judge(check.exercises[name], check.exercises[name].reference)
    assert verdict.status == "right", verdict


@pytest.mark.parametrize(("check", "name"), EXERCISES, ids=[name for _, name in EXERCISES])
def test_every_mistake_that_a_check_knows_is_one(check, name):
    exercise = check.exercises[name]
    for diagnosis, mistake in exercise.mistakes.items():
        if isinstance(diagnosis, str):  # a pair of mistakes may come to the same as a third
            verdict = judge(exercise, mistake)
            assert verdict.status == "wrong" and verdict.diagnosis == diagnosis


def test_several_mistakes_in_one_answer_are_all_named():
    from workbook import attention, norm

    def step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
        """No bias correction, and eps inside the root."""
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        return p - lr * weight_decay * p - lr * m / np.sqrt(v + eps), m, v

    diagnosis = judge(norm.check.exercises["adamw_step"], step).diagnosis
    assert "2 things at once.\n(1) No bias correction" in diagnosis and "(2) eps stands inside" in diagnosis

    def pullback(dout, q, k, v, p):
        """No scale, a lost axis, and two transposes missing."""
        dp = dout @ v.swapaxes(-1, -2)
        ds = p * (dp - (p * dp).sum(-1))
        return ds @ k, ds @ q, p @ dout

    diagnosis = judge(attention.check.exercises["attention_pullback"], pullback).diagnosis
    assert "4 things at once" in diagnosis
    for words in ("the scale is missing", "lost its axis", "missing in dv", "dk is wrong, but not in"):
        assert words in diagnosis


def test_there_are_enough_wrong_answers():
    counts = Counter((check, answer.__name__) for check, answer, _ in WRONG_ANSWERS)
    assert len(WRONG_ANSWERS) >= 60
    assert [name for check, name in EXERCISES if counts[check, name] < 3] == []


# --- the checks themselves ------------------------------------------------------------------------


def double(x):
    return 2.0 * x


EXERCISE = Exercise(double, [(np.array([[1.0, -2.0], [3.0, 4.0]]),), (np.array([0.5, 0.25]),)])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: -2.0 * x, "wrong sign"),
        (lambda x: 6.0 * x, "is 3 times what it should be"),
        (lambda x: 2.0 * x + 1.0, "off by the same amount everywhere (1)"),
        (lambda x: 2.0 * x.T, "transposed"),
        (lambda x: 0.0 * x, "all zeros"),
        (lambda x: x / 0.0, "inf"),
        (lambda x: np.sqrt(x), "nan"),
        (lambda x: (2.0 * x).sum(-1), "has the shape (2,), but should have (2, 2)"),
        (lambda x: (2.0 * x).astype(np.float32), "float32"),
        (lambda x: np.where(x == 4.0, 0.0, 2.0 * x), "1 of 4 entries"),
        (lambda x: x**2 + 2, "every entry"),
        (lambda x: x @ "a", "stops with"),
        (lambda x: [[None, None], [None, None]] if x.ndim > 1 else x, "should hold numbers"),
    ],
)
def test_an_unknown_mistake_is_described(answer, words):
    verdict = judge(EXERCISE, answer)
    assert verdict.status == "wrong" and words in verdict.diagnosis


def test_a_deviation_far_below_what_training_shows_is_seen():
    assert judge(EXERCISE, lambda x: x * 2.0 * (1 + 1e-7)).status == "wrong"
    assert judge(EXERCISE, lambda x: x * 2.0 * (1 + 1e-12)).status == "right"


def test_masks_are_compared_like_numbers():
    exercise = Exercise(lambda x: x > 0, EXERCISE.cases)
    assert judge(exercise, lambda x: x > 0).status == "right"
    assert judge(exercise, lambda x: x > 0.3).status == "wrong"
    assert "1 of 4 entries" in judge(exercise, lambda x: x > 1).diagnosis


def test_unsolved_is_not_wrong():
    def given(x):
        """What to do."""

    def forgot_return(x):
        x * 2.0  # noqa: B018

    assert judge(EXERCISE, given).status == "open"
    assert "`return`" in judge(EXERCISE, forgot_return).diagnosis


def test_what_check_returns_and_prints(capsys):
    check = Checks()
    check.add("double", EXERCISE)

    def wrong(x):
        return 3.0 * x

    def unsolved(x): ...

    wrong.__name__ = unsolved.__name__ = "double"
    assert check(double) is double and check(wrong) is double and check(unsolved) is double
    printed = capsys.readouterr().out
    assert "✓ double is right, on 2 inputs" in printed and "○ double is not written yet" in printed
    assert "✗ double: the result is 1.5 times" in printed
    assert "worst entry: the result[1, 1] is 12, should be 8\n  with: x (2, 2)\n" in printed
    with pytest.raises(ValueError, match="no exercise named_otherwise; there are double"):
        wrong.__name__ = "named_otherwise"
        check(wrong)


def test_what_numbers_do_not_show_can_be_inspected():
    def inspect(answer):
        raise Wrong("too slow")

    assert judge(Exercise(double, EXERCISE.cases, inspect=inspect), double).diagnosis == "too slow"


def test_pictures_are_the_same_bytes_every_time():
    draw = lambda: pictures.comparison(np.eye(3), np.ones((3, 3)))._repr_png_()
    assert draw() == draw() and draw().startswith(b"\x89PNG") and b"matplotlib" not in draw()


def test_a_graph_becomes_a_png():
    from PIL import Image

    from autograd import Tensor, draw
    from workbook.scalar import expression, steps

    x = Tensor(np.ones((2, 3)), requires_grad=True)
    graph = draw((x * x).sum(), x=x)
    svg = ElementTree.fromstring(graph._repr_svg_())
    image = Image.open(io.BytesIO(pictures.rasterise(graph._repr_svg_()))).convert("RGB")
    assert abs(image.width - float(svg.get("width"))) < 30
    assert abs(image.height - float(svg.get("height"))) < 30
    colors = {color for _, color in image.getcolors(10**6)}
    assert (0xE3, 0xEE, 0xFA) in colors and (0xF6, 0xF3, 0xEA) in colors  # leaves and operations
    assert steps(expression())._repr_png_().startswith(b"\x89PNG")


def test_describing_differences_copes_with_numbers():
    assert "wrong sign" in checking.describe_difference("y", np.array(-1.0), np.array(1.0))


# --- what is committed ----------------------------------------------------------------------------


SOURCES = sorted((NOTEBOOKS / "src").glob("[0-9]*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_learner_reads_a_solution(source):
    text = source.read_text(encoding="utf-8")
    blocks = re.findall(r"# BEGIN SOLUTION\n(.*?)# END SOLUTION", text, re.S)
    learner = json.loads((NOTEBOOKS / f"{source.stem}.ipynb").read_text(encoding="utf-8"))
    code = "\n".join("".join(cell["source"]) for cell in learner["cells"] if cell["cell_type"] == "code")
    assert blocks and code.count("# your turn") == len(blocks) and "SOLUTION" not in code
    for block in blocks:
        assert block.strip() not in code


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_committed_outputs_are_as_they_should_be(source):
    learner, solved = (
        json.loads((NOTEBOOKS / folder / f"{source.stem}.ipynb").read_text(encoding="utf-8"))
        for folder in ("", "solutions")
    )
    for notebook, mark in ((learner, "○"), (solved, "✓")):
        outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
        assert not any(o["output_type"] == "error" or o.get("name") == "stderr" for o in outputs)
        lines = "".join("".join(o.get("text", [])) for o in outputs).split("\n")
        assert {line[0] for line in lines if line[:2] in ("○ ", "✓ ", "✗ ")} == {mark}
