"""Micro-batches over workers and ranks: how a step uses all cores of a machine, and all machines of a job.

A thread, a process and a GPU do the same here: each has a replica of the model and adds its gradients to
those of the others. Each rank (ranks.py; usually there is only one) computes an equal part of the batch's
rows. It cuts them into micro-batches, small enough to stay in the processor's cache, for its workers to take
in turn. A worker is a fork of the process (forked.py), or a thread where forks cannot be. Each has a replica
that shares the weights but has gradients of its own. So the workers compute at the same time, elementwise
work included, each with one BLAS thread.

What a row draws (its text, its dropout masks) depends on its number in the whole batch, so it is the same
however the batch is divided. Gradients are added in a fixed order: the same numbers of ranks and workers and
the same micro-batch give the same bits, from threads as from forks.
"""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from autograd import AdamW, Stream, no_grad, tape
from autograd.backend import keep_freed_memory
from autograd.optim import flatten
from tinygpt.config import GPTConfig, TrainConfig, UserError
from tinygpt.parallel import estimate
from tinygpt.parallel.estimate import available_memory, training_memory
from tinygpt.parallel.forked import Forks, can_fork, is_shared, shared_zeros
from tinygpt.parallel.ranks import ALONE, Ranks


def replica_of(model):
    """A model with the same weights (shared memory) and gradients of its own."""
    own = {}
    for p in model.parameters():
        own[id(p)] = twin = p.detach()
        twin.requires_grad = True
    return copy.deepcopy(model, own)  # which takes these Tensors instead of copying the model's


class Workers:
    """Computes losses and gradients of batches and updates the weights, with `threads` workers on each rank.

    Each worker takes `micro_batch` sequences at a time. Worker 0 is this process. The others are forks of it;
    under MPI and where forks cannot be, all are threads. The workers flatten the optimizer's arrays: from
    here on the data and grad of every parameter are views of these. So the model must be on its device by
    then, and stay as it is.
    """

    def __init__(self, model, optimizer: AdamW, threads: int, micro_batch: int, ranks: Ranks = ALONE) -> None:
        self.optimizer, self.threads, self.micro_batch, self.ranks = optimizer, threads, micro_batch, ranks
        zeros = shared_zeros if threads > 1 and ranks.size == 1 and can_fork() else None
        optimizer.flatten(zeros)  # which keeps arrays that are flat already: those are not shared with forks
        self.forks: Forks | None = None  # made when there is something to do
        self.threads_only = not is_shared(optimizer.gradient)
        self.replicas = [model] + [replica_of(model) for _ in range(threads - 1)]
        self.gradients = [optimizer.gradient]  # of each worker, flat
        for replica in self.replicas[1:]:
            ids = [id(p) for p in model.parameters()]
            twins = dict(zip(ids, replica.parameters(), strict=True))
            self.gradients.append(flatten([twins[id(p)] for p in optimizer.parameters()], "grad", zeros))
        self.optimizers = [optimizer] + [optimizer.twin() for _ in range(threads - 1)]
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

    def update(self) -> None:
        """A step of the optimizer, its chunks spread over the workers."""
        settings = [
            {name: group[name] for name in ("lr", "betas", "eps", "weight_decay", "steps")}
            for group in self.optimizer.groups
        ]
        self._on_all("_update", settings)

    def _update(self, worker, settings):
        """A worker's part of `update`: every nth chunk."""
        optimizer = self.optimizers[worker]
        for group, values in zip(optimizer.groups, settings, strict=True):
            group |= values

        def every_nth(function, items):
            for item in items[worker :: self.threads]:
                function(item)

        optimizer.step(every_nth)

    def _on_all(self, method, *arguments):
        """[self.method(0, *arguments), ... self.method(threads - 1, *arguments)], each on its worker."""
        if self.threads == 1:
            return [self._call(0, method, *arguments)]
        if self.threads_only:
            return list(
                self.pool.map(lambda worker: self._call(worker, method, *arguments), range(self.threads))
            )
        # When somebody begins to look at all operations (detect_anomaly), new forks do so too.
        if self.forks is None or not self.forks.close.alive or self.watch is not tape.watch:
            self.watch, self.forks = tape.watch, Forks(self._call, self.threads - 1)
        return self.forks(lambda: self._call(0, method, *arguments), method, *arguments)

    def _call(self, worker, method, *arguments):
        return getattr(self, method)(worker, *arguments)

    def loss_and_gradients(self, ids: np.ndarray, targets: np.ndarray, stream: Stream | None) -> np.ndarray:
        """The mean loss of a batch, a 0-d array; its gradient replaces what the parameters' `grad` held.

        ids, targets: this rank's rows of the batch, (B / ranks, T); loss and gradient are those of the whole
        batch. All ranks must call it together. On a GPU the call returns before the result is computed;
        float(loss) waits for it.
        """
        try:
            loss = sum(self._on_all("_forward_and_backward", ids, targets, stream))
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
        return self.ranks.all_reduce(sum(self._on_all("_forward", ids, targets)))

    def _forward_and_backward(self, worker, ids, targets, stream):
        self.gradients[worker].fill(0)
        return self._loss_of(worker, ids, targets, stream, backward=True)

    @no_grad()  # here, because each worker has a switch of its own
    def _forward(self, worker, ids, targets):
        return self._loss_of(worker, ids, targets, stream=None, backward=False)

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
