"""Processes that train together, on one machine or many: `mpiexec -n 4 python -m mpi4py train.py`.

Each process, a rank, holds the whole model and computes its share of every batch, as a thread does within a
process (parallel.py). MPI, or NCCL between GPUs, adds up what the ranks have computed and gives every one the
same sum, so all take the same steps and hold the same weights. Rank 0 alone prints and writes. mpi4py is
imported only under an engine.
"""

import os
import sys
import time

import numpy as np

from tinygpt.config import UserError

# MPICH and kin, Slurm, Open MPI
RANK_VARIABLES = (
    "PMI_RANK",
    "PMIX_RANK",
    "OMPI_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_RANK",
)
SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


class Alone:
    """The only process of its job: what `Ranks` does for many needs no doing."""

    rank, size, neighbours = 0, 1, 1  # neighbours: the ranks on this machine, this one included
    name = ""  # as in "2 ranks, "

    def join(self, device):
        """Connect the ranks' GPUs, if that is where they compute.

        UserError if they cannot be, or not all have one.
        """

    def cores(self):
        """How many cores this rank may keep busy."""
        return len(usable_cores())

    def share(self, rows):
        """How many rows of a batch each rank computes. UserError if they do not divide."""
        return rows

    def once(self, function):
        """What function() returns or the UserError it raises: called on rank 0, the same on all."""
        return function()

    def add_up(self, array):
        """The sum of all ranks' arrays (NumPy or CuPy, of one shape), the same bits on each; in place where
        it can be.
        """
        return array

    def copy_from_first(self, array):
        """Overwrite a NumPy or CuPy array with rank 0's."""

    def largest(self, number):
        """The largest of all ranks' integers."""
        return number

    def part(self):
        """Wait for the others before exiting with another code than 0, because a job ends with the first that
        does.
        """


ALONE = Alone()


class Ranks(Alone):
    """The processes of an MPI communicator.

    Every method is a meeting: all ranks must call it, in the same order.
    """

    def __init__(self, communicator):
        from mpi4py import MPI

        from tinygpt.parallel import watch

        self.mpi, self.communicator = MPI, communicator
        self.rank, self.size = communicator.rank, communicator.size
        self.name = f"{self.size} ranks, "
        machine = communicator.Split_type(MPI.COMM_TYPE_SHARED)
        self.place, self.neighbours = machine.rank, machine.size
        self._cores = own_part(usable_cores(), machine.allgather(usable_cores()))
        self.gpus = None
        name = f"rank {self.rank} (process {os.getpid()} on {MPI.Get_processor_name()})"
        watch.connect(machine.bcast(watch.start(self.neighbours) if self.place == 0 else None), name)

    def join(self, device):
        kinds = [other.partition(":")[0] for other in self.communicator.allgather(device)]
        for rank, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise UserError(
                    f"rank {rank} would use {kind} but rank 0 {kinds[0]}; ask for one with --device, a GPU "
                    "per rank"
                )
        if kinds[0] == "cuda":
            self.gpus = connect_gpus(self.size, self.rank)

    def cores(self):
        return self._cores

    def share(self, rows):
        if rows % self.size:
            fitting = max(rows // self.size, 1) * self.size
            raise UserError(
                f"batch_size {rows} cannot be shared equally by {self.size} ranks; try --batch-size "
                f"{fitting}, or other ranks"
            )
        return rows // self.size

    def once(self, function):
        answer = None
        if self.rank == 0:
            try:
                answer = function()
            except UserError as error:
                answer = error
        answer = self.communicator.bcast(answer)
        if isinstance(answer, UserError):
            raise answer
        return answer

    def add_up(self, array):
        if self.gpus:
            self.gpus.all_reduce(array, array)  # queued behind what computes the array: nobody waits
            return array
        array = np.asarray(array)  # a number becomes an array of its own
        self.communicator.Allreduce(self.mpi.IN_PLACE, array)
        return array

    def copy_from_first(self, array):
        if self.gpus:
            self.gpus.broadcast(array)
        else:
            self.communicator.Bcast(array)

    def largest(self, number):
        largest = np.array([number])
        self.communicator.Allreduce(self.mpi.IN_PLACE, largest, self.mpi.MAX)
        return int(largest[0])

    def part(self):
        self.communicator.Barrier()


def start_ranks():
    """The ranks of this job: `ALONE` unless an MPI engine started this process.

    Silences the output of all ranks but 0, and shows each rank of a machine a GPU of its own.
    """
    number, started = (
        rank_by_engine(),
        next((int(os.environ[name]) for name in SIZE_VARIABLES if name in os.environ), None),
    )
    if number is None or started == 1:
        return ALONE
    if "mpi4py.run" not in sys.modules:
        if number:
            sys.exit(2)  # rank 0 says it
        raise UserError(
            "under mpiexec, start Python with -m mpi4py (mpiexec -n 2 python -m mpi4py train.py ...): "
            "without it, one rank that fails leaves the others waiting forever"
        )
    from mpi4py import MPI

    ranks = Ranks(MPI.COMM_WORLD)
    if started not in (None, ranks.size):
        raise UserError(
            f"the engine started {started} processes, but mpi4py connects {ranks.size}: they belong to "
            "different MPI libraries; use the mpiexec of mpi4py's own "
            f"({MPI.Get_library_version().split()[0]})"
        )
    if ranks.size == 1:
        return ALONE
    if ranks.rank:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    show_one_gpu(ranks.place)
    return ranks


def rank_by_engine():
    """This process's rank, as the MPI engine that started it says, or None if none did."""
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), None)


def speaker():
    """What an error message begins with: "" on rank 0 and without an engine, elsewhere "rank 2: ", after a
    moment.

    Where all ranks have the same to say, the job ends with rank 0's line before that moment is over.
    """
    if not rank_by_engine():
        return ""
    time.sleep(1)
    return f"rank {rank_by_engine()}: "


def usable_cores():
    """The set of cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def own_part(mine, everyones):
    """How many of my cores I may keep busy if each is divided equally among those who may use it; at least
    one.
    """
    return max(1, int(sum(1 / sum(core in cores for cores in everyones) for core in mine) + 1e-6))


def show_one_gpu(place):
    """Leave only one GPU visible to this process, the `place`th rank of its machine. Before CuPy is imported."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", str(place)).split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[place % len(visible)]


def connect_gpus(size, rank):
    """NCCL's communicator of all ranks' GPUs. UserError if NCCL is missing or refuses."""
    try:
        from cupyx.distributed import init_process_group

        return init_process_group(size, rank, use_mpi=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"NCCL cannot connect {size} GPUs ({type(error).__name__}: {reason}); it needs a GPU for each "
            "rank and the package nvidia-nccl-cu12 or -cu13; or train with --device cpu"
        ) from None
