"""The folder of a run: config.toml, metrics.jsonl, loss.png, samples/, ckpt/."""

import contextlib
import json
import math
import os
import time
from pathlib import Path

from tinygpt.config import UserError, to_toml
from tinygpt.run import checkpoint, files

LOCK = ".lock"


class Run:
    """Writes what a training run leaves behind. metrics.jsonl is the source of truth: a line per event, with
    its step.

    The folder is locked until the process ends. With `saved`, a Checkpoint, it is that run's, and it goes on
    from there.
    """

    def __init__(self, config, corpus, overwrite=False, saved=None):
        self.started = time.perf_counter()
        self.evaluations, self.best = [], {}  # best: step and val_loss of the best evaluation
        with writing_to(config.out or "runs", "give another --out"):
            self.folder = saved.run_folder if saved else _new_folder(config, corpus, overwrite)
        with self._writing():
            self.lock = files.lock(self.folder / LOCK)
            self._go_back_to(saved) if saved else _empty(self.folder)
            files.write(self.folder / "config.toml", to_toml(config))

    def _writing(self):
        return writing_to(self.folder, "its checkpoints are whole: put that right and --resume it")

    def _go_back_to(self, saved):
        """Forget what came after a checkpoint: it will be done again."""
        step, self.best = saved.state["step"], saved.state["best"]
        checkpoint.keep_only(saved.folder.parent, step, self.best)
        lines = _events(self.folder / "metrics.jsonl")
        lines = [
            line
            for line in lines
            if line["step"] < step or (line["step"] == step and line["event"] == "evaluation")
        ]
        files.write(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        self.started -= max((line["seconds"] for line in lines), default=0)
        for line in lines:
            self._remember(line)

    def _remember(self, line):
        if line["event"] == "evaluation":
            self.evaluations.append(line)
            if not self.best or line["val_loss"] < self.best["val_loss"]:
                self.best = {"step": line["step"], "val_loss": line["val_loss"]}

    def evaluated(self, step):
        """Whether the losses at this step are known already."""
        return any(line["step"] == step for line in self.evaluations)

    def log(self, event, step, **values):
        """Append a line to metrics.jsonl; evaluations also go into the curve."""
        line = {
            "event": event,
            "step": step,
            "seconds": round(time.perf_counter() - self.started, 3),
            **values,
        }
        with self._writing(), open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            if event == "evaluation":  # a checkpoint follows, and must not reach the disk before
                file.flush()
                os.fsync(file.fileno())
        self._remember(line)

    def save_sample(self, step, text):
        with self._writing():
            (self.folder / "samples").mkdir(exist_ok=True)
            (self.folder / "samples" / f"step_{step:06d}.txt").write_text(text, encoding="utf-8")

    def sample(self, step):
        """The sample written at a step, or "" if there is none."""
        path = self.folder / "samples" / f"step_{step:06d}.txt"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def plot_losses(self):
        """Draw loss.png from the evaluations so far."""
        # here, because it takes longer to import than everything else together
        from matplotlib.figure import (
            Figure,
        )

        axes = (figure := Figure(figsize=(7, 4.5))).add_subplot()
        steps = [line["step"] for line in self.evaluations]
        for name, label in (("train_loss", "train"), ("val_loss", "validation")):
            axes.plot(steps, [line[name] for line in self.evaluations], marker="o", label=label)
        title = f"best validation loss {self.best['val_loss']:.4f}"
        axes.set(xlabel="step", ylabel="loss (nats per token)", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
        with self._writing():
            figure.savefig(self.folder / "loss.png", dpi=120)


@contextlib.contextmanager
def writing_to(folder, advice):
    """Turn what goes wrong with the disk into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; {advice}") from None


class Onlooker(Run):
    """The Run of the ranks that write nothing: it remembers, so that all know the same."""

    def __init__(self, folder, evaluations, best):
        self.folder, self.evaluations, self.best = folder, evaluations, best

    def log(self, event, step, **values):
        self._remember({"event": event, "step": step, **values})

    def save_sample(self, step, text):
        pass

    def sample(self, step):
        return ""

    def plot_losses(self):
        pass


def open_run(ranks, *arguments):
    """Run(*arguments) on rank 0, and on the others an Onlooker that has seen the same."""
    run = Run(*arguments) if ranks.rank == 0 else None
    seen = ranks.once(lambda: (run.folder, run.evaluations, run.best))
    return run or Onlooker(*seen)


def _new_folder(config, corpus, overwrite):
    """The folder of a new run, made now: config.out, or else the first of runs/NAME, runs/NAME-2, ...

    that is free.
    """
    if config.out:
        folder = Path(config.out)
        if folder.exists() and not overwrite:
            raise UserError(f"{folder} exists; give another --out, --overwrite to replace it, or --resume it")
        if folder.exists() and _entries(folder) and not (folder / "config.toml").is_file():
            raise UserError(f"{folder} is not the folder of a run (no config.toml), so it is not overwritten")
        folder.mkdir(parents=True, exist_ok=overwrite)
        return folder
    stem, number = f"runs/{config.preset}-{corpus}", 1
    while True:
        folder = Path(stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def _empty(folder):
    """Delete what a run left in its folder, but not its lock; config.toml, which tells that it is a run, at
    last.
    """
    for entry in sorted(_entries(folder), key=lambda entry: entry.name == "config.toml"):
        files.remove(entry)


def _entries(folder):
    """What is in a folder, but for what a run leaves there that was killed before it wrote its config.toml."""
    return [entry for entry in folder.iterdir() if entry.name not in (LOCK, ".config.toml.tmp")]


def _events(path):
    """The lines of a metrics.jsonl that are whole: a crash may have cut the last one off."""
    events = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            event = json.loads(line)
            numbers = ["step", "seconds"] + ["train_loss", "val_loss"] * (event["event"] == "evaluation")
            if all(math.isfinite(event[name]) for name in numbers):
                events.append(event)
    return events
