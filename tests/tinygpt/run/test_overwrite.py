"""--overwrite deletes a run and nothing else: everything that is not a run's stops it, by name.

`pytest --full tests/tinygpt/run/test_overwrite.py` tries 1,000 random folders.
"""

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.support.runs import TINY, finished_run, train_here
from tests.support.survived import count
from tinygpt.config import TrainConfig, UserError
from tinygpt.run import checkpoint, overwrite

QUICK = TINY | dict(max_steps=1, eval_iters=1, sample_tokens=3)
HANDWRITTEN = 'preset = "smoke"\nmax_steps = 20\n'


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("work"), **QUICK)


def contents(top):
    """{path: what is there} of everything below a folder, links as links."""
    found = {}
    for place, folders, names in os.walk(top):
        for path in (Path(place, name) for name in folders + names):
            if path.is_symlink():
                found[path] = ("link", os.readlink(path))
            else:
                found[path] = path.read_bytes() if path.is_file() else "other"
    return found


def refused(top, message, out, **settings):
    """Check that --overwrite is refused in one line that holds the message, and changes nothing below top."""
    before = contents(top)
    with pytest.raises(UserError) as error:
        train_here(**QUICK | settings, out=out, overwrite=True)
    assert message in str(error.value) and "\n" not in str(error.value), str(error.value)
    assert contents(top) == before
    count("--overwrite refused, nothing lost")
    return str(error.value)


def overwrites(run, data):
    train_here(**QUICK, data=data, out=run, overwrite=True)
    assert checkpoint.load(run).state["step"] == 1


# --- what is in the folder ------------------------------------------------------------------------


