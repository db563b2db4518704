"""The loss over a whole text, each of its tokens predicted once: no random estimate."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from autograd import no_grad
from autograd.backend import keep_freed_memory, move
from tinygpt.parallel.ranks import usable_cores

TOKENS_AT_ONCE = 1024  # per thread


def total_loss(model, ids, device="cpu", progress=False):
    """The sum in nats of the losses of ids[1:], each given what comes before it in its window of block_size
    tokens.

    The windows follow each other without overlap, as the training's do on average: what a token is predicted
    from is between 1 and block_size tokens long.
    """
    keep_freed_memory()
    threads = len(usable_cores()) if device == "cpu" else 1
    with ThreadPoolExecutor(threads) as pool, threadpool_limits(1, user_api="blas"):
        losses = pool.map(
            lambda batch: _batch_loss(model, *batch, device), batches(ids, model.config.block_size)
        )
        return sum(
            tqdm(
                losses, total=-(-len(ids) // TOKENS_AT_ONCE), unit="batch", disable=not progress, leave=False
            )
        )


def batches(ids, block_size):
    """Yield inputs and targets (rows, T): all full windows, several at a time, and then what is left as a
    shorter one.
    """
    full = (len(ids) - 1) // block_size * block_size  # tokens in full windows
    # (full) -> (n, block_size)
    inputs, targets = (part.reshape(-1, block_size) for part in (ids[:full], ids[1 : full + 1]))
    rows = max(1, TOKENS_AT_ONCE // block_size)
    for start in range(0, len(inputs), rows):
        yield inputs[start : start + rows], targets[start : start + rows]
    if full + 1 < len(ids):
        yield ids[None, full:-1], ids[None, full + 1 :]  # (1, T)


@no_grad()  # here, because each thread has a switch of its own
def _batch_loss(model, inputs, targets, device):
    inputs, targets = (move(ids.astype(np.int64), device) for ids in (inputs, targets))
    return float(model.loss(inputs, targets)) * targets.size
