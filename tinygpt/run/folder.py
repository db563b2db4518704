"""The folder of a run: config.toml, metrics.jsonl, loss.png, samples/, ckpt/."""

import contextlib
import glob
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tinygpt.config import TrainConfig, UserError
from tinygpt.parallel.ranks import Ranks
from tinygpt.run import checkpoint, files, overwrite, pictures
from tinygpt.run.checkpoint import Checkpoint
from tinygpt.toml import to_toml

METRICS = "metrics.jsonl"


class Run:
    """Writes what a training run leaves behind.

    The folder is locked until the process ends. With `saved`, the run of this Checkpoint goes on from there.
    `settings_file` is the one given with --config, which --overwrite must not delete.

    metrics.jsonl has a JSON object on each line, in the order of time. The curve and the best loss follow
    from it. A crash may cut the last line off: skip lines that are not whole. `--resume` takes out the lines
    that come after the checkpoint, and does that work again. Every line has

    - `event`: "step" or "evaluation". A reader should skip other words;
    - `step`: how many updates of the weights came before it;
    - `seconds`: since the run began, all its parts together: steps, evaluations, samples and saving. The time
      between stopping and resuming does not count.

    A "step" comes every tenth step and at the last one. It has

    - `loss`: of the batch of that step, before its update, in nats per token, with dropout;
    - `learning_rate`: of that update.

    An "evaluation" comes every eval_interval steps, and at the first and the last. It has

    - `train_loss`, `val_loss`: nats per token, without dropout, the mean over eval_iters batches of each part
      of the text, always the same batches;
    - `val_bits_per_byte`: val_loss in bits per byte of the text in UTF-8, which compares tokenizers;
    - `training_seconds`: the part of `seconds` that went into steps;
    - `tokens_per_second`: step * batch_size * block_size / training_seconds, 0 at step 0. Version 0.1
      did not write it.
    """

    def __init__(
        self,
        config: TrainConfig,
        corpus: str,
        overwrites: bool = False,
        saved: Checkpoint | None = None,
        settings_file: str = "",
    ) -> None:
        self.started = time.perf_counter()
        self.evaluations = []  # their lines of metrics.jsonl
        self.best = {}  # step and val_loss of the best evaluation
        self.drawn = 0  # evaluations in loss.png
        self.picture_failed = False
        with writing_to(config.out or "runs", "give another --out"):
            self.folder = (
                saved.run_folder if saved else _new_folder(config, corpus, overwrites, settings_file)
            )
        with self._writing():
            self.lock = files.lock(self.folder / overwrite.LOCK)
            if saved:
                self._go_back_to(saved)
            else:
                overwrite.empty(self.folder)
            files.write(self.folder / overwrite.SETTINGS, to_toml(config))

    def _writing(self):
        return writing_to(self.folder, "its checkpoints are whole: solve this and --resume it")

    def _go_back_to(self, saved):
        """Forget what came after a checkpoint: it will be done again."""
        step, self.best = saved.state["step"], saved.state["best"]
        checkpoint.keep_only(saved.folder.parent, step, self.best)
        files.remove(self.folder / ".loss.png.tmp")  # a picture that a killed process was drawing
        kept = []
        for line in read_events(self.folder):
            evaluated_there = line["step"] == step and line["event"] == "evaluation"
            if line["step"] < step or evaluated_there:
                kept.append(line)
        files.write(self.folder / METRICS, "".join(json.dumps(line) + "\n" for line in kept))
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
        with self._writing(), open(self.folder / METRICS, "a", encoding="utf-8") as file:
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
        """Draw loss.png from the evaluations so far. If that fails, whatever the reason, say so once."""
        if self.drawn == len(self.evaluations):
            return
        try:
            files.write(self.folder / "loss.png", pictures.losses(self.evaluations, self.best))
            self.drawn = len(self.evaluations)
        except Exception as error:  # a picture is not worth a training
            if not self.picture_failed:
                tqdm.write(f"note: loss.png was not drawn ({pictures.reason(error)}); the training goes on")
            self.picture_failed = True


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
    ranks: Ranks,
    config: TrainConfig,
    corpus: str,
    overwrites: bool = False,
    saved: Checkpoint | None = None,
    settings_file: str = "",
) -> Run:
    """A Run on rank 0, and on the others a SilentRun that knows the same. All ranks must call it together."""
    if ranks.rank == 0:
        run = Run(config, corpus, overwrites, saved, settings_file)
        ranks.broadcast_object((run.folder, run.evaluations, run.best))
        return run
    folder, evaluations, best = ranks.broadcast_object(None)
    return SilentRun(folder, evaluations, best)


def _new_folder(config, corpus, overwrites, settings_file):
    """Make the folder of a new run: config.out, or the first of runs/NAME, runs/NAME-2, ... that is free."""
    if config.out:
        folder = Path(config.out)
        if folder.exists() and not overwrites:
            raise UserError(f"{folder} exists; give another --out, --overwrite to replace it, or --resume it")
        if folder.exists() or folder.is_symlink():
            overwrite.check(folder, _inputs(config, settings_file))
        folder.mkdir(parents=True, exist_ok=overwrites)
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


def _inputs(config, settings_file):
    """[(flag, path)] of what a run reads. Some settings are names instead of paths."""
    data = [config.data] if isinstance(config.data, str) else config.data
    given = [("--data", found) for source in data for found in (source, *glob.glob(source, recursive=True))]
    given += [
        ("--config", settings_file),
        ("--init-from", config.init_from),
        ("--tokenizer", config.tokenizer),
    ]
    names = ("", "-", "shakespeare", "python", "char", "bpe")
    return [(flag, path) for flag, path in given if path not in names]


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl that are whole: a crash may have cut the last one off."""
    path, events = folder / METRICS, []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        # OverflowError: a whole number that is too large to be a float
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            event = json.loads(line)
            numbers = ["step", "seconds"]
            if event["event"] == "evaluation":
                numbers += ["train_loss", "val_loss"]
                numbers += event.keys() & {"training_seconds", "tokens_per_second"}  # not in old runs
            if all(math.isfinite(event[name]) for name in numbers):
                events.append(event)
    return events
