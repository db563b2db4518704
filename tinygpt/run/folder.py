"""The folder of a run: config.toml, metrics.jsonl, loss.png, samples/, ckpt/."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tinygpt.config import TrainConfig, UserError, to_toml
from tinygpt.parallel.ranks import Ranks
from tinygpt.run import checkpoint, files
from tinygpt.run.checkpoint import Checkpoint

LOCK = ".lock"


class Run:
    """Writes what a training run leaves behind.

    metrics.jsonl has a line for each event, with its step; the curve and the best loss follow from it. The
    folder is locked until the process ends. With `saved`, the run of this Checkpoint goes on from there.
    """

    def __init__(
        self, config: TrainConfig, corpus: str, overwrite: bool = False, saved: Checkpoint | None = None
    ) -> None:
        self.started = time.perf_counter()
        self.evaluations = []  # their lines of metrics.jsonl
        self.best = {}  # step and val_loss of the best evaluation
        with writing_to(config.out or "runs", "give another --out"):
            self.folder = saved.run_folder if saved else _new_folder(config, corpus, overwrite)
        with self._writing():
            self.lock = files.lock(self.folder / LOCK)
            if saved:
                self._go_back_to(saved)
            else:
                _empty(self.folder)
            files.write(self.folder / "config.toml", to_toml(config))

    def _writing(self):
        return writing_to(self.folder, "its checkpoints are whole: solve this and --resume it")

    def _go_back_to(self, saved):
        """Forget what came after a checkpoint: it will be done again."""
        step, self.best = saved.state["step"], saved.state["best"]
        checkpoint.keep_only(saved.folder.parent, step, self.best)
        kept = []
        for line in _events(self.folder / "metrics.jsonl"):
            evaluated_there = line["step"] == step and line["event"] == "evaluation"
            if line["step"] < step or evaluated_there:
                kept.append(line)
        files.write(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        self.started -= max((line["seconds"] for line in kept), default=0)
        for line in kept:
            self._remember(line)

    def _remember(self, line):
        if line["event"] == "evaluation":
            self.evaluations.append(line)
            if not self.best or line["val_loss"] < self.best["val_loss"]:
                self.best = {"step": line["step"], "val_loss": line["val_loss"]}

    def evaluated(self, step: int) -> bool:
        """Whether the losses at this step are already known."""
        return any(line["step"] == step for line in self.evaluations)

    def log(self, event: str, step: int, **values: float) -> None:
        """Append a line to metrics.jsonl, and remember it if it is an evaluation."""
        seconds = round(time.perf_counter() - self.started, 3)
        line = {"event": event, "step": step, "seconds": seconds, **values}
        with self._writing(), open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            if event == "evaluation":  # a checkpoint follows; the disk must not have it without this line
                file.flush()
                os.fsync(file.fileno())
        self._remember(line)

    def save_sample(self, step: int, text: str) -> None:
        with self._writing():
            (self.folder / "samples").mkdir(exist_ok=True)
            (self.folder / "samples" / f"step_{step:06d}.txt").write_text(text, encoding="utf-8")

    def sample(self, step: int) -> str:
        """The sample written at a step, or "" if there is none."""
        path = self.folder / "samples" / f"step_{step:06d}.txt"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def plot_losses(self) -> None:
        """Draw loss.png from the evaluations so far."""
        from matplotlib.figure import Figure  # takes longer to import than everything else together

        figure = Figure(figsize=(7, 4.5))
        axes = figure.add_subplot()
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
def writing_to(folder: Path | str, advice: str) -> Iterator[None]:
    """Turn what goes wrong with the disk into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; {advice}") from None


class SilentRun(Run):
    """The Run of a rank that writes nothing. It only remembers, so that all ranks know the same."""

    def __init__(self, folder: Path, evaluations: list[dict], best: dict) -> None:
        self.folder, self.evaluations, self.best = folder, evaluations, best

    def log(self, event: str, step: int, **values: float) -> None:
        self._remember({"event": event, "step": step, **values})

    def save_sample(self, step: int, text: str) -> None:
        pass

    def sample(self, step: int) -> str:
        return ""

    def plot_losses(self) -> None:
        pass


def open_run(
    ranks: Ranks, config: TrainConfig, corpus: str, overwrite: bool = False, saved: Checkpoint | None = None
) -> Run:
    """A Run on rank 0, and on the others a SilentRun that knows the same. All ranks must call it together."""
    if ranks.rank == 0:
        run = Run(config, corpus, overwrite, saved)
        ranks.broadcast_object((run.folder, run.evaluations, run.best))
        return run
    folder, evaluations, best = ranks.broadcast_object(None)
    return SilentRun(folder, evaluations, best)


def _new_folder(config, corpus, overwrite):
    """Make the folder of a new run: config.out, or the first of runs/NAME, runs/NAME-2, ... that is free."""
    if config.out:
        folder = Path(config.out)
        if folder.exists() and not overwrite:
            raise UserError(f"{folder} exists; give another --out, --overwrite to replace it, or --resume it")
        if folder.exists() and _entries(folder) and not (folder / "config.toml").is_file():
            raise UserError(f"{folder} is not the folder of a run (no config.toml), so it is not overwritten")
        folder.mkdir(parents=True, exist_ok=overwrite)
        return folder
    name = f"{config.preset}-{corpus}"
    folder, number = Path("runs", name), 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = Path("runs", f"{name}-{number}")


def _empty(folder):
    """Delete what a run left in its folder, except its lock.

    config.toml goes last: as long as anything is left, it shows that this is the folder of a run.
    """
    for entry in sorted(_entries(folder), key=lambda entry: entry.name == "config.toml"):
        files.remove(entry)


def _entries(folder):
    """What is in a folder, except the files of a run that was killed before it wrote its config.toml."""
    return [entry for entry in folder.iterdir() if entry.name not in (LOCK, ".config.toml.tmp")]


def _events(path):
    """The lines of a metrics.jsonl that are whole: a crash may have cut the last one off."""
    events = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            event = json.loads(line)
            numbers = ["step", "seconds"]
            if event["event"] == "evaluation":
                numbers += ["train_loss", "val_loss"]
            if all(math.isfinite(event[name]) for name in numbers):
                events.append(event)
    return events
