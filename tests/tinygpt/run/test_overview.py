"""`python -m tinygpt list`: all runs in a table, also damaged ones, also in a narrow terminal."""

import json
import os
import re
import shutil

import pytest

from tests.support.runs import TINY, metrics, train_here
from tinygpt import commands
from tinygpt.config import UserError
from tinygpt.run import checkpoint, overview


@pytest.fixture
def runs(finished, tmp_path, monkeypatch):
    """A folder runs/ with a finished run, a stopped one and things that are no runs; we are beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    train_here(**TINY, data=finished.parent / "words.txt", out="runs/deep/stopped", stop_after=7)
    at(tmp_path / "runs" / "deep" / "stopped", 1_000_000_000)
    at(shutil.copytree(finished, tmp_path / "runs" / "whole"), 1_700_000_000)
    for path in ("notes", "exp", ".trash"):
        (tmp_path / "runs" / path).mkdir()
    (tmp_path / "runs" / "exp" / "config.toml").write_text('preset = "smoke"\n')
    shutil.copytree(finished, tmp_path / "runs" / ".trash" / "old")
    (tmp_path / "runs" / "loop").symlink_to("..")
    return tmp_path / "runs"


def at(run, seconds):
    """Make a run look as if it had been written at that time."""
    for path in (run, *run.rglob("*")):
        os.utime(path, (seconds, seconds))


def listed(capsys, *arguments):
    """(rows as dicts by heading, the other lines) of the table."""
    commands.main(["list", *map(str, arguments)])
    lines = capsys.readouterr().out.splitlines()
    cells = [re.split(r"  +", line.strip()) for line in lines]
    rows = [dict(zip(cells[0], row, strict=True)) for row in cells[1:] if len(row) == len(cells[0])]
    return rows, lines[1 + len(rows) :]


def test_all_runs_and_what_is_known_of_them(runs, capsys):
    rows, rest = listed(capsys)
    assert [row["run"] for row in rows] == ["runs/deep/stopped", "runs/whole"] and not rest
    assert [row["steps"] for row in rows] == ["7/20", "20/20"]
    evaluations = metrics(runs / "whole", "evaluation")
    best = min(evaluations, key=lambda line: line["val_loss"])
    model, _, _ = checkpoint.load_for_sampling(runs / "whole")
    whole = dict(rows[1])
    assert whole.pop("when").startswith("2023-11-1")
    assert whole == {
        "run": "runs/whole",
        "preset": "smoke",
        "parameters": f"{model.num_parameters():,}",
        "steps": "20/20",
        "best val loss": f"{best['val_loss']:.4f}",
        "at step": str(best["step"]),
        "tokens/s": f"{20 * 32 / evaluations[-1]['training_seconds']:,.0f}",
    }
    at(runs / "deep" / "stopped", 1_800_000_000)
    assert [row["run"] for row in listed(capsys)[0]] == ["runs/whole", "runs/deep/stopped"]
    assert len(listed(capsys, runs, runs / "whole", runs / "deep")[0]) == 2  # once each


def test_tokens_per_second_as_it_was_logged_or_from_the_seconds(runs, capsys):
    path = runs / "whole" / "metrics.jsonl"
    lines = metrics(runs / "whole")
    for logged, shown in (
        ({"tokens_per_second": 12345.6}, "12,346"),
        ({}, "640"),
        ({"training_seconds": 0}, "-"),
    ):
        for line in lines:
            if line["event"] == "evaluation":
                line.pop("tokens_per_second", None)
                line |= {"training_seconds": 1.0} | logged
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert {row["run"]: row["tokens/s"] for row in listed(capsys)[0]}["runs/whole"] == shown


DAMAGE = {  # name -> (what is done to a run, what the line below the table says, and what the row still says)
    "settings": (lambda run: (run / "config.toml").write_text("seed = \n"), "is not a TOML file", "20/20"),
    "no settings": (lambda run: (run / "config.toml").unlink(), "no config.toml", "20/20"),
    "state": (lambda run: (checkpoint.find(run) / "state.json").write_text("{}"), "format None", "20/20"),
    "weights": (lambda run: (checkpoint.find(run) / "model.safetensors").unlink(), "is missing", "20/20"),
    "shape": (lambda run: (checkpoint.find(run) / "config.json").write_text("[]"), "JSON object", "20/20"),
    "no metrics": (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl is missing", "20/20"),
    "metrics": (
        lambda run: (run / "metrics.jsonl").write_bytes(b"\xff\n\n[]\n9"),
        "3 damaged lines",
        "20/20",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_runs_are_marked(name, runs, capsys):
    damage, message, steps = DAMAGE[name]
    damage(runs / "whole")
    rows, rest = listed(capsys)
    (row,) = [row for row in rows if row["run"] == "runs/whole (damaged)"]
    assert row["steps"] == steps and len(rows) == 2
    assert len(rest) == 1 and rest[0].startswith("damaged: runs/whole") and message in rest[0]


def test_numbers_that_are_none(runs, capsys):
    lines = metrics(runs / "whole")
    for value in ("fast", None, [], float("nan")):
        changed = [line | {"training_seconds": value, "tokens_per_second": value} for line in lines]
        (runs / "whole" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
        rows, rest = listed(capsys)
        assert rows[-1]["steps"] == "20/20" and "damaged lines" in rest[0]


def test_a_torn_last_line_is_no_damage(runs, capsys):
    with open(runs / "whole" / "metrics.jsonl", "a") as file:
        file.write('{"event": "evaluation", "st')
    assert not listed(capsys)[1]


def test_runs_that_have_just_begun(runs, capsys):
    shutil.rmtree(runs / "whole" / "ckpt")
    (runs / "whole" / "metrics.jsonl").unlink()
    rows, rest = listed(capsys, runs / "whole")
    assert not rest and (rows[0]["steps"], rows[0]["parameters"], rows[0]["at step"]) == ("0/20", "-", "-")


@pytest.mark.parametrize("columns", [100, 79, 60, 40, 20])
def test_narrow_terminals(columns, runs, capsys, monkeypatch):
    (runs / "whole").rename(runs / "三国演义-很长的名字-very long")
    monkeypatch.setenv("COLUMNS", str(columns))
    commands.main(["list"])
    table = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("(")]
    needed = max(columns, overview.NARROWEST_NAME + len("  steps  best val loss"))
    assert len(table) == 3 and max(map(overview.columns_of, table)) <= needed
    assert all(part in table[0] for part in ("run", "steps", "best val loss"))
    assert ("preset" in table[0]) == (columns == 100) and "20/20" in table[2]


def test_chinese_takes_two_columns_a_letter():
    assert overview.columns_of("三国a") == 5 and overview.columns_of("e\u0301") == 1
    shortened = {room: overview.shorten("三国演义", room) for room in (4, 5, 7, 8)}
    assert shortened == {4: "…义", 5: "三…义", 7: "三…演义", 8: "三国演义"}


def test_names_that_a_terminal_would_obey(runs, capsys):
    (runs / "whole").rename(runs / "red\x1b[31m\nrun")
    assert listed(capsys)[0][1]["run"] == "runs/red?[31m?run"


def test_no_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands.main(["list"])
    assert capsys.readouterr().out.startswith("no runs in runs; python train.py makes one")
    with pytest.raises(UserError, match="nothing is not a folder"):
        commands.main(["list", "nothing"])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is not a folder"):
        commands.main(["list", ".", "file"])
