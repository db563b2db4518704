"""A training run as an object, Job, and what train.py prints about it."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from autograd import AdamW, Stream
from autograd.backend import wait_for
from tinygpt.config import TrainConfig
from tinygpt.model import GPT
from tinygpt.parallel import estimate
from tinygpt.parallel.ranks import Ranks
from tinygpt.parallel.workers import Workers
from tinygpt.run.checkpoint import Checkpoint
from tinygpt.run.folder import Run
from tinygpt.run.interrupt import output_lost
from tinygpt.streams import output
from tinygpt.text.data import Dataset
from tinygpt.text.tokenizer import Tokenizer
from tinygpt.toml import to_toml


@dataclass
class Job:
    """All that a training run consists of. The functions of train.py take it."""

    config: TrainConfig
    ranks: Ranks  # the processes that train together, seen from this one, which usually is the only one
    machine: str  # what computes, and how the work is divided: another division rounds differently
    corpus: str  # the name of the text
    dataset: Dataset
    tokenizer: Tokenizer
    model: GPT
    optimizer: AdamW
    schedule: Callable[[int], float]  # step -> learning rate
    workers: Workers  # compute losses and gradients
    stream: Stream  # what batches and dropout masks are drawn from
    run: Run  # the folder for everything that is written
    first_step: int
    last_step: int
    training_seconds: float  # spent in training steps so far; on a GPU, after catch_up

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps beside the arrays, for state.json."""
        return {
            "step": step,
            "best": self.run.best,
            "data_sha256": self.dataset.sha256,
            "corpus": self.corpus,
            "training_seconds": self.training_seconds,
            "machine": self.machine,
            "settings": dataclasses.asdict(self.config),
        }

    @property
    def tokens_per_step(self) -> int:
        return self.config.batch_size * self.config.block_size

    def catch_up(self) -> None:
        """Wait until a GPU has done all steps that were queued. That is training too, so the time counts."""
        began = time.perf_counter()
        wait_for(self.optimizer.gradient)
        self.training_seconds += time.perf_counter() - began

    def tokens_per_second(self, step: int) -> float:
        """Tokens that all ranks together train on in a second, since the run began; 0 before step 1."""
        return step * self.tokens_per_step / self.training_seconds if self.training_seconds else 0.0

    def evaluates_at(self, step: int) -> bool:
        """Whether an evaluation is due at this step."""
        return step % self.config.eval_interval == 0 or step == self.last_step

    def evaluation_steps(self, step: int) -> float:
        """What the evaluations still to come at `step` or later will take, in training steps.

        Each is eval_iters batches of both parts of the text, only forward: a third of a step's work.
        """
        interval, last = self.config.eval_interval, self.last_step
        to_come = last // interval - (step - 1) // interval + (last % interval > 0) - self.run.evaluated(step)
        return to_come * self.config.eval_iters * 2 / 3

    def is_out_of_patience(self) -> bool:
        """Whether the last `patience` regular evaluations were no better than the best before them.

        An evaluation where a run was stopped does not count, nor does a loss that is only as good. So a run
        ends at the same step however often it was stopped.
        """
        interval, lines = self.config.eval_interval, self.run.evaluations
        losses = [line["val_loss"] for line in lines if line["step"] % interval == 0]
        if not self.config.patience or not losses:
            return False
        return len(losses) - 1 - losses.index(min(losses)) >= self.config.patience


def say(line: str) -> None:
    """Print a line at once, above the progress bar if there is one.

    If it cannot be written, the training that runs will save and stop.
    """
    try:
        with output():
            tqdm.write(line)
    except OSError as error:
        output_lost(error)


def describe(job: Job, why: str, saved: Checkpoint | None, notes: Sequence[str] = ()) -> None:
    """Print what will be trained, on what, and what that will need. All ranks must call it together.

    why: the device was chosen; saved: the checkpoint to resume from; notes: on settings.
    """
    config, dataset = job.config, job.dataset
    say(to_toml(config))
    say(f"preset {config.preset} on {job.machine} ({why})")
    say(
        f"data: {job.corpus}, {len(dataset.train):,} tokens to train, {len(dataset.val):,} to validate, "
        f"vocabulary of {job.tokenizer.vocab_size:,}"
    )
    if dataset.report:
        say(dataset.report)
    epoch = math.ceil(len(dataset.train) / job.tokens_per_step)
    say(f"an epoch, {len(dataset.train):,} tokens: {epoch:,} steps of {job.tokens_per_step:,} tokens")
    say(f"model: {job.model.num_parameters():,} parameters")
    say(f"run folder: {job.run.folder}")
    steps, evaluation_steps = job.last_step - job.first_step, job.evaluation_steps(job.first_step)
    say(estimate.report(config, job.workers, dataset, job.stream, steps, evaluation_steps))
    if saved:
        say(f"resuming {saved.folder}")
        if saved.state["machine"] != job.machine:
            say(f"note: this rounds differently than before ({saved.state['machine']})")
    size = job.tokenizer.vocab_size
    if config.tokenizer == "bpe" and size < config.vocab_size:
        notes = [
            *notes,
            f"vocab_size {config.vocab_size} was not reached: no pair occurs twice beyond {size} tokens",
        ]
    for note in notes:
        say(f"note: {note}")


def conclude(job: Job, step: int, saved_in: Path | None) -> None:
    """Print how the training went until this step, its last sample, and how to get more text."""
    job.run.plot_losses()  # of a run that was killed before it could
    best, folder = job.run.best, job.run.folder
    if step < job.last_step:
        say(f"stopped early: {job.config.patience} evaluations without a better validation loss")
    say(
        f"{step} steps in {job.training_seconds:.1f} s of training, "
        f"{job.tokens_per_second(step):,.0f} tokens per second; "
        f"best validation loss {best['val_loss']:.4f}, "
        f"{job.dataset.bits_per_byte('val', best['val_loss']):.4f} bits per byte, "
        f"peak memory {estimate.peak_memory(job.workers) / 1e6:,.0f} MB"
    )
    say(job.run.sample(step))
    say(f"saved {saved_in}; more text: python -m tinygpt sample {folder}")
    if best["step"] != step:
        say(f"the best was step {best['step']}: python -m tinygpt sample {folder}/ckpt/best")
