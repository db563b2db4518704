"""The loss over a whole text. Each of its tokens is predicted once, so nothing about it is random."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from autograd import no_grad
from autograd.backend import keep_freed_memory, move
from tinygpt.model import GPT
from tinygpt.parallel.ranks import ALONE

TOKENS_AT_ONCE = 1024  # per thread


def total_loss(model: GPT, ids: np.ndarray, device: str = "cpu", progress: bool = False) -> float:
    """The sum in nats of the losses of ids[1:], each predicted from what comes before it in its window.

    The windows have block_size tokens and follow each other without overlap. So a token is predicted from 1
    to block_size others, as in training.
    """

    def batch_loss(batch):
        inputs, targets = batch
        return _batch_loss(model, inputs, targets, device)

    keep_freed_memory()
    n_batches = -(-len(ids) // TOKENS_AT_ONCE)  # rounded up
    with ThreadPoolExecutor(ALONE.cores()) as pool, threadpool_limits(1, user_api="blas"):
        # A GPU was chosen for this thread; the pool's would work on GPU 0.
        on_threads = pool.map if device == "cpu" else map
        losses = on_threads(batch_loss, batches(ids, model.config.block_size))
        return sum(tqdm(losses, total=n_batches, unit="batch", disable=not progress, leave=False))


def batches(ids: np.ndarray, block_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield inputs and targets (rows, T): all full windows, several at a time; the rest as a shorter one."""
    full = (len(ids) - 1) // block_size * block_size  # tokens in full windows
    inputs = ids[:full].reshape(-1, block_size)  # (full) -> (n, block_size)
    targets = ids[1 : full + 1].reshape(-1, block_size)
    rows = max(1, TOKENS_AT_ONCE // block_size)
    for start in range(0, len(inputs), rows):
        yield inputs[start : start + rows], targets[start : start + rows]
    if full + 1 < len(ids):
        yield ids[None, full:-1], ids[None, full + 1 :]  # (1, T)


@no_grad()  # here, because each thread has a switch of its own
def _batch_loss(model, inputs, targets, device):
    inputs, targets = (move(ids.astype(np.int64), device) for ids in (inputs, targets))
    return float(model.loss(inputs, targets)) * targets.size
