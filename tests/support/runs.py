"""Tiny training runs: their settings, a way to train in this process, and what a run leaves behind."""

import contextlib
import io
import json
from unittest import mock

import train
from tests.support.commands import flags
from tests.support.texts import english
from tinygpt.run.folder import Run

SMOKE = {"preset": "smoke", "max_steps": 20, "eval_interval": 10, "eval_iters": 2, "sample_tokens": 20}
TINY = {
    "preset": "smoke", "block_size": 8, "n_layer": 1, "n_embd": 8, "batch_size": 4, "max_steps": 20,
    "eval_interval": 5, "eval_iters": 1, "sample_tokens": 5, "dropout": 0.2, "threads": 1,
}  # fmt: skip


def train_here(plot=False, **settings):
    """Train in this process; returns what was printed. Unless asked for, the slow plots are left out."""
    plots = contextlib.nullcontext() if plot else mock.patch.object(Run, "plot_losses")
    printed = io.StringIO()
    with plots, contextlib.redirect_stdout(printed):
        train.main(flags(**settings))
    return printed.getvalue()


def finished_run(work, **settings):
    """The folder of a finished run, in a folder `work` beside the text it was trained on."""
    (work / "words.txt").write_text(english(), encoding="utf-8")
    train_here(**settings, data=work / "words.txt", out=work / "run")
    return work / "run"


def outcome(folder):
    """What must be equal after the same training: (files, numbers).

    The files are weights, moments and samples, by their paths; the numbers are losses by event and step.
    """
    files = [*folder.glob("ckpt/step_*/*.safetensors"), *folder.glob("samples/*")]
    losses = ("loss", "val_loss", "train_loss")
    numbers = [(e["event"], e["step"], *map(e.get, losses)) for e in metrics(folder)]
    assert len(numbers) == len({n[:2] for n in numbers}), "an event was written down twice"
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}, numbers


def metrics(folder, event=None):
    """The lines of metrics.jsonl, or only those of one event: "step" or "evaluation"."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if event in (None, line["event"])]
