"""The first 20 steps of the reference configuration, ours beside PyTorch's: `python -m benchmarks.agreement`.

Same initial weights, same batches, no dropout (the two draw their masks differently), float32. Needs PyTorch.
"""

import argparse
import time

import torch

from autograd import AdamW, Stream
from tests.support import torch_models
from tinygpt.config import BATCH_SITE, resolve
from tinygpt.model import GPT
from tinygpt.parallel.workers import Workers, choose_division
from tinygpt.text import data
from tinygpt.text.tokenizer import CharTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="shakespeare", help="a corpus by name or a UTF-8 file")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    config = resolve({"preset": "shakespeare", "dropout": 0.0})
    _, text = data.load_text(args.data)
    tokenizer = CharTokenizer(text)
    dataset = data.Dataset(text, tokenizer, config.block_size)
    model = GPT(config.model_config(tokenizer.vocab_size), config.seed)
    weights = torch_models.parameters_of(model)
    ours = AdamW(model.parameter_groups(config.weight_decay, config.decay_vectors), lr=config.learning_rate)
    theirs = torch.optim.AdamW(weights.values(), lr=config.learning_rate)
    workers = Workers(model, ours, *choose_division(config, model.config))
    worst = 0.0
    for step in range(args.steps):
        ids, targets = dataset.batch("train", config.batch_size, Stream(config.seed, step, BATCH_SITE))
        began = time.perf_counter()
        loss = workers.loss_and_gradients(ids, targets, None)
        ours.step(workers.run)
        seconds = time.perf_counter() - began
        theirs.zero_grad()
        torch_loss = torch_models.loss(weights, model.config, ids, targets)
        torch_loss.backward()
        theirs.step()
        worst = max(worst, abs(loss - torch_loss.item()))
        print(
            f"step {step:2}: ours {loss:.6f} in {seconds:.2f} s, PyTorch {torch_loss.item():.6f}", flush=True
        )
    print(f"largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
