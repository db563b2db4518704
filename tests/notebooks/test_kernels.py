"""Notebook 12: answers in CUDA C, which the emulator compiles and runs; its watch; and what it shows.

Compiling takes a third of a second each. So an ordinary run tries the first right and the first wrong answer
to each exercise. `--full` tries all.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import estimate
from benchmarks.shapes import Work
from tests.notebooks.right_answers.kernels import catalogue as right_answers
from tests.notebooks.wrong_answers.kernels import catalogue as wrong_answers
from workbook import cuda, emulator, gpu, kernels, norm, reading
from workbook.checking import judge

needs_compiler = pytest.mark.skipif(
    not emulator.emulate().COMPILER, reason="CUDA kernels on the CPU need a C++ compiler"
)
EXERCISES = kernels.check.exercises
RIGHT = [(answer, "right") for answer in right_answers.right_answers]
ANSWERS = {"right_answer": (RIGHT, 1), "wrong_answer": (wrong_answers.wrong_answers, 1)}


def pytest_generate_tests(metafunc):
    for kind, (answers, count) in ANSWERS.items():
        if kind in metafunc.fixturenames:
            chosen = answers if metafunc.config.getoption("--full") else first_of_each(answers, count)
            ids = [f"{answer.__name__}: {words}" for answer, words in chosen]
            metafunc.parametrize(kind, chosen, ids=ids)


def first_of_each(answers, count):
    """The first answers to each exercise."""
    seen, chosen = Counter(), []
    for answer, words in answers:
        seen[answer.__name__] += 1
        if seen[answer.__name__] <= count:
            chosen.append((answer, words))
    return chosen


@pytest.fixture(scope="module")
def answers_compiled(request):
    """The answers that were selected, compiled on all cores."""
    calls = [getattr(test, "callspec", None) for test in request.session.items if test.path == request.path]
    params = [call.params[kind] for call in calls if call for kind in ANSWERS if kind in call.params]
    cuda.compile_side_by_side([answer for answer, _ in params], EXERCISES)


@needs_compiler
def test_a_wrong_answer_gets_its_own_diagnosis(answers_compiled, wrong_answer):
    answer, words = wrong_answer
    verdict = judge(EXERCISES[answer.__name__], answer)
    assert verdict.status == "wrong"
    assert words in verdict.diagnosis


@needs_compiler
def test_another_right_answer_passes(answers_compiled, right_answer):
    answer, _ = right_answer
    verdict = judge(EXERCISES[answer.__name__], answer)
    assert verdict.status == "right", verdict


# --- the watch ------------------------------------------------------------------------------------

# Each body is a kernel of 64 threads (two warps), `x` of 64 numbers and `out` of 64 that nobody has written.
BODIES = {
    "kernel_0": (
        "__shared__ float a[64]; a[threadIdx.x] = 1; __syncthreads(); out[0] = a[63];",
        {"writes only"},
    ),
    "kernel_1": (
        "__shared__ float a[64]; a[threadIdx.x] = 1; x[threadIdx.x] = a[63 - threadIdx.x];",
        {"race", "unwritten"},
    ),
    "kernel_2": (
        "__shared__ float a[64]; a[threadIdx.x] = 1; __syncwarp(); x[threadIdx.x] = a[threadIdx.x ^ 1];",
        set(),
    ),
    "kernel_3": (
        "__shared__ float a[64]; a[threadIdx.x] = 1; __syncwarp(); x[threadIdx.x] = a[threadIdx.x ^ 32];",
        {"race", "unwritten"},
    ),
    "kernel_4": ("x[0] += 1;", {"race", "writes only"}),
    "kernel_5": ("atomicAdd(x, 1.0f);", set()),
    "kernel_6": ("atomicAdd(x, 1.0f); if (threadIdx.x == 9) x[1] = x[0];", {"race"}),
    "kernel_7": ("x[threadIdx.x + (threadIdx.x == 63)] = 1;", {"outside"}),
    "kernel_8": ("x[threadIdx.x] = out[threadIdx.x];", {"unwritten"}),
    "kernel_9": (
        "out[threadIdx.x] = x[63 - threadIdx.x]; __syncthreads(); x[threadIdx.x] = out[threadIdx.x];",
        set(),
    ),
}


@needs_compiler
def test_the_watch_sees_races_and_nothing_else():
    """In every order of the threads alike, except for what is read before it is written."""
    program = emulator.compile(
        "\n".join(
            f'extern "C" __global__ void {name}(float* x, float* out) {{ watch_array(0, x, 256, true); '
            f"watch_array(1, out, 256, false); {body} }}"
            for name, (body, _) in BODIES.items()
        )
    )
    for name, (body, expected) in BODIES.items():
        seen = set()
        for order in cuda.ORDERS.values():
            done = program.run(name, 1, 64, (np.zeros(64, np.float32), cuda.bare(64)), order)
            assert expected - {"unwritten"} <= set(done.events) | {"writes only"}, body
            seen |= set(done.events)
        assert seen == expected, body


@needs_compiler
def test_the_engines_own_kernels_pass_the_watch_and_broken_ones_do_not(capsys):
    rng = np.random.default_rng(0)
    for N, C in ((40, 70), (9, 64)):  # by floats, and four at a time
        dout, x, weight, bias = (
            rng.normal(size=(N, C)),
            rng.normal(size=(N, C)),
            rng.normal(size=C),
            rng.normal(size=C),
        )
        out, moments = gpu.forward(x, weight, bias)
        xhat, rstd = norm.normalised(x)
        true = norm.layer_norm_pullback(dout, xhat, rstd, weight)
        np.testing.assert_allclose(out, xhat * weight + bias, rtol=1e-5, atol=1e-5)
        dweight, dbias, _ = gpu.weight_gradients(dout, x, moments)
        for found, expected in zip(
            (gpu.backward(dout, x, weight, moments), dweight, dbias), true, strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    dout, x = rng.normal(size=(2, 40, 70))
    moments = gpu.forward(x, np.ones(70), np.zeros(70))[1]
    said = []
    for without in (
        (),
        ("first", "__syncthreads();", "sum_of_warps"),
        ("every", "__threadfence();", "is_last"),
    ):
        gpu.experiment(dout, x, moments, *without)
        said.append(capsys.readouterr().out)
    assert ["the watch finds nothing" in text for text in said] == [True, False, True]
    assert ["in 0 of 4 orders" in text for text in said] == [True, False, True]
    assert "a race: thread (0, 0) reads in `for (int i = 1;" in " ".join(said[1].split())


# --- what the notebook shows ----------------------------------------------------------------------


@needs_compiler
def test_watching_says_what_comes_out_and_what_is_wrong(capsys):
    gpu.watch("row_sum", kernels.row_sum())
    said = capsys.readouterr().out
    assert "out[0], should be -23.5\n0, 1, 2, ...           -23.5\n" in said and "Nothing is wrong." in said
    gpu.watch("row_sum", "nonsense")
    assert "It does not compile in line 1 (`nonsense`)" in capsys.readouterr().out


def test_without_a_compiler_everything_ends(monkeypatch, capsys):
    monkeypatch.setattr(emulator, "why_not", lambda: "there is no C++ compiler")
    assert kernels.check(lambda_named("row_sum", "x")) is EXERCISES["row_sum"].reference
    gpu.say_ready()
    gpu.watch("row_sum", "x")
    assert gpu.plot_race("x", "y") is None
    rng = np.random.default_rng(0)
    dout, x, weight, bias = (
        rng.normal(size=(3, 4)),
        rng.normal(size=(3, 4)),
        rng.normal(size=4),
        rng.normal(size=4),
    )
    out, moments = gpu.forward(x, weight, bias)
    gpu.experiment(dout, x, moments)
    xhat, rstd = norm.normalised(x)
    true = norm.layer_norm_pullback(dout, xhat, rstd, weight)
    found = gpu.backward(dout, x, weight, moments), *gpu.weight_gradients(dout, x, moments)[:2]
    np.testing.assert_allclose(out, xhat * weight + bias, rtol=1e-5, atol=1e-5)
    for ours, expected in zip(found, true, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    printed = capsys.readouterr().out
    assert "○ row_sum cannot be checked: there is no C++ compiler." in printed
    assert printed.count("Not run") == 2 and printed.count("Not drawn") == 1


def lambda_named(name, text):
    answer = lambda: text
    answer.__name__ = name
    return answer


def test_the_reason_why_kernels_cannot_run_says_what_to_install(monkeypatch):
    for compiler, words in (
        (None, "there is no C++ compiler"),
        ("/bin/false", "cannot build the emulator; it takes g++"),
    ):
        module = emulator.emulate.__wrapped__()
        module.COMPILER = compiler
        with monkeypatch.context() as patch:
            patch.setattr(emulator, "emulate", lambda module=module: module)
            reason = emulator.why_not.__wrapped__()
        assert words in reason and "apt install g++" in reason
    monkeypatch.setattr(emulator, "STAND_INS", Path("/nowhere"))
    monkeypatch.setattr(emulator, "emulate", emulator.emulate.__wrapped__)
    assert "in a checkout" in emulator.why_not.__wrapped__()


@pytest.mark.parametrize("name", reading.READINGS)
def test_every_line_that_is_read_has_a_note_nearby(name):
    pieces = reading.read(name).pieces
    assert all(note and len(code) <= 7 for code, note in pieces)
    file, first, last, notes = reading.READINGS[name]
    assert len(notes) == len(pieces)


def test_the_picture_of_bytes_uses_the_numbers_of_the_benchmarks():
    card = estimate.CARDS["H100"]
    assert (gpu.H100["gb_per_s"], gpu.H100["launch_us"]) == (card.gb_per_s, card.launch_us)
    assert (gpu.H100["of_bandwidth"], gpu.H100["shortest_us"]) == (
        estimate.OF_BANDWIDTH,
        1e3 * estimate.SHORTEST,
    )
    for moved in (50e6, 100.0):
        work = Work("layer_norm_forward", bytes=moved)
        assert gpu.microseconds(moved) == pytest.approx(1e3 * estimate.time_of(work, card)[0])
