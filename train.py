"""Train a GPT on text: `python train.py`, or `python train.py --help` for every setting.

Start reading at `main`; the functions that it calls stand below it. What they share is a Job
(tinygpt/run/job.py). tinygpt/model.py has the model, autograd/ computes its gradients. Under `mpiexec -n 4
python -m mpi4py` four processes, the ranks, run all this, each with its part of every batch; rank 0 alone
prints and writes.
"""

import dataclasses
import math
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from autograd import AdamW, Stream, constant, set_precision, warmup_cosine
from tinygpt import cli
from tinygpt.config import BATCH_SITE, EVALUATION_SITE, TrainConfig, UserError
from tinygpt.generate import generate, prompt_ids
from tinygpt.gpt2 import initial_model
from tinygpt.model import GPT
from tinygpt.parallel.ranks import start_ranks
from tinygpt.parallel.workers import Workers, choose_division
from tinygpt.run import checkpoint, replay, resume
from tinygpt.run.checkpoint import Checkpoint
from tinygpt.run.folder import open_run
from tinygpt.run.interrupt import Interrupt
from tinygpt.run.job import Job, conclude, describe, say
from tinygpt.text import data
from tinygpt.text.tokenizer import Tokenizer
from tinygpt.text.tokenizer_file import choose_tokenizer

LOG_INTERVAL = 10  # steps


def main(argv: list[str] | None = None) -> None:
    """Train until the last step, or until Ctrl-C or SIGTERM; then save."""
    job = prepare(argv)
    no_bar = job.ranks.rank > 0 or not sys.stderr.isatty()
    progress = tqdm(total=job.last_step, initial=job.first_step, unit="step", disable=no_bar)
    with Interrupt(job.ranks) as interrupt:
        for step in range(job.first_step, job.last_step + 1):
            due = step % job.config.eval_interval == 0 or step == job.last_step
            if due and not job.run.evaluated(step):
                evaluate(job, step, interrupt)
                save(job, step)
            if interrupt.on_any_rank() or step == job.last_step:
                break
            began = time.perf_counter()
            loss = train_step(job, step)
            if step % LOG_INTERVAL == 0 or step == job.last_step - 1:
                loss = float(loss)  # waits for a GPU, so only now and then
                if not math.isfinite(loss):
                    raise not_finite(job, loss, step)
                job.run.log("step", step, loss=loss, learning_rate=job.schedule(step))
                progress.set_postfix(loss=f"{loss:.3f}")
            job.training_seconds += time.perf_counter() - began  # the wait for a GPU included
            progress.update()
        folder = save(job, step)
    progress.close()

    if interrupt.on_any_rank():  # asked again, since a signal may have come while it saved
        hint = f"go on with: python train.py --resume {job.run.folder}"
        say(f"stopped after {step} steps; saved {folder}; {hint}")
        job.ranks.barrier()  # the first rank that exits with a code other than 0 ends all others
        sys.exit(interrupt.exit_code)
    conclude(job, folder)


def train_step(job: Job, step: int) -> np.ndarray:
    """One update of the weights. Returns the loss before it: a 0-d array, which a GPU may still compute."""
    for group in job.optimizer.groups:
        group["lr"] = job.schedule(step)
    place = job.stream.at(step=step, site=BATCH_SITE)
    ids, targets = job.dataset.batch("train", job.config.batch_size, place)
    loss = job.workers.loss_and_gradients(ids, targets, job.stream.at(step=step))
    if job.config.grad_clip:
        job.optimizer.clip_grad_norm(job.config.grad_clip)
    job.optimizer.step(job.workers.run)
    return loss


def evaluate(job: Job, step: int, interrupt: Interrupt) -> None:
    """Estimate both losses on fixed batches, write them down, and sample; or give up when interrupted."""
    losses = {}
    for split in ("train", "val"):
        total = 0.0
        for i in range(job.config.eval_iters):
            place = job.stream.at(step=i, site=EVALUATION_SITE)
            ids, targets = job.dataset.batch(split, job.config.batch_size, place)
            total = total + job.workers.loss(ids, targets)
            if interrupt.on_any_rank():
                return
        losses[split] = float(total) / job.config.eval_iters
        if not math.isfinite(losses[split]):
            raise not_finite(job, losses[split], step)

    train, val = losses["train"], losses["val"]
    bits = job.dataset.bits_per_byte("val", val)
    say(f"step {step}: train loss {train:.4f}, val loss {val:.4f}, {bits:.4f} bits per byte")
    values = dict(train_loss=train, val_loss=val, val_bits_per_byte=bits)
    job.run.log("evaluation", step, **values, training_seconds=job.training_seconds)
    job.run.plot_losses()
    if job.config.sample_tokens:
        options = dict(temperature=0.8, seed=job.config.seed, vocab_size=job.tokenizer.vocab_size)
        ids = generate(job.model, prompt_ids(job.tokenizer, ""), job.config.sample_tokens, **options)
        job.run.save_sample(step, job.tokenizer.decode(list(ids)))


