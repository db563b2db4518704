"""The notebooks' exercises: right answers pass, every wrong one is rejected with a diagnosis of its own.

Needs no Jupyter. That the notebooks run and are up to date is checked by `python notebooks/build.py --check`.
"""

import dataclasses
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

from tests.notebooks import right_answers, wrong_answers
from workbook import pictures
from workbook.checking import Checks, Exercise, Wrong, judge
from workbook.kernels import check as of_kernels

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CATALOGUES = [
    importlib.import_module(f"{package.__name__}.{module.name}").catalogue
    for package in (right_answers, wrong_answers)
    for module in pkgutil.iter_modules(package.__path__)
]
WRONG_ANSWERS = [(c.check, answer, words) for c in CATALOGUES for answer, words in c.wrong_answers]
RIGHT_ANSWERS = [(c.check, answer) for c in CATALOGUES for answer in c.right_answers]
EXERCISES = [
    (check, name) for check in dict.fromkeys(c.check for c in CATALOGUES) for name in check.exercises
]


def in_python(answers):
    """Those of test_kernels.py, in CUDA C, are left out."""
    return [answer for answer in answers if answer[0] is not of_kernels]


@pytest.mark.parametrize(
    ("check", "answer", "words"), in_python(WRONG_ANSWERS), ids=lambda v: getattr(v, "__name__", v)
)
def test_a_wrong_answer_gets_its_own_diagnosis(check, answer, words):
    verdict = judge(check.exercises[answer.__name__], answer)
    assert verdict.status == "wrong"
    assert words in verdict.diagnosis


@pytest.mark.parametrize(
    ("check", "answer"), in_python(RIGHT_ANSWERS), ids=lambda v: getattr(v, "__name__", "")
)
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


COUNTS_IN_README = re.compile(r"^ *\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", re.M)


def test_there_are_enough_answers_and_the_readme_says_how_many():
    wrong = Counter((check, answer.__name__) for check, answer, _ in WRONG_ANSWERS)
    right = Counter((check, answer.__name__) for check, answer in RIGHT_ANSWERS)
    assert [name for check, name in EXERCISES if wrong[check, name] < 5 or right[check, name] < 3] == []
    topics = ["slope", "scalar", "tensors", "softmax", "norm", "attention", "gpt", "inside", "clinic"]
    topics += ["tokens", "speed", "kernels"]
    checks = [importlib.import_module(f"workbook.{topic}").check for topic in topics]
    count = lambda answers, check: sum(n for (its_check, _), n in answers.items() if its_check is check)
    rows = [
        (number, len(check.exercises), count(right, check), count(wrong, check))
        for number, check in enumerate(checks, 1)
    ]
    readme = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    assert [tuple(map(int, row)) for row in COUNTS_IN_README.findall(readme)] == rows


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


ONE_NUMBER = Exercise(double, [(3.0,), (-1.0,), (0.5,), (0.0,)])


@pytest.mark.parametrize(
    "answer",
    [lambda x: x * x, lambda x: 2 * abs(x), lambda x: x * np.exp(x), lambda x: 2 * x + x**2, lambda x: x + 1],
)
def test_single_numbers_are_shown_side_by_side_and_no_factor_is_made_up(answer):
    """Every number is some multiple of another, and differs from it by some amount."""
    verdict = judge(ONE_NUMBER, answer)
    assert "times" not in verdict.diagnosis and "everywhere" not in verdict.diagnosis
    assert "Compare the cases" in verdict.diagnosis
    assert any(line.startswith("✗ x") and "should be" in line for line in verdict.side_by_side)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: 6.0 * x, "is 3 times what it should be, everywhere"),
        (lambda x: -2.0 * x, "has the wrong sign, everywhere"),
        (lambda x: 2.0 * x + 1, "off by the same amount everywhere (1)"),
    ],
)
def test_a_factor_that_fits_several_single_numbers_is_named(answer, words):
    assert words in judge(ONE_NUMBER, answer).diagnosis


def test_a_factor_is_not_said_to_be_everywhere_if_a_case_is_right():
    diagnosis = judge(EXERCISE, lambda x: (6.0 if x.ndim > 1 else 2.0) * x).diagnosis
    assert "3 times what it should be, where it is wrong" in diagnosis and "everywhere" not in diagnosis
    assert "It is right for x [0.5, 0.25], but wrong for x (2, 2)" in diagnosis


def test_one_number_alone_has_no_factor():
    assert "times" not in judge(Exercise(double, [(3.0,)]), lambda x: 18.0).diagnosis


def test_a_factor_that_changes_from_case_to_case_is_shown_with_the_cases():
    cases = [(np.arange(1.0, 4.0),), (np.arange(1.0, 6.0),)]
    diagnosis = judge(Exercise(double, cases), lambda x: 2.0 * x / len(x)).diagnosis
    assert "not always the same: 0.333333 times for x [1.0, 2.0, 3.0]; 0.2 times for x (5,)" in diagnosis
    assert "everywhere" not in diagnosis


