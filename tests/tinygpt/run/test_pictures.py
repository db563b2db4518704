"""Pictures of losses: none of them ends a training, and `python -m tinygpt plot` compares runs."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import crash
from tests.support.runs import TINY, metrics, train_here
from tests.support.survived import count
from tinygpt import commands
from tinygpt.config import UserError
from tinygpt.run import checkpoint, pictures

QUICK = TINY | dict(max_steps=2, eval_interval=2, sample_tokens=0)


# --- loss.png -------------------------------------------------------------------------------------


def unknown_backend():
    os.environ["MPLBACKEND"] = "agg9"


INLINE = "module://matplotlib_inline.backend_inline"  # as a notebook leaves it


def nonsense_everywhere():
    """A backend that is not installed, no font cache, no home and a style that cannot work."""
    folder = Path(os.environ["TMPDIR"])
    (folder / "fontlist-v390.json").mkdir()
    (folder / "matplotlibrc").write_text(
        "text.usetex: True\nbackend: GTK9\nfont.family: nothing\nno such: 3\n"
    )
    os.environ |= {"MPLBACKEND": INLINE, "MPLCONFIGDIR": str(folder), "HOME": "/nonexistent"}
    os.chdir(folder)


def no_matplotlib():
    sys.modules["matplotlib"] = None


@pytest.mark.parametrize("surroundings", [unknown_backend, no_matplotlib, nonsense_everywhere])
def test_matplotlib_in_a_process_of_its_own(surroundings, request, text_file, tmp_path, monkeypatch):
    """Only there it is imported anew."""
    if surroundings is nonsense_everywhere and not request.config.getoption("--full"):
        pytest.skip("only with --full: looking for fonts takes seconds")
    (tmp_path / "config").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "config"))
    settings = QUICK | dict(data=text_file, out=tmp_path / "run", plot=True)
    code = crash.exit_code(crash.start(tmp_path / "printed.txt", settings, surroundings))
    printed = (tmp_path / "printed.txt").read_text()
    assert (code, printed) == (0, "") and checkpoint.load(tmp_path / "run").state["step"] == 2
    assert (tmp_path / "run" / "loss.png").is_file() == (surroundings is not no_matplotlib)
    count("matplotlib broken or told to use something else: the training went on")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError("libz.so: failed to map segment from shared object"), "libz.so: failed to map segment"),
        (ValueError("'agg9' is not a valid value for backend\nsupported: ..."), "is not a valid value"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError(), "out of memory"),
        (RuntimeError("x" * 5000), "x" * 200),
    ],
)
def test_no_picture_ends_a_training(error, reason, text_file, tmp_path, monkeypatch):
    def fails(*arguments):
        assert checkpoint.folders(tmp_path / "run" / "ckpt"), "drawn before it was saved"
        raise error

    monkeypatch.setattr(pictures, "losses", fails)
    printed = train_here(**QUICK, data=text_file, out=tmp_path / "run", plot=True)
    (note,) = [line for line in printed.splitlines() if "loss.png" in line]
    assert note.startswith("note: loss.png was not drawn (") and reason in note and len(note) < 300
    assert checkpoint.load(tmp_path / "run").state["step"] == 2
    count("matplotlib broken or told to use something else: the training went on")


def test_a_place_that_cannot_be_written(text_file, tmp_path):
    train_here(**QUICK, data=text_file, out=tmp_path / "run", stop_after=1)
    (tmp_path / "run" / "loss.png").mkdir()
    assert "note: loss.png was not drawn" in train_here(resume=tmp_path / "run", plot=True)
    assert not list((tmp_path / "run").glob(".loss*"))


def test_a_run_that_ended_while_it_drew_is_drawn_later(text_file, tmp_path, monkeypatch):
    def killed(evaluations, best):
        if len(evaluations) == 2:
            raise KeyboardInterrupt
        return b"1"

    monkeypatch.setattr(pictures, "losses", killed)
    with pytest.raises(KeyboardInterrupt):
        train_here(**QUICK, data=text_file, out=tmp_path / "run", plot=True)
    assert (tmp_path / "run" / "loss.png").read_bytes() == b"1"
    monkeypatch.setattr(pictures, "losses", lambda evaluations, best: str(len(evaluations)).encode())
    train_here(resume=tmp_path / "run", plot=True)
    assert (tmp_path / "run" / "loss.png").read_bytes() == b"2"


# --- python -m tinygpt plot -----------------------------------------------------------------------


def pixels(path):
    from matplotlib.image import imread

    return imread(io.BytesIO(path.read_bytes()))


@pytest.fixture
def drawn(monkeypatch):
    """The (curves, label) that were drawn, without drawing them."""
    calls = []

    def comparison(*arguments):
        calls.append(arguments)
        return b"\x89PNG\r\n....tEXtSoftware\0tinygpt plot", True

    monkeypatch.setattr(pictures, "comparison", comparison)
    return calls


def test_a_picture_of_several_runs(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["_hidden", "cost $\\frac$", "三国", *"abcdefgh"]
    runs = [shutil.copytree(finished, tmp_path / name) for name in names]
    commands.main(["plot", *names])
    printed = capsys.readouterr()
    assert printed.out == "wrote loss.png: the losses of 11 runs over steps\n"
    assert printed.err in (
        "",
        "note: no font on this machine has all letters of the names; boxes stand for them\n",
    )
    picture = pixels(tmp_path / "loss.png")
    commands.main(["plot", *names[:-1], "--out", "other.png"])
    assert not np.array_equal(picture, pixels(tmp_path / "other.png"))
    for colour in pictures.COLOURS:
        wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(picture[..., :3] - wanted).max(axis=-1) < 0.02).any(), colour
    before = (tmp_path / "loss.png").read_bytes()
    commands.main(["plot", *map(str, runs)])  # replaces its own picture with the same
    assert (tmp_path / "loss.png").read_bytes() == before


def test_what_the_curves_are(finished, tmp_path, drawn):
    damaged = shutil.copytree(finished, tmp_path / "run")
    with open(damaged / "metrics.jsonl", "ab") as file:
        file.write(
            b'{"event": "new", "step": 1, "seconds": 1}\n\xff\n[3]\n{"event": "evaluation", "step": 25, "se'
        )
    out = ["--out", str(tmp_path / "a.png")]
    evaluations = metrics(finished, "evaluation")
    for x, over in (
        ("steps", [0, 5, 10, 15, 20]),
        ("tokens", [32 * step for step in (0, 5, 10, 15, 20)]),
        ("seconds", [line["training_seconds"] for line in evaluations]),
    ):
        commands.main(["plot", str(finished), str(damaged), f"{finished}/../run", *out, "--x", x])
        curves, label = drawn.pop()
        assert x.removesuffix("s") in label
        assert [curve.name for curve in curves] == [str(finished), str(damaged)]  # once each, told apart
        for curve in curves:
            assert curve.x == over
            assert curve.train == [line["train_loss"] for line in evaluations]
            assert curve.validation == [line["val_loss"] for line in evaluations]


def test_a_resumed_run_is_one_curve(text_file, tmp_path, drawn, monkeypatch):
    train_here(**TINY, data=text_file, out=tmp_path / "run", stop_after=7)
    train_here(resume=tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    commands.main(["plot", ".", "--out", "../a.png"])
    ((curve,), _) = drawn.pop()
    assert (curve.name, curve.x) == ("run", [0, 5, 7, 10, 15, 20])


def test_runs_that_cannot_be_drawn(finished, tmp_path, capsys, drawn, monkeypatch):
    monkeypatch.chdir(tmp_path)
    early = shutil.copytree(finished, tmp_path / "early")
    (early / "metrics.jsonl").write_text('{"event": "step", "step": 0, "seconds": 0.1, "loss": 3.5}\n')
    commands.main(["plot", str(finished), "early"])
    assert "note: early has no evaluation" in capsys.readouterr().err and len(drawn[0][0]) == 1
    os.mkdir("notes")
    for arguments, message in (
        (["early"], "nothing to draw yet"),
        (["nothing"], "nothing does not exist"),
        (["notes"], "notes is not the folder of a run; give one such as runs/NAME"),
        (["."], "did you mean early?"),
        ([str(finished / "config.toml")], "is not the folder of a run"),
        ([str(finished), "--x", "tokens", "--out", "no/a.png"], "there is no folder no"),
        ([str(finished), "--out", "notes"], "give a name with .png"),
        ([str(finished), "--out", "a.pdf"], "the picture is a PNG file"),
    ):
        with pytest.raises(UserError) as error:
            commands.main(["plot", *arguments])
        assert message in str(error.value) and "\n" not in str(error.value)


def test_only_its_own_pictures_are_replaced(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {"photo.png": b"\x89PNG\r\n of mine", "text.png": b"words", "empty.png": b""}
    for name, content in before.items():
        Path(name).write_bytes(content)
        with pytest.raises(UserError, match="was not drawn by this command"):
            commands.main(["plot", str(finished), "--out", name])
        assert Path(name).read_bytes() == content
    train_here(**QUICK, data=finished.parent / "words.txt", out="run", plot=True)
    with pytest.raises(UserError, match="loss.png exists and was not drawn by this command"):
        commands.main(["plot", str(finished), "--out", "run/loss.png"])


def test_matplotlib_missing_is_one_line(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="cannot draw .*a.png: import of matplotlib.figure"):
        commands.main(["plot", str(finished), "--out", str(tmp_path / "a.png")])
    assert not list(tmp_path.iterdir())


# --- what metrics.jsonl is documented to hold ------------------------------------------------------


def test_every_field_of_metrics_is_documented(finished):
    from tinygpt.run.folder import Run

    for line in metrics(finished):
        assert all(f"`{name}`" in Run.__doc__ for name in line), line
        assert f'"{line["event"]}"' in Run.__doc__
    assert json.loads((finished / "metrics.jsonl").read_text().splitlines()[0])["event"] == "evaluation"