def save(job: Job, step: int) -> Path | None:
    """Write a checkpoint, but never one with weights that are not finite. Returns its folder, on rank 0."""
    if not checkpoint.is_finite(job.optimizer):
        raise not_finite(job, math.nan, step)
    if job.ranks.rank > 0:
        return None
    state = {
        "step": step,
        "best": job.run.best,
        "data_sha256": job.dataset.sha256,
        "corpus": job.corpus,
        "training_seconds": job.training_seconds,
        "machine": job.machine,
        "settings": dataclasses.asdict(job.config),
    }
    return checkpoint.save(job.run.folder, job.model, job.optimizer, job.tokenizer, state)


def not_finite(job: Job, loss: float, step: int) -> UserError:
    """The error for a loss that became NaN or infinite by this step. It names the operation that did it."""
    say(f"the loss became {loss} by step {step}; looking for the operation that made it so")
    return UserError(replay.report(job, loss, step, train_step))


def prepare(argv: list[str] | None) -> Job:
    """Build all that training needs, from the arguments of the command line, and print what it is."""
    ranks = start_ranks()
    config, start, device, why = cli.train_config(argv)
    ranks.connect(device)
    config, start = ranks.broadcast_object((config, start))  # in case the ranks were started differently
    saved = start.saved  # the checkpoint to resume from, or None

    if config.data:
        corpus, text = ranks.on_first_rank(data.load_text, config.data)
    else:
        corpus, text = ranks.on_first_rank(data.default_text)
        config = dataclasses.replace(config, data=corpus)
    if saved:
        resume.check_data(saved, corpus, text, start.force)
        tokenizer = ranks.on_first_rank(saved.tokenizer)
    else:
        tokenizer = ranks.on_first_rank(choose_tokenizer, config.tokenizer, config.vocab_size, text)
    dataset = data.Dataset(text, tokenizer, config.block_size, ranks).to(device)

    set_precision(config.precision)
    model, optimizer = build_model(config, tokenizer, device, saved)
    schedule = constant(config.learning_rate)
    if config.min_lr >= 0:
        schedule = warmup_cosine(config.learning_rate, config.warmup_steps, config.max_steps, config.min_lr)
    threads, micro_batch = choose_division(config, model.config, device, ranks)
    workers = Workers(model, optimizer, threads, micro_batch, ranks)
    workers.broadcast_weights()
    run = open_run(ranks, config, corpus, start.overwrite, saved)
    first_step = saved.state["step"] if saved else 0
    job = Job(
        config=config, ranks=ranks, machine=workers.machine(device), corpus=corpus, dataset=dataset,
        tokenizer=tokenizer, model=model, optimizer=optimizer, schedule=schedule, workers=workers,
        stream=Stream(config.seed), run=run,
        first_step=first_step,
        last_step=max(first_step, min(config.stop_after or config.max_steps, config.max_steps)),
        training_seconds=saved.state["training_seconds"] if saved else 0.0,
    )  # fmt: skip
    describe(job, why, saved)
    return job


def build_model(
    config: TrainConfig, tokenizer: Tokenizer, device: str, saved: Checkpoint | None
) -> tuple[GPT, AdamW]:
    """The model on its device, and its optimizer, with what the checkpoint holds of both."""
    model = initial_model(config, tokenizer, saved).to(device)
    model.transformer.recompute_blocks = config.activation_checkpointing
    # AdamW moves all gradients into one flat array, and the parameters of each group into another. From here
    # on the data and grad of every parameter are views of these. So the order matters: `to`, which makes
    # other arrays, comes before; `restore`, which fills these arrays, and Workers, which share them, after.
    optimizer = AdamW(
        model.parameter_groups(config.weight_decay, config.decay_vectors),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
    )
    if saved:
        saved.restore(model, optimizer)
    return model, optimizer


if __name__ == "__main__":
    cli.exit_with_code(main)
