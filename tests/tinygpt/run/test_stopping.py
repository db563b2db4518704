"""Early stopping, what a run says while it works, and texts that are found again from elsewhere."""

import io
import itertools
import re
import shutil
import sys
from types import SimpleNamespace

import pytest

from tests.support.commands import flags
from tests.support.runs import TINY, metrics, outcome, train_here
from tests.support.texts import english
from tinygpt import cli
from tinygpt.config import TrainConfig, UserError
from tinygpt.run import checkpoint, progress, resume
from tinygpt.run.job import Job

# A rate that spoils the model after a few evaluations.
SPOILT = TINY | dict(learning_rate=0.5, max_steps=200, eval_interval=2, dropout=0.0, sample_tokens=0)


# --- early stopping -------------------------------------------------------------------------------


def patient(losses, patience, interval=5):
    """Whether a run with these validation losses at these steps is out of patience."""
    job = object.__new__(Job)
    job.config = SimpleNamespace(patience=patience, eval_interval=interval)
    job.run = SimpleNamespace(evaluations=[{"step": s, "val_loss": loss} for s, loss in losses.items()])
    return job.is_out_of_patience()


@pytest.mark.parametrize(
    ("losses", "patience", "over"),
    [
        ({}, 1, False),
        ({0: 4}, 1, False),
        ({0: 4, 5: 5}, 1, True),
        ({0: 4, 5: 5}, 2, False),
        ({0: 4, 5: 5, 10: 6}, 2, True),
        ({0: 4, 5: 4}, 1, True),  # as good is not better
        ({0: 4, 5: 5, 10: 3}, 1, False),
        ({0: 4, 5: 5, 10: 3, 15: 3.5}, 1, True),
        ({0: 4, 5: 5, 7: 6}, 2, False),  # where it was stopped by hand
        ({0: 4, 3: 1, 5: 3, 10: 2}, 1, False),
        ({0: 4, 5: 5, 10: 6}, 0, False),
    ],
)
def test_patience(losses, patience, over):
    assert patient(losses, patience) is over


def test_a_run_stops_early_and_keeps_the_best(text_file, tmp_path):
    printed = train_here(**SPOILT, patience=3, data=text_file, out=tmp_path / "run")
    losses = {line["step"]: line["val_loss"] for line in metrics(tmp_path / "run", "evaluation")}
    last, best = max(losses), min(losses, key=losses.get)
    assert last == best + 3 * 2 < 200
    assert "stopped early: 3 evaluations without a better validation loss\n" in printed
    assert f"\n{last} steps in " in printed
    assert f"the best was step {best}: python -m tinygpt sample {tmp_path}/run/ckpt/best\n" in printed
    assert {path.name for path in (tmp_path / "run" / "ckpt").glob("step_*")} == {
        f"step_{last:06d}",
        f"step_{best:06d}",
    }
    assert checkpoint.load(tmp_path / "run" / "ckpt" / "best").state["step"] == best


def test_patience_changes_nothing_else_and_survives_interruptions(text_file, tmp_path):
    options = SPOILT | dict(data=text_file)
    train_here(**options, patience=3, out=tmp_path / "whole")
    files, numbers = outcome(tmp_path / "whole")
    last = max(line["step"] for line in metrics(tmp_path / "whole", "evaluation"))
    train_here(**options, patience=3, out=tmp_path / "parts", stop_after=3)
    train_here(resume=tmp_path / "parts", stop_after=last - 1)
    for _ in range(2):
        assert "stopped early" in train_here(resume=tmp_path / "parts")
    parts, part_numbers = outcome(tmp_path / "parts")
    weights = f"ckpt/step_{last:06d}/model.safetensors"
    assert parts[weights] == files[weights]
    assert [n for n in part_numbers if n[:2] in {m[:2] for m in numbers}] == numbers

    train_here(**options, out=tmp_path / "impatient", stop_after=last)
    assert outcome(tmp_path / "impatient")[0][weights] == files[weights]
    train_here(resume=tmp_path / "whole", patience=0, stop_after=last + 4)
    assert metrics(tmp_path / "whole")[-1]["step"] == last + 4


# --- tokens per second, and a word now and then ---------------------------------------------------


def test_tokens_per_second(text_file, tmp_path):
    printed = train_here(**TINY, data=text_file, out=tmp_path / "run", stop_after=10)
    printed += train_here(resume=tmp_path / "run")
    for line in metrics(tmp_path / "run", "evaluation"):
        tokens = line["step"] * TINY["batch_size"] * TINY["block_size"]
        expected = tokens / line["training_seconds"] if line["step"] else 0
        assert line["tokens_per_second"] == pytest.approx(expected)
    assert f", {line['tokens_per_second']:,.0f} tokens per second; best validation loss" in printed
    assert re.search(r"^an epoch, [\d,]+ tokens: [\d,]+ steps of 32 tokens$", printed, re.MULTILINE)


def test_output_into_a_file_says_something_now_and_then(text_file, tmp_path, monkeypatch):
    """Every half minute; here time flies, a second at every look."""
    ticks = itertools.count()
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    short = TINY | dict(eval_iters=40, eval_interval=20)
    printed = train_here(**short, data=text_file, out=tmp_path / "run")
    line = r"^step \d+ of 20: loss \d\.\d{4}, [\d,]+ tokens per second, \d+ s left$"
    assert 1 <= len(re.findall(line, printed, re.MULTILINE)) <= 8
    assert "\nevaluating: batch " in printed and " of 40 of train\n" in printed
    monkeypatch.setattr(progress, "SILENCE", 1e9)
    assert not re.search(line, train_here(resume=tmp_path / "run", max_steps=25), re.MULTILINE)


