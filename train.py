"""Train a GPT on text: `python train.py`, or `python train.py --help` for every setting.

Read it from top to bottom; tinygpt/model.py has the model, autograd/ what computes its gradients.
"""

import math
import sys
import time

from tqdm import tqdm

from autograd import AdamW, Stream, clip_grad_norm, constant, warmup_cosine
from tinygpt import checkpoint, cli, data, estimate, parallel
from tinygpt.config import UserError, to_toml
from tinygpt.generate import generate
from tinygpt.model import GPT
from tinygpt.run import Run
from tinygpt.tokenizer import CharTokenizer

LOG_INTERVAL = 10  # steps


def main(argv=None):
    config, overwrite, device, why = cli.train_config(argv)
    corpus, text = data.load_text(config.data) if config.data else data.default_text()
    tokenizer = CharTokenizer(text)
    dataset = data.Dataset(text, tokenizer, config.block_size)

    model = GPT(config.model_config(tokenizer.vocab_size), config.seed).to(device)
    model.transformer.recompute_blocks = config.activation_checkpointing
    optimizer = AdamW(
        model.parameter_groups(config.weight_decay, config.decay_vectors),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
    )
    schedule = constant(config.learning_rate)
    if config.min_lr >= 0:
        schedule = warmup_cosine(config.learning_rate, config.warmup_steps, config.max_steps, config.min_lr)
    threads, micro_batch = parallel.choose(config, model.config, device)
    workers = parallel.Workers(model, optimizer, threads, micro_batch)
    run = Run(config, corpus, overwrite)
    stream = Stream(config.seed)

    print(to_toml(config))
    print(f"preset {config.preset} on {device} ({why}), {threads} threads, micro-batches of {micro_batch}")
    print(f"data: {corpus}, {len(dataset.train):,} tokens to train, {len(dataset.val):,} to validate, ", end="")
    print(f"vocabulary of {tokenizer.vocab_size:,}")
    print(f"model: {model.num_parameters():,} parameters")
    print(f"run folder: {run.folder}", flush=True)
    print(estimate.report(config, workers, dataset, stream), flush=True)

    def evaluate(step):
        """Estimate both losses on fixed batches, write them down, and sample."""
        losses = {}
        for split in ("train", "val"):
            batches = (
                dataset.batch(split, config.batch_size, stream.at(step=i, site=data.EVALUATION_SITE))
                for i in range(config.eval_iters)
            )
            losses[split] = finite(float(sum(workers.loss(*batch) for batch in batches)) / config.eval_iters, step)
        say(f"step {step}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
        run.log("evaluation", step, train_loss=losses["train"], val_loss=losses["val"], training_seconds=training_seconds)
        run.plot_losses()
        if config.sample_tokens:
            start = list(cli.prompt_ids(tokenizer, ""))
            sample = generate(model, start, config.sample_tokens, temperature=0.8, seed=config.seed)
            run.save_sample(step, tokenizer.decode(list(sample)))
        return losses["val"]

    def save(step):
        state = {"step": step, "best_val_loss": best, "data_sha256": dataset.sha256, "corpus": corpus}
        return checkpoint.save(run.folder, model, optimizer, tokenizer, state)

    best, training_seconds = float("inf"), 0.0
    last_step = min(config.stop_after or config.max_steps, config.max_steps)
    progress = tqdm(total=last_step, unit="step", disable=not sys.stderr.isatty())
    say = progress.write if not progress.disable else lambda line: print(line, flush=True)
    for step in range(last_step):
        if step % config.eval_interval == 0:
            best = min(best, evaluate(step))
        began = time.perf_counter()
        for group in optimizer.groups:
            group["lr"] = schedule(step)
        ids, targets = dataset.batch("train", config.batch_size, stream.at(step=step, site=data.BATCH_SITE))
        loss = workers.loss_and_gradients(ids, targets, stream.at(step=step))
        if config.grad_clip:
            clip_grad_norm(model.parameters(), config.grad_clip)
        optimizer.step(workers.run)
        training_seconds += time.perf_counter() - began
        if step % LOG_INTERVAL == 0 or step == last_step - 1:  # not every step: on a GPU, looking means waiting
            loss = finite(float(loss), step)
            run.log("step", step, loss=loss, learning_rate=schedule(step))
            progress.set_postfix(loss=f"{loss:.3f}")
        progress.update()
    best = min(best, evaluate(last_step))
    progress.close()

    folder = save(last_step)
    print(f"{last_step} steps in {training_seconds:.1f} s of training; best validation loss {best:.4f}, ", end="")
    print(f"peak memory {estimate.peak_memory() / 1e6:,.0f} MB")
    if config.sample_tokens:
        print((run.folder / "samples" / f"step_{last_step:06d}.txt").read_text(encoding="utf-8"))
    print(f"saved {folder}; more text: python -m tinygpt sample {run.folder}")


def finite(loss, step):
    """The loss itself, if it is a number to go on with."""
    if not math.isfinite(loss):
        raise UserError(f"the loss became {loss} by step {step}; try a lower --learning-rate or --grad-clip 1")
    return loss


if __name__ == "__main__":
    cli.exit_with_code(main)
