"""Train a GPT on text: `python train.py`, or `python train.py --help` for every setting.

Start reading at `main`; the functions that it calls stand below it. What they share is a Job
(tinygpt/run/job.py). tinygpt/model.py has the model, autograd/ computes its gradients. Under `mpiexec -n 4
python -m mpi4py` four processes, the ranks, run all this, each with its part of every batch; rank 0 alone
prints and writes.
"""

import dataclasses
import math
import time
from pathlib import Path

import tinygpt  # first: if another import fails, this makes one line of it  # noqa: F401  # isort: skip

import numpy as np

from autograd import AdamW, Stream, set_precision
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
from tinygpt.run.progress import Progress
from tinygpt.text import data
from tinygpt.text.corpus import default_text, load_documents
from tinygpt.text.tokenizer import Tokenizer
from tinygpt.text.tokenizer_folder import choose_tokenizer

LOG_INTERVAL = 10  # steps


def main(argv: list[str] | None = None) -> None:
    """Train until the last step, or until Ctrl-C or SIGTERM; then save."""
    job = prepare(argv)
    progress = Progress(job)
    with Interrupt(job.ranks) as interrupt:
        for step in range(job.first_step, job.last_step + 1):
            due = job.evaluates_at(step)
            if due and not job.run.evaluated(step):
                job.catch_up()
                evaluate(job, step, interrupt, progress)
                save(job, step)
                job.run.plot_losses()
            if interrupt.on_any_rank() or step == job.last_step or (due and job.is_out_of_patience()):
                break
            began = time.perf_counter()
            loss = train_step(job, step)
            job.training_seconds += time.perf_counter() - began
            if step % LOG_INTERVAL == 0 or step == job.last_step - 1:
                job.catch_up()  # only now and then: between two steps a GPU need not wait for us
                loss = float(loss)
                if not math.isfinite(loss):
                    raise not_finite(job, loss, step)
                job.run.log("step", step, loss=loss, learning_rate=job.schedule(step))
                progress.logged(step + 1, loss)
            progress.step_done(step, loss)
        if not due:  # else it did before the evaluation
            job.catch_up()
        folder = save(job, step)
    progress.close()

    if interrupt.on_any_rank():  # asked again, since a signal may have come while it saved
        hint = f"go on with: python train.py --resume {job.run.folder}"
        say(f"stopped after {step} steps; saved {folder}; {hint}")
        job.ranks.barrier()  # the first rank that exits with a code other than 0 ends all others
        interrupt.exit()
    conclude(job, step, folder)


def train_step(job: Job, step: int) -> np.ndarray:
    """One update of the weights. Returns the loss before it: a 0-d array, which a GPU may still compute."""
    for group in job.optimizer.groups:
        group["lr"] = job.schedule(step)
    place = job.stream.at(step=step, site=BATCH_SITE)
    ids, targets = job.dataset.batch("train", job.config.batch_size, place)
    loss = job.workers.loss_and_gradients(ids, targets, job.stream.at(step=step))
    if job.config.grad_clip:
        job.optimizer.clip_grad_norm(job.config.grad_clip)
    job.workers.update()
    return loss


def evaluate(job: Job, step: int, interrupt: Interrupt, progress: Progress) -> None:
    """Estimate both losses on fixed batches, write them down, and sample; or give up when interrupted."""
    losses = {}
    for split in ("train", "val"):
        total = 0.0
        for i in range(job.config.eval_iters):
            place = job.stream.at(step=i, site=EVALUATION_SITE)
            ids, targets = job.dataset.batch(split, job.config.batch_size, place)
            total = total + job.workers.loss(ids, targets)
            progress.evaluating(split, i)
            if interrupt.on_any_rank():
                return
        losses[split] = float(total) / job.config.eval_iters
        if not math.isfinite(losses[split]):
            raise not_finite(job, losses[split], step)

    train, val = losses["train"], losses["val"]
    bits = job.dataset.bits_per_byte("val", val)
    say(f"step {step}: train loss {train:.4f}, val loss {val:.4f}, {bits:.4f} bits per byte")
    values = dict(train_loss=train, val_loss=val, val_bits_per_byte=bits)
    values |= dict(training_seconds=job.training_seconds, tokens_per_second=job.tokens_per_second(step))
    job.run.log("evaluation", step, **values)
    if job.config.sample_tokens:
        options = dict(vocab_size=job.tokenizer.vocab_size, end_ids=job.tokenizer.end_ids)
        options |= dict(temperature=0.8, seed=job.config.seed)
        ids = generate(job.model, prompt_ids(job.tokenizer, ""), job.config.sample_tokens, **options)
        job.run.save_sample(step, job.tokenizer.decode(list(ids)))


