"""The first 20 steps of the reference configuration, ours beside PyTorch's: `python -m benchmarks.agreement`.

Same initial weights, same batches, no dropout (the two draw their masks differently), float32. Needs PyTorch.
"""

import argparse
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
    args = parser.parse_args()

    config = resolve({"preset": "shakespeare", "dropout": 0.0})
    _, text = load_text(args.data)
    tokenizer = CharTokenizer(text)
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
    for step in range(args.steps):
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