def test_a_terminal_has_a_bar_instead(text_file, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "SILENCE", 0)
    printed = train_here(**TINY, data=text_file, out=tmp_path / "run")
    assert " of 20: loss" not in printed
    assert re.search(r"20/20 .*loss=\d\.\d{3}, [\d,]+ tokens/s", terminal.getvalue())


def test_the_bar_does_not_take_an_evaluation_for_a_slow_step(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    ranks, config = SimpleNamespace(rank=0), SimpleNamespace(eval_iters=3)
    shown = progress.Progress(
        SimpleNamespace(ranks=ranks, config=config, first_step=0, last_step=9, training_seconds=0.0)
    )
    now = shown.bar.start_t
    monkeypatch.setattr(shown.bar, "_time", lambda: now)
    for batch in range(3):
        now += 100
        shown.evaluating("train", batch)
    now += 1
    shown.step_done(0, 1.5)
    assert shown.bar.format_dict["elapsed"] == pytest.approx(1)


# --- where the text is ----------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a text, in which a run was started by the text's bare name."""
    folder = tmp_path / "project"
    (folder / "texts").mkdir(parents=True)
    for path in (folder / "novel.txt", folder / "texts" / "a.txt", folder / "texts" / "b.txt"):
        path.write_text(english()[:4000], encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


FEW = TINY | dict(max_steps=2, eval_interval=2, sample_tokens=0)


@pytest.mark.parametrize("data", ["novel.txt", "./texts", "texts/*.txt"])
def test_a_text_is_found_from_elsewhere_and_after_a_move(data, project, monkeypatch):
    train_here(**FEW, data=data, out="runs/one", stop_after=1)
    monkeypatch.chdir(project.parent)
    assert cli.train_config(flags(resume="project/runs/one"))[0].data.startswith(str(project))
    moved = project.rename(project.with_name("moved"))
    saved = checkpoint.load(moved / "runs" / "one")
    assert resume.data_of(saved).startswith(str(moved))
    train_here(resume=moved / "runs" / "one", max_steps=3)
    shutil.rmtree(moved / "texts")
    (moved / "novel.txt").unlink()
    with pytest.raises(UserError, match=r"was trained on .*moved/.*, which is not there any more; name the"):
        cli.train_config(flags(resume=moved / "runs" / "one"))
    cli.train_config(flags(resume=moved / "runs" / "one", data="python"))  # what it holds is compared later


def test_what_older_versions_recorded(project, monkeypatch):
    """Paths as they were given: found from where training began, and beside the run from everywhere."""
    train_here(**FEW, data="novel.txt", out="runs/one")
    saved = checkpoint.load("runs/one")
    monkeypatch.chdir(project.parent)
    for recorded in ("novel.txt", "texts/a.txt"):
        saved.state["settings"]["data"] = recorded
        moved = checkpoint.Checkpoint(project / "runs" / "one" / "ckpt" / saved.folder.name, saved.state)
        assert resume.data_of(moved) == str(project / recorded)
    for name in ("shakespeare", "python"):
        saved.state["settings"]["data"] = name
        assert resume.data_of(saved) == name == resume.lasting(name)


def test_several_texts_are_each_found(project):
    several = resume.lasting(["novel.txt", "python", "texts/b.txt"])
    assert several == [f"{project}/novel.txt", "python", f"{project}/texts/b.txt"]
    assert TrainConfig(data=several).data == several


# --- what --help says -----------------------------------------------------------------------------


def shown(text):
    """{setting: its value in brackets} of --help, whose lines may be broken."""
    entries = re.split(r"\n  --", text.split("presets, where they differ")[0])
    found = {}
    for entry in entries[1:]:
        entry = " ".join(entry.split("\n\n")[0].split())
        if value := re.search(r"\[([^]]*)\]$", entry):
            found[entry.split()[0].rstrip(",").replace("-", "_")] = value[1]
    return found


@pytest.fixture
def help_of(capsys, monkeypatch):
    def print_help(columns="80"):
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(SystemExit) as stop:
            cli.train_config(["--help"])
        assert stop.value.code == 0
        return capsys.readouterr().out

    return print_help


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_help_shows_what_a_plain_run_uses_here(device, help_of, monkeypatch):
    monkeypatch.setattr(cli.arguments, "choose_device", lambda *wanted: (device, "as found"))
    config, *_ = cli.train_config([])
    values = shown(help_of())
    recorded = {name: getattr(config, name) for name in values}
    assert values == {name: str(v).lower() if isinstance(v, bool) else str(v) for name, v in recorded.items()}
    unshown = {name for name in vars(config) if name not in values}
    assert unshown == {name for name in unshown if getattr(config, name) == ""} and len(unshown) < 6
    assert values["preset"] == {"cpu": "laptop", "cuda": "shakespeare"}[device]


def test_help_is_readable_in_80_columns_and_at_most_110(help_of):
    for columns, widest in (("80", 80), ("110", 110), ("300", 110), ("20", 80)):
        text = help_of(columns)
        assert max(map(len, text.splitlines())) <= widest
        assert all(f"\n{title}:\n" in text for title in ("text", "model", "training", "output", "machine"))


def test_help_has_the_presets_as_a_table(help_of):
    lines = help_of().split("presets, where they differ:\n")[1].split("\n\n")[0].splitlines()
    names = lines[0].split()
    assert names == ["smoke", "laptop", "zh", "finetune", "shakespeare"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    for number, name in enumerate(names):
        config, *_ = cli.train_config(["--preset", name])
        for setting, values in rows.items():
            value = getattr(config, setting)
            assert values[number] == (str(value).lower() if isinstance(value, bool) else str(value))
    assert all(len(set(values)) > 1 for values in rows.values()) and "seed" not in rows