def test_a_mistake_that_spoils_more_than_the_answer_does_is_not_named():
    """x's gradient is right, so the two cannot be "swapped"."""
    from workbook import scalar

    def multiply(x, y):
        return x * y, (lambda g: g * y, lambda g: g * y)

    diagnosis = judge(scalar.check.exercises["multiply"], multiply).diagnosis
    assert "swapped" not in diagnosis and "y's gradient is g times y itself" in diagnosis


def test_a_crash_is_only_explained_by_a_mistake_that_crashes_in_the_same_way():
    def too_short(x):
        return np.zeros(3)[7]

    exercise = Exercise(double, EXERCISE.cases, {"You index beyond the end.": too_short})
    assert judge(exercise, lambda x: np.zeros(3)[7]).diagnosis == "You index beyond the end."
    other = judge(exercise, lambda x: np.zeros(3)[8]).diagnosis
    assert other.startswith("It stops with IndexError") and "beyond the end" not in other


def test_an_input_may_be_moved_and_put_back():
    def moves(x):
        x += 0.1
        x -= 0.1
        return 2.0 * x

    def leaves(x):
        x += 1e-6
        return 2.0 * (x - 1e-6)

    assert judge(EXERCISE, moves).status == "right"
    assert "changes its input x in place" in judge(EXERCISE, leaves).diagnosis


def test_wrong_numbers_in_one_case_and_a_wrong_shape_in_another():
    diagnosis = judge(EXERCISE, lambda x: 6.0 * x if x.ndim > 1 else x[:1]).diagnosis
    assert "3 times what it should be" in diagnosis
    assert "(For x [0.5, 0.25] its shape or kind is wrong, too.)" in diagnosis


def test_five_points_do_not_excuse_another_mistake():
    from workbook import slope

    def numerical_gradient(f, x, h=1e-5):
        gradient = np.zeros(x.shape)
        for i in range(len(x)):  # whole rows of a matrix
            n = np.zeros(x.shape)
            n[i] = h
            gradient[i] = (f(x - 2 * n) - 8 * f(x - n) + 8 * f(x + n) - f(x + 2 * n)) / (12 * h)
        return gradient

    assert judge(slope.check.exercises["numerical_gradient"], numerical_gradient).status == "wrong"


def test_changes_inside_a_dictionary_are_seen():
    exercise = Exercise(lambda p: 2.0 * p["w"], [({"w": np.ones(3)},)])

    def spoils(p):
        p["w"] *= 2.0
        return p["w"]

    assert "changes its input p['w'] in place" in judge(exercise, spoils).diagnosis


def test_a_list_of_numbers_is_right_but_the_notebook_goes_on_with_an_array(capsys):
    check = Checks()
    check.add("double", EXERCISE)

    def as_list(x):
        return (2.0 * x).tolist()

    as_list.__name__ = "double"
    assert check(as_list) is double
    printed = capsys.readouterr().out
    assert "✓ double is right" in printed and "should be an array, not a list" in printed


def notes(topic, name, words):
    """Of the right answers to an exercise, those that get a note with these words."""
    check = importlib.import_module(f"workbook.{topic}").check
    verdicts = [
        judge(c.exercises[a.__name__], a) for c, a in RIGHT_ANSWERS if c is check and a.__name__ == name
    ]
    return sum(words in verdict.note for verdict in verdicts)


def test_a_right_answer_gets_a_word_on_what_it_misses_or_does_better():
    assert notes("slope", "central_difference", "even more exact") == 3
    assert notes("slope", "numerical_gradient", "even more exact") == 1
    assert notes("slope", "gradient_check", "part of your tolerance is fixed") == 1
    assert notes("slope", "gradient_check", "accepts a gradient of nan") == 1
    assert notes("attention", "causal_weights", "scores near 1000 give nan") == 1
    assert notes("attention", "causal_weights", "Mask the scores, before the softmax") == 1
    assert notes("inside", "looking_back", "should be an array, not a list") == 1
    assert notes("tokens", "encode", "goes through all merges for every word") == 1


def test_the_word_on_a_right_answer_is_printed(capsys):
    check = Checks()
    check.add("double", dataclasses.replace(EXERCISE, advise=lambda answer: "it is slow."))
    check(double)
    assert "✓ double is right" in (printed := capsys.readouterr().out) and "Note: it is slow." in printed


def test_a_hook_that_an_answer_makes_fail_says_nothing():
    fails = lambda answer: answer("not an array").shape.nothing
    exercise = dataclasses.replace(EXERCISE, advise=fails, explain=fails, also_right=fails)
    assert judge(exercise, double).status == "right"
    assert judge(exercise, lambda x: 6.0 * x).status == "wrong"


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

    x = Tensor(np.ones((2, 3)), requires_grad=True)
    graph = draw((x * x).sum(), x=x)
    svg = ElementTree.fromstring(graph._repr_svg_())
    image = Image.open(io.BytesIO(pictures.rasterise(graph._repr_svg_()))).convert("RGB")
    assert abs(image.width - float(svg.get("width"))) < 30
    assert abs(image.height - float(svg.get("height"))) < 30
    colors = {color for _, color in image.getcolors(10**6)}
    assert (0xE3, 0xEE, 0xFA) in colors and (0xF6, 0xF3, 0xEA) in colors  # leaves and operations


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
