"""The first 20 steps of the reference configuration, ours beside PyTorch's: `python -m benchmarks.agreement`.

Same initial weights, same batches, no dropout (the two draw their masks differently), float32. Needs PyTorch.

`--start` tells instead how the script of the published run began (see reference_run.py). From its seed it
draws the same weights and batches, and prints the validation loss before the first step in three forms. That
of the published log is 4.2823.
"""

import argparse
import dataclasses
import time

import torch

from autograd import AdamW, Stream
from benchmarks import peers
from tinygpt.config import BATCH_SITE, resolve
from tinygpt.model import GPT
from tinygpt.parallel.workers import Workers, choose_division
from tinygpt.text import data
from tinygpt.text.corpus import load_text
from tinygpt.text.tokenizer import CharTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="shakespeare", help="a corpus by name or a UTF-8 file")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--start", action="store_true", help="how the published run began")
    parser.add_argument("--batches", type=int, default=200, help="with --start: of those 200")
    args = parser.parse_args()
    config = resolve({"preset": "shakespeare", "dropout": 0.0})
    _, text = load_text(args.data)
    tokenizer = CharTokenizer(text)
    if args.start:
        published_start(config, text, tokenizer, args.batches)
    else:
        side_by_side(config, text, tokenizer, args.steps)


def published_start(config, text, tokenizer, batches):
    """Print the first validation loss, from the weights and batches that PyTorch draws from the seed."""
    shape, ids = config.model_config(tokenizer.vocab_size), torch.tensor(tokenizer.encode(text))
    end = int(0.9 * len(ids))  # of what it trains on
    forms = {
        "PyTorch's initial weights, scores over √C": shape,
        "PyTorch's initial weights, scores over √D": dataclasses.replace(shape, scores_over_channels=False),
        "N(0, 0.02²), scores over √C": dataclasses.replace(shape, torch_init=False),
    }
    for name, form in forms.items():
        torch.manual_seed(config.seed)
        model = peers.TorchGPT(form, peers.HeadByHead).eval()
        if not form.torch_init:
            model.apply(_init_as_gpt2)
        for _ in range(200):  # the batches of the train loss, which it draws first
            torch.randint(end - config.block_size, (config.batch_size,))
        loss = _mean_loss(model, ids[end:], config, batches)
        print(f"{name}: {loss:.4f}", flush=True)


def _init_as_gpt2(module):
    if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
        torch.nn.init.normal_(module.weight, 0.0, 0.02)
    if getattr(module, "bias", None) is not None:
        torch.nn.init.zeros_(module.bias)


@torch.no_grad()
def _mean_loss(model, ids, config, batches):
    """Over so many of 200 batches, evenly spread."""
    losses, length = [], config.block_size
    for number in range(200):
        starts = torch.randint(len(ids) - length, (config.batch_size,))
        if number % (200 // batches) == 0:
            windows = torch.stack([ids[start : start + length + 1] for start in starts])  # (B, T + 1)
            losses.append(model(windows[:, :-1], windows[:, 1:]).item())
    return sum(losses) / len(losses)


def side_by_side(config, text, tokenizer, steps):
    """Print the losses of both programs, step by step."""
    dataset = data.Dataset(text, tokenizer, config.block_size)
    ours = GPT(config.model_config(tokenizer.vocab_size), config.seed)
    theirs = peers.TorchGPT(ours.config, peers.HeadByHead)
    theirs.copy_weights(ours)

    # this preset lets biases and norms decay too, as PyTorch's default does
    groups = ours.parameter_groups(config.weight_decay, config.decay_vectors)
    our_optimizer = AdamW(groups, lr=config.learning_rate)
    their_optimizer = torch.optim.AdamW(
        theirs.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    threads, micro_batch = choose_division(config, ours.config)
    workers = Workers(ours, our_optimizer, threads, micro_batch)

    worst = 0.0
    for step in range(steps):
        ids, targets = dataset.batch("train", config.batch_size, Stream(config.seed, step, BATCH_SITE))
        began = time.perf_counter()
        loss = float(workers.loss_and_gradients(ids, targets, None))
        workers.update()
        seconds = time.perf_counter() - began

        their_optimizer.zero_grad()
        their_loss = theirs(torch.tensor(ids), torch.tensor(targets))
        their_loss.backward()
        their_optimizer.step()
        worst = max(worst, abs(loss - their_loss.item()))
        print(
            f"step {step:2}: ours {loss:.6f} in {seconds:.2f} s, PyTorch {their_loss.item():.6f}", flush=True
        )
    print(f"largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
