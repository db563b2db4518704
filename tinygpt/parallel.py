"""Micro-batches over threads: how a step uses all cores of a machine.

A batch is cut into micro-batches that are small enough to stay in the processor's cache. Worker threads take turns;
each has a replica of the model that shares the weights but owns its gradients. NumPy releases the interpreter's lock
inside its loops, so the threads compute at the same time, elementwise work included, each with one BLAS thread.
Gradients are added in a fixed order: the same counts give the same bits.
"""

import copy
import os
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits

from autograd import Tensor, no_grad
from autograd.backend import keep_freed_memory
from autograd.optim import flatten
from tinygpt.estimate import available_memory, parameter_count, training_memory


def replica_of(model):
    """A model with the same weights (shared memory) and gradients of its own."""
    return copy.deepcopy(model, {id(p): Tensor(p.data, requires_grad=True) for p in model.parameters()})


class Workers:
    """Computes losses and gradients of batches with `threads` threads, `micro_batch` sequences at a time."""

    def __init__(self, model, optimizer, threads, micro_batch):
        self.optimizer, self.micro_batch, self.threads = optimizer, micro_batch, threads
        self.replicas = [model] + [replica_of(model) for _ in range(threads - 1)]
        twins = [dict(zip(map(id, model.parameters()), replica.parameters(), strict=True)) for replica in self.replicas]
        self.gradients = [[group["grad"] for group in optimizer.groups]] + [
            [flatten([twin[id(p)] for p in group["params"]], "grad") for group in optimizer.groups] for twin in twins[1:]
        ]  # [worker][group]: flat
        self.pool = ThreadPoolExecutor(threads)
        keep_freed_memory()
        threadpool_limits(max(1, available_cores() // threads), user_api="blas")

    def run(self, function, items):
        """Call function(item) for all items, spread over the threads."""

        def share(worker):
            for item in items[worker :: self.threads]:
                function(item)

        self._on_all(share)

    def _on_all(self, function):
        """[function(0), ... function(threads - 1)], each on a thread of its own."""
        if self.threads == 1:
            return [function(0)]
        return list(self.pool.map(function, range(self.threads)))

    def loss_and_gradients(self, ids, targets, stream):
        """The mean loss of a batch (B, T), a 0-d array; its gradient is left in the parameters' `grad`.

        What was there before is gone. On a GPU nothing waits for the result until someone looks at it.
        """

        def share(worker):
            for grad in self.gradients[worker]:
                grad.fill(0)
            return self._losses(worker, ids, targets, stream, backward=True)

        loss = sum(self._on_all(share))
        for worker in range(1, self.threads):
            for total, grad in zip(self.gradients[0], self.gradients[worker], strict=True):
                total += grad
        return loss

    def loss(self, ids, targets):
        """The mean loss of a batch (B, T), without dropout and without gradients."""
        return sum(self._on_all(lambda worker: self._evaluate(worker, ids, targets)))

    @no_grad()  # here, because each thread has a switch of its own
    def _evaluate(self, worker, ids, targets):
        return self._losses(worker, ids, targets, stream=None, backward=False)

    def _losses(self, worker, ids, targets, stream, backward):
        """One worker's part of the mean loss: every threads-th micro-batch, weighted by its share of the batch."""
        total = 0.0
        step = self.micro_batch
        for start in range(worker * step, len(ids), self.threads * step):
            part = slice(start, start + step)
            share = len(ids[part]) / len(ids)
            loss = self.replicas[worker].loss(ids[part], targets[part], stream and stream.at(row=start)) * share
            if backward:
                loss.backward()
            total = total + loss.data
        return total


def available_cores():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


LARGE_MODEL = 50e6  # parameters
BLAS_THREADS = 8  # per worker of a large model


def choose(config, model, device="cpu", cores=None, memory=None):
    """(threads, micro_batch) for a TrainConfig and its GPTConfig, unless the former says so itself.

    A thread per core, but no more than there are sequences, and no more than fit the memory with their gradients. For
    a large model that memory is the scarcer thing, and its products are large enough for several BLAS threads each.
    The machine's cores and bytes of free memory are found out if they are not given. A GPU takes the batch whole.
    """
    if device != "cpu":
        return 1, config.micro_batch or config.batch_size
    cores, memory = cores or available_cores(), memory or available_memory() or float("inf")
    large = parameter_count(model) > LARGE_MODEL
    threads = config.threads or max(1, min(cores // BLAS_THREADS if large else cores, config.batch_size))
    while not config.threads and threads > 1 and training_memory(model, threads, 1, True) > 0.7 * memory:
        threads -= 1
    fits = max(1, 1024 // config.block_size)  # sequences: about a thousand rows keep the matrix products efficient
    micro_batch = config.micro_batch or min(fits, -(-config.batch_size // threads))
    return threads, micro_batch
