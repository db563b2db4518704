"""Train a GPT on text: `python train.py`, or `python train.py --help` for every setting.

Read it from top to bottom; tinygpt/model.py has the model, autograd/ what computes its gradients. Under
`mpiexec -n 4 python -m mpi4py` four processes, the ranks, run all this, each with its part of every batch;
rank 0 alone prints and writes.
"""

import dataclasses
import math
import sys
import time

from tqdm import tqdm

from autograd import AdamW, Stream, constant, warmup_cosine
from autograd.cuda.products import set_precision
from tinygpt import cli
from tinygpt.config import BATCH_SITE, EVALUATION_SITE, UserError, to_toml
from tinygpt.generate import generate, prompt_ids
from tinygpt.gpt2 import initial_model
from tinygpt.parallel import estimate
from tinygpt.parallel.ranks import start_ranks
from tinygpt.parallel.workers import Workers, choose_division
from tinygpt.run import checkpoint, replay, resume
from tinygpt.run.folder import open_run
from tinygpt.run.interrupt import Interrupt
from tinygpt.text import data
from tinygpt.text.tokenizer import choose_tokenizer

LOG_INTERVAL = 10  # steps


def main(argv=None):
    ranks = start_ranks()  # of a process on its own there is one
    config, start, device, why = cli.train_config(argv)
    ranks.join(device)
    config, start = ranks.once(lambda: (config, start))
    saved = start.saved  # the checkpoint to resume from, or None
    corpus, text = ranks.once(lambda: data.load_text(config.data) if config.data else data.default_text())
    config = dataclasses.replace(config, data=config.data or corpus)
    if saved:
        resume.check_data(saved, corpus, text, start.force)
    tokenizer = ranks.once(
        lambda: saved.tokenizer() if saved else choose_tokenizer(config.tokenizer, config.vocab_size, text)
    )
    dataset = data.Dataset(text, tokenizer, config.block_size, ranks).to(device)

    set_precision(config.precision)
    model = initial_model(config, tokenizer, saved).to(device)
    model.transformer.recompute_blocks = config.activation_checkpointing
    optimizer = AdamW(
        model.parameter_groups(config.weight_decay, config.decay_vectors),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
    )
    schedule = constant(config.learning_rate)
    if config.min_lr >= 0:
        schedule = warmup_cosine(config.learning_rate, config.warmup_steps, config.max_steps, config.min_lr)
    threads, micro_batch = choose_division(config, model.config, device, ranks)
    workers = Workers(model, optimizer, threads, micro_batch, ranks)
    if saved:
        saved.restore(model, optimizer)
    workers.start_alike()
    run = open_run(ranks, config, corpus, start.overwrite, saved)
    stream = Stream(config.seed)
    first_step, training_seconds = (
        (saved.state["step"], saved.state["training_seconds"]) if saved else (0, 0.0)
    )
    last_step = max(first_step, min(config.stop_after or config.max_steps, config.max_steps))

    print(to_toml(config))
    machine = f"{device}, {ranks.name}{threads} threads, micro-batches of {micro_batch}"
    print(f"preset {config.preset} on {machine} ({why})")
    print(
        f"data: {corpus}, {len(dataset.train):,} tokens to train, {len(dataset.val):,} to validate, ", end=""
    )
    print(f"vocabulary of {tokenizer.vocab_size:,}")
    print(f"model: {model.num_parameters():,} parameters")
    print(f"run folder: {run.folder}", flush=True)
    print(estimate.report(config, workers, dataset, stream, last_step - first_step), flush=True)
    if saved:
        print(f"resuming {saved.folder}", flush=True)
        if saved.state["machine"] != machine:
            print(f"note: this rounds differently than before ({saved.state['machine']})", flush=True)

    def train_step(step):
        """One update of the weights.

        Returns the loss before it, which is not looked at: on a GPU that means waiting.
        """
        for group in optimizer.groups:
            group["lr"] = schedule(step)
        ids, targets = dataset.batch("train", config.batch_size, stream.at(step=step, site=BATCH_SITE))
        loss = workers.loss_and_gradients(ids, targets, stream.at(step=step))
        if config.grad_clip:
            optimizer.clip_grad_norm(config.grad_clip)
        optimizer.step(workers.run)
        return loss

    def evaluate(step):
        """Estimate both losses on fixed batches, write them down, and sample; or give up when interrupted."""
        losses = {}
        for split in ("train", "val"):
            total = 0.0
            for i in range(config.eval_iters):
                batch = dataset.batch(split, config.batch_size, stream.at(step=i, site=EVALUATION_SITE))
                total = total + workers.loss(*batch)
                if interrupted:
                    return
            losses[split] = finite(float(total) / config.eval_iters, step)
        bits = dataset.bits_per_byte("val", losses["val"])
        say(
            f"step {step}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}, {bits:.4f} bits "
            "per byte"
        )
        values = dict(train_loss=losses["train"], val_loss=losses["val"], val_bits_per_byte=bits)
        run.log("evaluation", step, **values, training_seconds=training_seconds)
        run.plot_losses()
        if config.sample_tokens:
            options = dict(temperature=0.8, seed=config.seed, vocab_size=tokenizer.vocab_size)
            sample = generate(model, prompt_ids(tokenizer, ""), config.sample_tokens, **options)
            run.save_sample(step, tokenizer.decode(list(sample)))

    def save(step):
        """Write a checkpoint, but never one with weights that are no numbers."""
        finite(0.0 if checkpoint.is_finite(optimizer) else math.nan, step)
        if ranks.rank:
            return None
        state = {"step": step, "best": run.best, "data_sha256": dataset.sha256, "corpus": corpus}
        state |= {
            "training_seconds": training_seconds,
            "machine": machine,
            "settings": dataclasses.asdict(config),
        }
        return checkpoint.save(run.folder, model, optimizer, tokenizer, state)

    def finite(loss, step):
        """The loss itself, if it is a number to go on with; else an error that tells where it went wrong."""
        if math.isfinite(loss):
            return loss
        say(f"the loss became {loss} by step {step}; looking for the operation that made it so")
        raise UserError(
            replay.report(
                loss, step, run.folder, workers, optimizer, train_step if config.detect_anomaly else None
            )
        )

    progress = tqdm(
        total=last_step, initial=first_step, unit="step", disable=ranks.rank > 0 or not sys.stderr.isatty()
    )
    say = progress.write if not progress.disable else lambda line: print(line, flush=True)
    with Interrupt(ranks) as interrupted:
        for step in range(first_step, last_step + 1):
            if (step % config.eval_interval == 0 or step == last_step) and not run.evaluated(step):
                evaluate(step)
                save(step)
            if interrupted or step == last_step:
                break
            began = time.perf_counter()
            loss = train_step(step)
            if step % LOG_INTERVAL == 0 or step == last_step - 1:
                loss = finite(float(loss), step)
                run.log("step", step, loss=loss, learning_rate=schedule(step))
                progress.set_postfix(loss=f"{loss:.3f}")
            # here, since a GPU may have been waited for just now
            training_seconds += time.perf_counter() - began
            progress.update()
        folder = save(step)
    progress.close()

    if interrupted:
        print(
            f"stopped after {step} steps; saved {folder}; go on with: python train.py --resume {run.folder}",
            flush=True,
        )
        ranks.part()
        sys.exit(interrupted.exit_code)
    print(
        f"{last_step} steps in {training_seconds:.1f} s of training; best validation loss "
        f"{run.best['val_loss']:.4f}, ",
        end="",
    )
    print(f"{dataset.bits_per_byte('val', run.best['val_loss']):.4f} bits per byte, ", end="")
    print(f"peak memory {estimate.peak_memory(workers) / 1e6:,.0f} MB")
    print(run.sample(last_step))
    print(f"saved {folder}; more text: python -m tinygpt sample {run.folder}")


if __name__ == "__main__":
    cli.exit_with_code(main)
