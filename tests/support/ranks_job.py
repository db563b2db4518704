"""What test_ranks.py runs on several ranks.

Run it by `mpiexec -n N python -m mpi4py -m tests.support.ranks_job RESULT [DEVICE]`. It writes what rank 0
computed, and every rank's hash of the weights, into the file RESULT (.npz).
"""

import contextlib
import hashlib
import sys

import numpy as np

from autograd import AdamW, Stream, clip_grad_norm, warmup_cosine
from autograd.backend import to_numpy
from tinygpt.config import GPTConfig
from tinygpt.model import GPT
from tinygpt.parallel.ranks import start_ranks
from tinygpt.parallel.workers import Workers
from tinygpt.text.data import Dataset
from tinygpt.text.tokenizer import CharTokenizer

ROWS, STEPS = 8, 50
TEXT = "".join(chr(97 + i * i % 13) for i in range(400))


def train(ranks, dtype="float32", device="cpu", threads=1, micro_batch=2, step_rules=contextlib.nullcontext):
    """A short run with all that a step has.

    Returns its losses, gradient norms, first gradient, and a hash of the final weights.
    """
    dataset = Dataset(TEXT, CharTokenizer(TEXT), 12, ranks)
    config = GPTConfig(vocab_size=13, block_size=12, n_layer=2, n_head=2, n_embd=16, dropout=0.3)
    model = GPT(config, seed=ranks.rank)  # other weights on each rank, until broadcast_weights()
    for p in model.parameters():
        p.data = p.data.astype(dtype)
    optimizer = AdamW(model.to(device).parameter_groups(0.1), lr=1e-2)
    workers = Workers(model, optimizer, threads, micro_batch, ranks)
    workers.broadcast_weights()
    schedule, stream, first = warmup_cosine(1e-2, 5, STEPS, 1e-3), Stream(7), None
    losses, norms = [], []
    for step in range(STEPS):
        for group in optimizer.groups:
            group["lr"] = schedule(step)
        ids, targets = dataset.batch("train", ROWS, stream.at(step=step, site=60_000))
        with step_rules():
            losses.append(workers.loss_and_gradients(ids, targets, stream.at(step=step)))
            first = optimizer.gradient.copy() if step == 0 else first
            norms.append(clip_grad_norm(model.parameters(), 0.3))
            workers.update()
    losses.append(workers.loss(*dataset.batch("val", ROWS, stream)))
    weights = b"".join(to_numpy(p.data).tobytes() for p in model.parameters())
    numbers = {"losses": [float(x) for x in losses], "norms": [float(x) for x in norms]}
    return numbers | {"gradient": to_numpy(first), "hash": hashlib.sha256(weights).hexdigest()}


def main(result, device="cpu"):
    ranks = start_ranks()
    if device == "cpu":
        answers = {
            dtype: train(ranks, dtype, micro_batch=ROWS // ranks.size) for dtype in ("float32", "float64")
        }
    else:
        answers = {"float32": train_on_stand_in(ranks)}
    found = {"cores": ranks.cores()}
    for dtype, answer in answers.items():
        answer["hash"] = ranks.communicator.allgather(answer["hash"])
        found |= {f"{dtype} {name}": value for name, value in answer.items()}
    if ranks.rank == 0:
        np.savez(result, **found)


def train_on_stand_in(ranks):
    """The same through the GPU path and NCCL, without one wait for the device inside a step."""
    from tests.stand_ins import strict_cupy, strict_nccl

    with strict_nccl.installed():
        ranks.connect("cuda")
        return train(ranks, device="cuda", step_rules=strict_cupy.no_waiting) | {"calls": strict_nccl.calls}


if __name__ == "__main__":
    main(*sys.argv[1:])
