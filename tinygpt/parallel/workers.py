"""Micro-batches over threads and ranks: how a step uses all cores of a machine, and all machines of a job.

A thread, a process and a GPU do the same here: each has a replica of the model and adds its gradients to
those of the others. Each rank (ranks.py; usually there is only one) computes an equal part of the batch's
rows. It cuts them into micro-batches, small enough to stay in the processor's cache, for its worker threads
to take in turn. Each thread has a replica that shares the weights but has gradients of its own. NumPy lets
other threads run while it computes, so the threads work at the same time, elementwise work included, each
with one BLAS thread.

What a row draws (its text, its dropout masks) depends on its number in the whole batch, so it is the same
however the batch is divided. Gradients are added in a fixed order: the same numbers of ranks and threads and
the same micro-batch give the same bits.
"""

import copy
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from autograd import AdamW, Stream, no_grad
from autograd.backend import keep_freed_memory
from autograd.optim import flatten
from tinygpt.config import GPTConfig, TrainConfig, UserError
from tinygpt.parallel import estimate
from tinygpt.parallel.estimate import available_memory, training_memory
from tinygpt.parallel.ranks import ALONE, Ranks


def replica_of(model):
    """A model with the same weights (shared memory) and gradients of its own."""
    own = {}
    for p in model.parameters():
        own[id(p)] = twin = p.detach()
        twin.requires_grad = True
    return copy.deepcopy(model, own)  # which takes these Tensors instead of copying the model's


class Workers:
    """Computes losses and gradients of batches, with `threads` threads on each rank.

    Each thread takes `micro_batch` sequences at a time. The workers flatten the optimizer's arrays: from here
    on the data and grad of every parameter are views of these. So the model must be on its device by then.
    """

    def __init__(self, model, optimizer: AdamW, threads: int, micro_batch: int, ranks: Ranks = ALONE) -> None:
        self.optimizer, self.threads, self.micro_batch, self.ranks = optimizer, threads, micro_batch, ranks
        optimizer.flatten()
        self.replicas = [model] + [replica_of(model) for _ in range(threads - 1)]
        self.gradients = [optimizer.gradient]  # of each worker, flat
        for replica in self.replicas[1:]:
            ids = [id(p) for p in model.parameters()]
            twins = dict(zip(ids, replica.parameters(), strict=True))
            self.gradients.append(flatten([twins[id(p)] for p in optimizer.parameters()], "grad"))
        self.pool = ThreadPoolExecutor(threads)
        keep_freed_memory()
        threadpool_limits(max(1, ranks.cores() // threads), user_api="blas")

    def machine(self, device: str) -> str:
        """What computes and how the work is divided, in words. Another division rounds differently."""
        ranks = f"{self.ranks.size} ranks, " if self.ranks.size > 1 else ""
        return f"{device}, {ranks}{self.threads} threads, micro-batches of {self.micro_batch}"

    def broadcast_weights(self) -> None:
        """Give all ranks rank 0's weights and moments: another machine may have drawn or read other bits.

        All ranks must call it together.
        """
        for group in self.optimizer.groups:
            for name in ("data", "m", "v"):
                self.ranks.broadcast(group[name])

    def run(self, function: Callable, items: Sequence) -> None:
        """Call function(item) for all items, spread over the threads."""

        def every_nth(worker):
            for item in items[worker :: self.threads]:
                function(item)

        self._on_all(every_nth)

    def _on_all(self, function):
        """[function(0), ... function(threads - 1)], each on a thread of its own."""
        if self.threads == 1:
            return [function(0)]
        return list(self.pool.map(function, range(self.threads)))

    def loss_and_gradients(self, ids: np.ndarray, targets: np.ndarray, stream: Stream | None) -> np.ndarray:
        """The mean loss of a batch, a 0-d array; its gradient replaces what the parameters' `grad` held.

        ids, targets: this rank's rows of the batch, (B / ranks, T); loss and gradient are those of the whole
        batch. All ranks must call it together. On a GPU the call returns before the result is computed;
        float(loss) waits for it.
        """

        def forward_and_backward(worker):
            self.gradients[worker].fill(0)
            return self._loss_of(worker, ids, targets, stream, backward=True)

        try:
            loss = sum(self._on_all(forward_and_backward))
        except MemoryError:
            if estimate.is_on_gpu(self):
                raise UserError(estimate.out_of_gpu_memory(self)) from None
            raise
        for gradient in self.gradients[1:]:
            self.gradients[0] += gradient
        self.ranks.all_reduce(self.gradients[0])
        return self.ranks.all_reduce(loss)

    def loss(self, ids: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The mean loss of a batch, without dropout and without gradients. The rest is as above."""

        @no_grad()  # here, because each thread has a switch of its own
        def forward(worker):
            return self._loss_of(worker, ids, targets, stream=None, backward=False)

        return self.ranks.all_reduce(sum(self._on_all(forward)))

    def _loss_of(self, worker, ids, targets, stream, backward):
        """One worker's part of the batch's mean loss: of `threads` micro-batches in a row, it takes one."""
        total = 0.0
        size = self.micro_batch
        first_row = self.ranks.rank * len(ids)  # the number of this rank's first row in the whole batch
        for start in range(worker * size, len(ids), self.threads * size):
            rows = slice(start, start + size)
            here = stream.at(row=first_row + start) if stream else None
            weight = len(ids[rows]) / (len(ids) * self.ranks.size)  # the last micro-batch may be smaller
            loss = self.replicas[worker].loss(ids[rows], targets[rows], here) * weight
            if backward:
                loss.backward()
            total = total + loss.data
        return total


LARGE_MODEL = 50e6  # parameters
BLAS_THREADS = 8  # per worker of a large model


def choose_division(
    config: TrainConfig,
    model: GPTConfig,
    device: str = "cpu",
    ranks: Ranks = ALONE,
    cores: int | None = None,
    memory: float | None = None,
) -> tuple[int, int]:
    """How each rank divides its part of a batch: (threads, micro_batch), as Workers takes them.

    What the TrainConfig says is taken. Otherwise there is a thread per core, but no more than there are
    sequences, and no more than fit into the memory with their gradients. A large model needs much memory per
    thread, and its products are large enough to keep several BLAS threads busy; so it gets fewer threads of
    our own. A GPU takes its sequences all at once.

    cores, memory: of this rank, in bytes; found out if they are not given.
    """
    sequences = ranks.share(config.batch_size)
    if device != "cpu":
        return 1, config.micro_batch or sequences

    threads = config.threads
    if not threads:
        cores = cores or ranks.cores()
        memory = memory or (available_memory() or math.inf) / ranks.local_size
        if model.num_parameters() > LARGE_MODEL:
            cores = cores // BLAS_THREADS
        threads = max(1, min(cores, sequences))
        while threads > 1 and training_memory(model, threads, 1, recompute_blocks=True) > 0.7 * memory:
            threads -= 1

    # about a thousand rows (sequences times positions) keep the matrix products efficient
    efficient = max(1, 1024 // config.block_size)
    micro_batch = config.micro_batch or min(efficient, math.ceil(sequences / threads))
    return threads, micro_batch
