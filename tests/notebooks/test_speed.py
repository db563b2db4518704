"""What notebook 11 measures with, and the word that it adds to right answers."""

import numpy as np
import pytest

import autograd as ag
from autograd import Tensor
from tests.notebooks.right_answers.speed import catalogue
from workbook import speed
from workbook.checking import judge


def test_the_code_of_a_function_is_shown_without_its_docstring():
    def short(x):
        """One line."""
        return x + 1

    def long(x):
        """A summary.

        And more.
        """

        return x + 2

    assert [line.strip() for line in speed.code_of(short).split("\n")] == ["def short(x):", "return x + 1"]
    assert [line.strip() for line in speed.code_of(long).split("\n")] == ["def long(x):", "return x + 2"]
    assert speed.code_of(ag.multiply.raw).startswith("@op\ndef multiply(x, y):")


def test_the_numbered_steps_that_the_notebook_talks_about_are_in_the_engine():
    for function, steps in ((ag.op, 3), (ag.tape.walk, 4)):
        code = speed.code_of(function)
        assert '"""' not in code
        assert [code.count(f"# {i}. ") for i in range(1, steps + 2)] == [1] * steps + [0]


def test_operations_that_are_used_twice_are_counted_once():
    x = Tensor(np.ones(3), requires_grad=True)
    y = x * x
    assert speed.nodes_below((y + y).sum()) == 3


def test_memory_is_told_apart_into_what_is_kept_and_the_peak():
    def twice(n):
        ones = np.ones(n)
        return ones + ones

    kept, peak = speed.memory_of(twice, 100_000)  # 0.8 MB each
    assert 0.8e6 <= kept < 0.9e6 and 1.6e6 <= peak < 1.7e6


def test_the_products_of_a_step_are_those_of_the_model():
    C, L, T, rows = 32, 3, 16, 5
    model = speed.small_gpt(C, n_layer=L, length=T)
    pairs = speed.products_of(model, rows)
    flops = sum(2 * a.size * b.shape[-1] for a, b in pairs)
    matrices = sum(p.size for p in model.parameters() if p.ndim == 2) - T * C  # without the positions
    of_attention = 6 * L * 2 * rows * T * T * C
    assert flops == 6 * rows * T * matrices + of_attention
    assert all((a @ b).ndim in (2, 4) for a, b in pairs)


def test_once_computes_again_for_another_array_only():
    calls = []
    double = speed.once(lambda g: calls.append(1) or 2 * g)
    g = np.ones(2)
    assert double(g) is double(g) and len(calls) == 1
    double(np.ones(2))
    assert len(calls) == 2


def test_the_slope_of_gelu_is_that_of_the_librarys_gelu():
    x = np.linspace(-4, 4, 50)
    out, pullback = ag.gelu.raw(x)
    np.testing.assert_allclose(speed.gelu(x), out, atol=1e-12)
    np.testing.assert_allclose(speed.gelu_slope(x), pullback(np.ones(50)), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "words", "count"),
    [
        ("swiglu", "there is nan in it", 1),
        ("in_blocks", "it needs twice the memory of its result", 3),
        ("in_blocks", "calls, for blocks smaller than `rows`", 1),
    ],
)
def test_a_right_answer_gets_a_word_on_what_it_costs(name, words, count):
    exercise = speed.check.exercises[name]
    answers = [answer for answer in catalogue.right_answers if answer.__name__ == name]
    assert sum(words in judge(exercise, answer).note for answer in answers) == count
