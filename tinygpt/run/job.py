"""A training run as an object, Job, and what train.py prints about it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from autograd import AdamW, Stream
from tinygpt.config import TrainConfig, to_toml
from tinygpt.model import GPT
from tinygpt.parallel import estimate
from tinygpt.parallel.ranks import Ranks
from tinygpt.parallel.workers import Workers
from tinygpt.run.checkpoint import Checkpoint
from tinygpt.run.folder import Run
from tinygpt.text.data import Dataset
from tinygpt.text.tokenizer import Tokenizer


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
    training_seconds: float  # spent in training steps so far


def say(line: str) -> None:
    """Print a line at once, above the progress bar if there is one."""
    tqdm.write(line)
    sys.stdout.flush()


def describe(job: Job, why: str, saved: Checkpoint | None) -> None:
    """Print what will be trained, on what, and what that will need. All ranks must call it together.

    why: the device was chosen; saved: the checkpoint to resume from.
    """
    config, dataset = job.config, job.dataset
    say(to_toml(config))
    say(f"preset {config.preset} on {job.machine} ({why})")
    say(
        f"data: {job.corpus}, {len(dataset.train):,} tokens to train, {len(dataset.val):,} to validate, "
        f"vocabulary of {job.tokenizer.vocab_size:,}"
    )
    say(f"model: {job.model.num_parameters():,} parameters")
    say(f"run folder: {job.run.folder}")
    say(estimate.report(config, job.workers, dataset, job.stream, job.last_step - job.first_step))
    if saved:
        say(f"resuming {saved.folder}")
        if saved.state["machine"] != job.machine:
            say(f"note: this rounds differently than before ({saved.state['machine']})")


def conclude(job: Job, saved_in: Path | None) -> None:
    """Print how the training went, the last sample, and how to get more text."""
    best = job.run.best["val_loss"]
    say(
        f"{job.last_step} steps in {job.training_seconds:.1f} s of training; "
        f"best validation loss {best:.4f}, {job.dataset.bits_per_byte('val', best):.4f} bits per byte, "
        f"peak memory {estimate.peak_memory(job.workers) / 1e6:,.0f} MB"
    )
    say(job.run.sample(job.last_step))
    say(f"saved {saved_in}; more text: python -m tinygpt sample {job.run.folder}")