def save(job: Job, step: int) -> Path | None:
    """Write a checkpoint, but never one with weights that are not finite. Returns its folder, on rank 0."""
    if not checkpoint.is_finite(job.optimizer):
        raise not_finite(job, math.nan, step)
    if job.ranks.rank > 0:
        return None
    return checkpoint.save(job.run.folder, job.model, job.optimizer, job.tokenizer, job.state(step))


def not_finite(job: Job, loss: float, step: int) -> UserError:
    """The error for a loss that became NaN or infinite by this step. It names the operation that did it."""
    say(f"the loss became {loss} by step {step}; looking for the operation that made it so")
    return UserError(replay.report(job, loss, step, train_step))


def prepare(argv: list[str] | None) -> Job:
    """Build all that training needs, from the arguments of the command line, and print what it is."""
    ranks = start_ranks()
    config, start, device, why = cli.train_config(argv, ranks.local_rank)
    ranks.connect(device)
    config, start = ranks.broadcast_object((config, start))  # in case the ranks were started differently
    saved = start.saved  # the checkpoint to resume from, or None

    if config.data:
        how = (config.encoding, config.text_key, start.notes.append)
        corpus, documents = ranks.on_first_rank(load_documents, config.data, *how)
    else:
        corpus, text = ranks.on_first_rank(default_text)
        documents = [text]
    config = dataclasses.replace(config, data=resume.lasting(config.data) or corpus)
    if saved:
        resume.check_data(saved, corpus, documents, start.force)
        tokenizer = ranks.on_first_rank(saved.tokenizer)
    else:
        tokenizer = ranks.on_first_rank(choose_tokenizer, config.tokenizer, config.vocab_size, documents)
    dataset = data.Dataset(documents, tokenizer, config.block_size, ranks).to(device)

    set_precision(config.precision)
    model, optimizer = build_model(config, tokenizer, device, saved)
    threads, micro_batch = choose_division(config, model.config, device, ranks)
    workers = Workers(model, optimizer, threads, micro_batch, ranks)
    workers.broadcast_weights()
    run = open_run(ranks, config, corpus, start.overwrite, saved, start.settings_file)
    first_step = saved.state["step"] if saved else 0
    job = Job(
        config=config, ranks=ranks, machine=workers.machine(device), corpus=corpus, dataset=dataset,
        tokenizer=tokenizer, model=model, optimizer=optimizer, schedule=config.schedule(), workers=workers,
        stream=Stream(config.seed), run=run,
        first_step=first_step,
        last_step=max(first_step, min(config.stop_after or config.max_steps, config.max_steps)),
        training_seconds=saved.state["training_seconds"] if saved else 0.0,
    )  # fmt: skip
    describe(job, why, saved, start.notes)
    return job


def build_model(
    config: TrainConfig, tokenizer: Tokenizer, device: str, saved: Checkpoint | None
) -> tuple[GPT, AdamW]:
    """The model on its device, and its optimizer, with what the checkpoint holds of both."""
    model = initial_model(config, tokenizer, saved).to(device)
    model.transformer.recompute_blocks = config.activation_checkpointing
    # The optimizer's moments are arrays on the model's device, so `to` comes first.
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
