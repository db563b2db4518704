"""`python -m autograd.step`: keys, targets, pages, and mistakes on the command line."""

import os
import sys

import pytest

from autograd import step_through
from autograd.step.__main__ import main
from autograd.step.examples import EXAMPLES, scalar
from autograd.step.terminal import CLEAR, DRAW, _keys_of, play

LOSSES = '''
from autograd import Tensor, cross_entropy, step_through
w, x = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0])

def loss():
    """The square of a dot product"""
    product = (w * x).sum()
    return product**2

def film():
    return step_through(loss, weight=w)

def vector():
    return w * x

def broken():
    return w * (1 / 0)

def with_argument(a, b=1):
    return w.sum()

def wrong_target():
    return cross_entropy(w, 7)

number = 3
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with a file of losses."""
    files = {"losses_of_mine": LOSSES, "random": LOSSES, "exits": "exit(3)", "wrong": "print("}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in files:
        sys.modules.pop(f"file_{name}", None)
    sys.modules.pop("losses_of_mine", None)


def played(keys):
    screens = []
    play(step_through(scalar), keys, screens.append)
    return screens


def steps_of(screens):
    return [screen.split("step ")[1].split(" of")[0] for screen in screens]


def test_keys():
    screens = played(["n", " ", "\x1b[C", "b", "\x1b[D", "l", "n", "f", "b", "\x1bOF", "\x1b[1~", "q", "n"])
    assert steps_of(screens) == ["1", "2", "3", "4", "3", "2", "9", "9", "1", "1", "9", "1"]
    assert len(played(["n", "\x04", "n"])) == 2  # Ctrl-D ends it too


def test_opening_and_closing():
    screens = []
    keys = ["l", "f", *"nnnnn", "o", "n", "c", "c", "x", "n"]
    play(step_through(EXAMPLES["softmax"]), keys, screens.append)
    opened, inside, closed, outermost, unknown, after = screens[-6:]
    assert "inside: A linear layer, and the cross entropy of its softmax\nlinear, from pri" in opened
    assert "step 3 of 5, backward" in opened  # as outside, it is on the way back
    assert "step 4 of" in inside and "inside:" not in closed
    assert "This is the outermost film.\nn next" in outermost and "No such key.\nn next" in unknown
    assert "No such key" not in after


def test_a_primitive_has_nothing_inside():
    assert "There is nothing inside multiply." in played(["o"])[-1]


@pytest.mark.parametrize(("columns", "rows"), [(60, 24), (80, 20), (200, 80)])
def test_a_screen_fits_the_terminal(columns, rows, monkeypatch):
    """And the pullback that runs is seen, though the source is longer."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(rows))
    screens = []
    play(step_through(EXAMPLES["softmax"]), ["x", *"nnn", "o", *"nnnnnnnn"], screens.append)
    for screen in screens:
        lines = screen.removeprefix(CLEAR).splitlines()
        assert len(lines) < rows and max(map(len, lines)) < columns
        if "backward" in screen:
            assert any(line.startswith(">") for line in lines)


def test_a_terminal_of_another_size_is_drawn_anew(monkeypatch):
    sizes = iter([os.terminal_size((80, 24)), os.terminal_size((60, 24))])
    monkeypatch.setattr("autograd.step.terminal.shutil.get_terminal_size", lambda: next(sizes))
    reading, writing = os.pipe()
    keys = _keys_of(reading)
    assert next(keys) == DRAW
    os.close(writing)
    assert list(keys) == []
    os.close(reading)


def test_drawing_anew_is_no_key():
    assert steps_of(played(["n", DRAW])) == ["1", "2", "2"]


def test_keys_of_a_terminal():
    """What a terminal sends: an arrow is one key, several letters that come at once are several."""
    reading, writing = os.pipe()
    os.write(writing, b"\x1b[C")
    keys = _keys_of(reading)
    assert next(keys) == "\x1b[C"
    os.write(writing, b"nb")
    os.close(writing)
    assert list(keys) == ["n", "b"]
    os.close(reading)


def test_without_a_terminal_everything_is_printed(capsys):
    main(["neuron"])
    out = capsys.readouterr().out
    assert out.startswith("A neuron, (tanh(w x + b) - y)²: ") and "step 1 of" in out and "def tanh(x)" in out


def test_help_lists_the_examples(capsys):
    main([])
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in EXAMPLES) and "q quit" in out


def test_a_loss_of_ones_own(folder, capsys):
    files = ("losses_of_mine.py", "losses_of_mine", f"{folder}/losses_of_mine.py", "random.py")
    for target in (f"{file}:loss" for file in files):
        main([target])
        out = capsys.readouterr().out
        assert out.startswith("The square of a dot product: 3 operations") and "product -> multiply" in out
        assert "\n  1  multiply(w, x)" in out
    main(["losses_of_mine.py:film"])
    assert "multiply(weight, x)" in capsys.readouterr().out


MISTAKES = {
    "scalr": "no example 'scalr', did you mean scalar; FILE.py:FUNCTION steps through",
    "qqq": "no example 'qqq'; there are scalar, neuron",
    "losses_of_mine.py:los": "losses_of_mine.py has no function 'los', did you mean loss",
    "missing.py:loss": "there is no file missing.py",
    "no_such_module:loss": "cannot import no_such_module: ModuleNotFoundError: No module named",
    "losses_of_mine.py:number": "number in losses_of_mine.py is no function",
    "losses_of_mine.py:with_argument": "with_argument in losses_of_mine.py: missing a required argument: "
    "'a'; write a function without arguments around it",
    "exits.py:loss": "cannot import exits.py: SystemExit: 3 (exits.py, line 1)",
    "wrong.py:loss": "cannot import wrong.py: SyntaxError: '(' was never closed (wrong.py, line 1)",
    "losses_of_mine.py:vector": "reduce to one number first (.mean(), .sum()), or pass gradient=\n",
    "losses_of_mine.py:wrong_target": "IndexError: target 7 is out of range: there are 2, from 0 to 1 "
    "(losses_of_mine.py, line 23)",
    "losses_of_mine.py:broken": "ZeroDivisionError: division by zero (losses_of_mine.py, line 17)",
}


@pytest.mark.parametrize("target", MISTAKES)
def test_mistakes_are_one_line(target, folder, capsys):
    with pytest.raises(SystemExit) as end:
        main([target])
    out, error = capsys.readouterr()
    assert end.value.code == 2 and not out and error.count("\n") == 1
    assert MISTAKES[target] in error


def test_a_page_replaces_only_pages(folder, capsys):
    main(["scalar", "--html", "film.html"])
    main(["neuron", "--html", "film.html"])
    assert "wrote film.html" in capsys.readouterr().out
    assert "<title>Step through: A neuron" in (folder / "film.html").read_text(encoding="utf-8")
    (folder / "mine.html").write_text("my page")
    for name, message in (
        ("mine.html", "mine.html exists and is not a page of this command; give another name"),
        ("film.png", "end it in .html"),
        ("nowhere/film.html", "there is no folder nowhere"),
    ):
        with pytest.raises(SystemExit):
            main(["scalar", "--html", name])
        assert message in capsys.readouterr().err
    assert (folder / "mine.html").read_text() == "my page"
