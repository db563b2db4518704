"""Micro-batches over threads and ranks: how a step uses all cores of a machine, and all machines of a job.

A thread, a process and a GPU are all the same here: a replica of the model that adds its gradients to the
others'. Each rank (ranks.py; a single process is the only one) computes an equal part of the batch's rows,
cut into micro-batches that are small enough to stay in the processor's cache. Its worker threads take turns;
each has a replica that shares the weights but owns its gradients. NumPy releases the interpreter's lock
inside its loops, so the threads compute at the same time, elementwise work included, each with one BLAS
thread. What a row draws (its text, its dropout masks) is named by its number in the whole batch, so no
division changes it. Gradients are added in a fixed order: the same counts give the same bits.
"""

import copy
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits

from autograd import Tensor, no_grad
from autograd.backend import keep_freed_memory
from autograd.optim import flatten
from tinygpt.config import UserError
from tinygpt.parallel import estimate
from tinygpt.parallel.estimate import available_memory, training_memory
from tinygpt.parallel.ranks import ALONE


def replica_of(model):
    """A model with the same weights (shared memory) and gradients of its own."""
    return copy.deepcopy(model, {id(p): Tensor(p.data, requires_grad=True) for p in model.parameters()})


class Workers:
    """Computes losses and gradients of batches with `threads` threads per rank, `micro_batch` sequences at a
    time.
    """

    def __init__(self, model, optimizer, threads, micro_batch, ranks=ALONE):
        self.optimizer, self.micro_batch, self.threads, self.ranks = optimizer, micro_batch, threads, ranks
        self.replicas = [model] + [replica_of(model) for _ in range(threads - 1)]
        self.gradients = [optimizer.gradient]  # of each worker, flat
        for replica in self.replicas[1:]:
            twin = dict(zip(map(id, model.parameters()), replica.parameters(), strict=True))
            self.gradients.append(flatten([twin[id(p)] for p in optimizer.parameters()], "grad"))
        self.pool = ThreadPoolExecutor(threads)
        keep_freed_memory()
        threadpool_limits(max(1, ranks.cores() // threads), user_api="blas")

    def start_alike(self):
        """Give all ranks rank 0's weights and moments, should another machine have drawn or read them
        differently.
        """
        for group in self.optimizer.groups:
            for name in ("data", "m", "v"):
                self.ranks.copy_from_first(group[name])

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
        """The mean loss of a batch, a 0-d array; its gradient is left in the parameters' `grad`.

        ids, targets: this rank's rows of the batch, (B / ranks, T); loss and gradient are those of the whole
        batch. What was there before is gone. On a GPU nothing waits for the result until someone looks at it.
        """

        def share(worker):
            self.gradients[worker].fill(0)
            return self._losses(worker, ids, targets, stream, backward=True)

        try:
            loss = sum(self._on_all(share))
        except MemoryError:
            if estimate.is_on_gpu(self):
                raise UserError(estimate.out_of_gpu_memory(self)) from None
            raise
        for gradient in self.gradients[1:]:
            self.gradients[0] += gradient
        self.ranks.add_up(self.gradients[0])
        return self.ranks.add_up(loss)

    def loss(self, ids, targets):
        """The mean loss of a batch, without dropout and without gradients; ids and targets as above."""
        return self.ranks.add_up(sum(self._on_all(lambda worker: self._evaluate(worker, ids, targets))))

    @no_grad()  # here, because each thread has a switch of its own
    def _evaluate(self, worker, ids, targets):
        return self._losses(worker, ids, targets, stream=None, backward=False)

    def _losses(self, worker, ids, targets, stream, backward):
        """One worker's part of the mean loss: every threads-th micro-batch, weighted by its share of the
        whole batch.
        """
        total = 0.0
        step = self.micro_batch
        first = self.ranks.rank * len(ids)  # the number in the whole batch of this rank's first row
        for start in range(worker * step, len(ids), self.threads * step):
            part = slice(start, start + step)
            share = len(ids[part]) / (len(ids) * self.ranks.size)
            loss = (
                self.replicas[worker].loss(ids[part], targets[part], stream and stream.at(row=first + start))
                * share
            )
            if backward:
                loss.backward()
            total = total + loss.data
        return total


LARGE_MODEL = 50e6  # parameters
BLAS_THREADS = 8  # per worker of a large model


def choose_division(config, model, device="cpu", ranks=ALONE, cores=None, memory=None):
    """(threads, micro_batch) of each rank for a TrainConfig and its GPTConfig, unless the former says so
    itself.

    A thread per core, but no more than there are sequences, and no more than fit the memory with their
    gradients. For a large model that memory is the scarcer thing, and its products are large enough for
    several BLAS threads each. The rank's cores and bytes of free memory are found out if they are not given.
    A GPU takes its sequences whole.
    """
    sequences = ranks.share(config.batch_size)
    if device != "cpu":
        return 1, config.micro_batch or sequences
    cores, memory = cores or ranks.cores(), memory or (available_memory() or float("inf")) / ranks.neighbours
    large = model.num_parameters() > LARGE_MODEL
    threads = config.threads or max(1, min(cores // BLAS_THREADS if large else cores, sequences))
    while not config.threads and threads > 1 and training_memory(model, threads, 1, True) > 0.7 * memory:
        threads -= 1
    # sequences: about a thousand rows keep the matrix products efficient
    fits = max(1, 1024 // config.block_size)
    micro_batch = config.micro_batch or min(fits, -(-sequences // threads))
    return threads, micro_batch