def link(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def move_and_link(path, elsewhere):
    link(path, path.rename(elsewhere))


FOREIGN = {  # name -> (what is done to a run's folder, what the error must name)
    "a file": (lambda run: (run / "input.txt").write_text("mine"), "input.txt"),
    "a folder": (lambda run: (run / "notes").mkdir(), "notes"),
    "a hidden file": (lambda run: (run / ".env").write_text("mine"), ".env"),
    "a file in samples": (lambda run: (run / "samples" / "best.txt").write_text("mine"), "best.txt"),
    "a nearly right name": (lambda run: (run / "samples" / "step_1.txt").write_text("mine"), "step_1.txt"),
    "a nearly right digit": (lambda run: (run / "samples" / "step_00000١.txt").touch(), "step_00000"),
    "a file in ckpt": (lambda run: (run / "ckpt" / "README").write_text("mine"), "README"),
    "a file in a checkpoint": (
        lambda run: (run / "ckpt" / "step_000001" / "notes.md").write_text("mine"),
        "notes.md",
    ),
    "a copied checkpoint": (
        lambda run: shutil.copytree(run / "ckpt" / "step_000001", run / "ckpt" / "good"),
        "ckpt/good",
    ),
    "a folder in the place of a file": (lambda run: (run / "loss.png").mkdir(), "loss.png"),
    "a pipe": (lambda run: os.mkfifo(run / "loss.png"), "loss.png"),
    "a linked ckpt": (
        lambda run: move_and_link(run / "ckpt", run.parent / "large disk"),
        "run/ckpt (a link)",
    ),
    "linked samples": (lambda run: move_and_link(run / "samples", run.parent / "s"), "run/samples"),
    "a linked file": (lambda run: move_and_link(run / "metrics.jsonl", run.parent / "m"), "metrics.jsonl"),
    "a broken link": (lambda run: link(run / "loss.png", "nowhere"), "loss.png"),
    "a linked lock": (lambda run: link(run / ".lock", run.parent / "words.txt"), ".lock"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_no_run_wrote_stops_it(name, finished, run):
    shutil.copy(finished.parent / "words.txt", run.parent / "words.txt")
    add, message = FOREIGN[name]
    add(run)
    line = refused(run.parent, message, run, data=finished.parent / "words.txt")
    assert line.startswith(f"{run} is not overwritten: it holds ")


NO_RUN = {  # name -> (files of a folder, what the error must say)
    "handwritten settings": ({"config.toml": HANDWRITTEN, "samples/step_000000.txt": "mine"}, "has no"),
    "other settings": ({"config.toml": 'title = "my blog"', "index.html": "mine"}, "index.html"),
    "no TOML": ({"config.toml": "exp: 1", "input.txt": "mine", "notes/a": ""}, "input.txt"),
    "a website": ({"index.html": "<p>", "style.css": "", "about/index.html": "<p>"}, "no config.toml"),
    "only our names": ({"metrics.jsonl": "", "loss.png": "mine"}, "no config.toml"),
    "another's lock": ({".lock": "pid 3 of my other program"}, "is not a lock of ours"),
}


@pytest.mark.parametrize("name", NO_RUN)
def test_a_folder_that_is_no_run(name, text_file, tmp_path):
    for path, content in NO_RUN[name][0].items():
        (tmp_path / "exp" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "exp" / path).write_text(content)
    refused(tmp_path, NO_RUN[name][1], tmp_path / "exp", data=text_file)


def test_what_the_new_run_reads(finished, run, monkeypatch):
    """Data, settings, weights or a tokenizer inside, though each is a file that a run wrote."""
    words = finished.parent / "words.txt"
    refused(run, "--config", run, data=words, config=run / "config.toml")
    refused(run, "--data", run, data=run / "ckpt" / "step_000001" / "config.json")
    refused(run, "--tokenizer", run, data=words, tokenizer=run / "ckpt" / "step_000001")
    other = {"out": run, "overwrite": True, "max_steps": 1, "data": words}
    with pytest.raises(UserError, match="--init-from .* lies in it"):
        train_here(preset="finetune", init_from=run, **other)
    link(run.parent / "linked.json", run / "ckpt" / "step_000001" / "config.json")
    refused(run, "--data", run, data=run.parent / "linked.json")
    monkeypatch.chdir(run.parent)
    (run.parent / "char").mkdir()  # a folder with the name of a tokenizer is none
    train_here(**QUICK, data=words, out="char", overwrite=True)


def test_where_the_folder_is(finished, run, monkeypatch):
    words = finished.parent / "words.txt"
    monkeypatch.setenv("HOME", str(run / "samples"))
    refused(run, "your home folder", run, data=words)
    monkeypatch.setenv("HOME", str(run))
    refused(run, "your home folder", run, data=words)
    monkeypatch.setenv("HOME", str(finished.parent))
    for place, out in (("ckpt", ".."), (".", "."), ("samples", run), ("ckpt/step_000001", "../..")):
        monkeypatch.chdir(run / place)
        refused(run, "the current folder", out, data=words)
    refused(run, "/ is not overwritten", "/", data=words)
    monkeypatch.chdir(run.parent)
    link(run.parent / "linked", run)
    refused(run.parent, "is a link", "linked", data=words)
    refused(run.parent, "is a link", "linked/", data=words)
    link(run.parent / "broken", "nowhere")
    refused(run.parent, "is a link", "broken", data=words)
    refused(run.parent, "is a file", words, data=words)


def test_what_may_not_be_deleted_is_said_first(finished, run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode: place != run / "samples")
    refused(run, f"you may not delete what is in {run / 'samples'}", run, data=finished.parent / "words.txt")


# --- what is replaced -----------------------------------------------------------------------------


def test_a_run_is_replaced_with_all_that_crashes_leave(finished, run):
    for name in (".config.toml.tmp", ".metrics.jsonl.tmp", ".loss.png.tmp", "loss.png", "ckpt/.best.tmp"):
        (run / name).write_text("half")
    for name in ("ckpt/.step_000007.tmp", "ckpt/.step_000003.old"):
        (run / name).mkdir()
        (run / name / ".tmpAb3dEf").write_text("half")  # of safetensors
    (run / "samples" / "step_000009.txt").write_text("old")
    (run / "metrics.jsonl").write_bytes(b'{"torn')
    overwrites(run, finished.parent / "words.txt")
    assert {str(path.relative_to(run)) for path in contents(run)} == {
        str(path.relative_to(finished)) for path in contents(finished)
    }


@pytest.mark.parametrize("last", ["model.safetensors", "ckpt", "metrics.jsonl", "samples"])
def test_a_run_that_was_killed_while_it_was_overwritten(last, finished, run, monkeypatch):
    words, remove = finished.parent / "words.txt", overwrite.files.remove

    def killed(path):
        remove(path)
        if path.name == last:
            raise KeyboardInterrupt

    monkeypatch.setattr(overwrite.files, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        overwrites(run, words)
    assert (run / "config.toml").is_file() and len(contents(run)) < len(contents(finished))
    monkeypatch.undo()
    overwrites(run, words)


def test_the_settings_of_the_first_version_are_still_settings():
    assert {*TrainConfig.__dataclass_fields__} >= overwrite.ALWAYS_WRITTEN


# --- what else is deleted -------------------------------------------------------------------------


def test_a_checkpoint_with_something_foreign_is_not_deleted(finished, run):
    (run / "ckpt" / "step_000001" / "notes.txt").write_text("the good one")
    (run / "ckpt" / ".mine.old").write_text("mine")
    link(run / "ckpt" / "step_000000", finished)
    before = contents(run / "ckpt")
    train_here(resume=run, max_steps=3)
    assert before.items() <= contents(run / "ckpt").items() | {
        (path, content) for path, content in before.items() if path.name in ("latest", "best")
    }
    assert checkpoint.load(run).state["step"] == 3


def test_going_back_does_not_delete_it_either(finished, run):
    early = shutil.copytree(run / "ckpt" / "step_000001", run.parent / "kept")
    train_here(resume=run, max_steps=3)
    shutil.rmtree(run / "ckpt" / "step_000001", ignore_errors=True)
    back = shutil.copytree(early, run / "ckpt" / "step_000001")
    (run / "ckpt" / "step_000003" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="would delete .*notes.txt, which no run wrote"):
        train_here(resume=back, force=True)


@pytest.mark.parametrize("text", ["", "mine"])
def test_a_lock_is_not_written_through_a_link(text, run):
    (run.parent / "novel.txt").write_text(text)
    link(run / ".lock", run.parent / "novel.txt")
    with pytest.raises(UserError, match="is not a lock of ours"):
        train_here(resume=run, max_steps=3)
    assert (run.parent / "novel.txt").read_text() == text


# --- random folders -------------------------------------------------------------------------------

PLACES = [".", "samples", "ckpt", "ckpt/step_000001"]
STRANGE = [
    "input.txt", "notes", ".git", "step_1.txt", "step_000001.txt.bak", "Config.toml", "config.toml~",
    "metrics.jsonl.bak", ".lock2", "step_00000\u0663.txt", "model.pt", "ckpt.old", "a b\n.txt", "latest2",
    "\u4e09\u56fd.txt", ".tmp12345", "samples2", "loss.png.png", "step_000001.tmp", "CKPT",
]  # fmt: skip
KNOWN = ["loss.png", "samples", "ckpt", "ckpt/best", "ckpt/step_000002", "samples/step_000003.txt"]


def add_foreign(folder, outside, choice):
    """Put something into a folder that no run writes."""
    kind = choice.choice(["file", "folder", "link", "wrong kind"])
    if kind in ("link", "wrong kind"):
        path = folder / choice.choice(KNOWN)
    else:
        path = folder / choice.choice(PLACES) / choice.choice(STRANGE)
    if os.path.lexists(path):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError:  # it is foreign itself by now
        return
    if kind == "link":
        path.symlink_to(choice.choice([outside, outside / "novel.txt", "nowhere"]))
    elif kind == "file" or (kind == "wrong kind" and path.name in ("samples", "ckpt", "step_000002")):
        path.write_text("mine")
    else:
        path.mkdir()
        if choice.random() < 0.5:
            (path / "deeper").write_text("mine")


def random_folder(folder, finished, outside, choice):
    """Make a random folder: (whether it is a run and nothing else, the data to train on)."""
    words = finished.parent / "words.txt"
    shutil.copytree(finished, folder)
    for path in contents(folder):  # a run that stopped early, or that was half deleted
        if choice.random() < 0.2 and path.name not in ("config.toml", ".lock") and path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    is_run = True
    proof = choice.random()
    if proof < 0.1:
        (folder / "config.toml").unlink()
        is_run = {path.name for path in folder.iterdir()} <= {".lock"}
    elif proof < 0.2:
        (folder / "config.toml").write_text(choice.choice([HANDWRITTEN, "", "a: b", "[site]\nname = 3\n"]))
        is_run = False
    for _ in range(choice.choice([0, 0, 1, 2])):
        add_foreign(folder, outside, choice)
        is_run = False
    inside = [path for path in contents(folder) if path.is_file()]
    if inside and choice.random() < 0.2:
        return False, choice.choice(inside)
    return is_run, words


def test_random_folders(request, finished, tmp_path, monkeypatch):
    number, clean = 1000 if request.config.getoption("--full") else 60, 0
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "novel.txt").write_text("mine")
    for seed in range(number):
        choice, folder = random.Random(seed), tmp_path / f"run-{seed}"
        is_run, data = random_folder(folder, finished, outside, choice)
        monkeypatch.chdir(folder if choice.random() < 0.05 else tmp_path)
        is_run &= Path.cwd() != folder
        before = contents(tmp_path)
        try:
            train_here(**QUICK, data=data, out=folder, overwrite=True)
        except UserError as error:
            assert contents(tmp_path) == before, f"seed {seed}: {error}"
            assert not is_run and "\n" not in str(error), f"seed {seed}: {error}"
        else:
            assert is_run, f"seed {seed}: a folder that is not just a run was overwritten"
            assert checkpoint.load(folder).state["step"] == 1
            after = contents(tmp_path)
            assert all(after[path] == before[path] for path in before if folder not in path.parents)
            clean += 1
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
    assert number / 5 < clean < number * 4 / 5
    count("--overwrite on a random folder: nothing lost that no run wrote", number)
