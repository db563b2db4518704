"""Processes that train together, on one machine or many: `mpiexec -n 4 python -m mpi4py train.py`.

Each process, a rank, holds the whole model and computes its share of every batch, as a thread does within a
process (workers.py). MPI, or NCCL between GPUs, adds up what the ranks have computed and gives all of them
the same sum. So all take the same steps and hold the same weights. Rank 0 alone prints and writes. mpi4py is
imported only if an MPI engine (mpiexec, or srun on a Slurm cluster) started this process.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygpt.config import UserError
from tinygpt.parallel.cores import core_limit, usable_cores, whole_cores

# Where an engine says which rank this process is, and of how many: MPICH and its relatives, Slurm, Open MPI,
# MVAPICH.
RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


class Ranks:
    """The ranks of a job, seen from one of them: here a job of one process; MpiRanks is for many.

    `connect`, `broadcast_object`, `on_first_rank`, `broadcast`, `all_reduce`, `all_reduce_max` and `barrier`
    communicate: all ranks must call them, in the same order. `cores` and `share` do not.
    """

    rank, size = 0, 1
    # the same among the ranks on this machine
    local_rank, local_size = 0, 1

    def connect(self, device: str) -> None:
        """Connect the GPUs that the ranks have chosen, if that is where they compute.

        UserError if the ranks would use different kinds of devices, or if their GPUs cannot be connected.
        """

    def cores(self) -> int:
        """How many cores this rank may keep busy."""
        return whole_cores(min(len(usable_cores()), core_limit()))

    def share(self, rows: int) -> int:
        """How many rows of a batch each rank computes. UserError if they do not divide equally."""
        if rows % self.size:
            fitting = max(rows // self.size, 1) * self.size
            raise UserError(
                f"batch_size {rows} cannot be shared equally by {self.size} ranks; try --batch-size "
                f"{fitting}, or other ranks"
            )
        return rows // self.size

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value, on all ranks: any Python object that can be pickled."""
        return value

    def on_first_rank(self, function: Callable, *arguments) -> Any:
        """Call function(*arguments) on rank 0. All ranks get what it returns, or the UserError it raises."""
        return function(*arguments)

    def broadcast(self, array: np.ndarray) -> None:
        """Overwrite a NumPy or CuPy array with rank 0's."""

    def all_reduce(self, array: np.ndarray) -> np.ndarray:
        """The sum of all ranks' arrays (NumPy or CuPy, of one shape), the same bits on each.

        An array is overwritten with the sum; a number becomes an array.
        """
        return array

    def all_reduce_max(self, number: int) -> int:
        """The largest of all ranks' integers."""
        return number

    def barrier(self) -> None:
        """Wait until all ranks have come here."""


ALONE = Ranks()


class MpiRanks(Ranks):
    """The processes of an MPI communicator. To make one is itself communication."""

    def __init__(self, communicator) -> None:
        from mpi4py import MPI

        from tinygpt.parallel import watch

        self.mpi, self.communicator = MPI, communicator
        self.rank, self.size = communicator.rank, communicator.size
        self.gpus = None  # NCCL's communicator, after connect("cuda")
        machine = communicator.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = machine.rank, machine.size
        part = own_part(usable_cores(), machine.allgather(usable_cores()))
        self._cores = whole_cores(min(part, core_limit(self.local_size)))

        address = watch.start(self.local_size) if self.local_rank == 0 else None
        name = f"rank {self.rank} (process {os.getpid()} on {MPI.Get_processor_name()})"
        watch.connect(machine.bcast(address), name)

    def connect(self, device: str) -> None:
        kinds = [other.partition(":")[0] for other in self.communicator.allgather(device)]
        for rank, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise UserError(
                    f"rank {rank} would use {kind} but rank 0 {kinds[0]}; ask for one with --device, a GPU "
                    "per rank"
                )
        if kinds[0] == "cuda":
            self.gpus = connect_gpus(self.size, self.rank)

    def cores(self) -> int:
        return self._cores

    def broadcast_object(self, value: Any) -> Any:
        return self.communicator.bcast(value)

    def on_first_rank(self, function: Callable, *arguments) -> Any:
        answer = None
        if self.rank == 0:
            try:
                answer = function(*arguments)
            except UserError as error:
                answer = error
        answer = self.broadcast_object(answer)
        if isinstance(answer, UserError):
            raise answer
        return answer

    def broadcast(self, array: np.ndarray) -> None:
        if self.gpus:
            self.gpus.broadcast(array)
        else:
            self.communicator.Bcast(array)

    def all_reduce(self, array: np.ndarray) -> np.ndarray:
        if self.gpus:
            self.gpus.all_reduce(array, array)  # the GPU does it after what computes the array; no wait here
            return array
        array = np.asarray(array)  # a number becomes an array of its own
        self.communicator.Allreduce(self.mpi.IN_PLACE, array)
        return array

    def all_reduce_max(self, number: int) -> int:
        largest = np.array([number])
        self.communicator.Allreduce(self.mpi.IN_PLACE, largest, self.mpi.MAX)
        return int(largest[0])

    def barrier(self) -> None:
        self.communicator.Barrier()


def start_ranks() -> Ranks:
    """The ranks of this job: `ALONE` unless an MPI engine started this process.

    Silences the output of all ranks but 0.
    """
    rank, started = rank_by_engine(), _number_in(SIZE_VARIABLES)
    if rank is None or started == 1:
        return ALONE
    if "mpi4py.run" not in sys.modules:
        if rank > 0:
            sys.exit(2)  # rank 0 prints the error
        raise UserError(
            "under mpiexec, start Python with -m mpi4py (mpiexec -n 2 python -m mpi4py train.py ...): "
            "without it, one rank that fails leaves the others waiting forever"
        )
    from mpi4py import MPI

    ranks = MpiRanks(MPI.COMM_WORLD)
    if started not in (None, ranks.size):
        raise UserError(
            f"the engine started {started} processes, but mpi4py connects {ranks.size}: they belong to "
            "different MPI libraries; use the mpiexec of mpi4py's own "
            f"({MPI.Get_library_version().split()[0]})"
        )
    if ranks.size == 1:
        return ALONE
    if ranks.rank > 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return ranks


def rank_by_engine() -> int | None:
    """This process's rank, as the MPI engine that started it says, or None if none did."""
    return _number_in(RANK_VARIABLES)


def _number_in(variables):
    """The value of the first of these environment variables that is set, or None."""
    for name in variables:
        if name in os.environ:
            return int(os.environ[name])
    return None


def speaker() -> str:
    """How an error message begins: "" on rank 0 and without an engine, elsewhere "rank 2: ", after a second.

    If all ranks fail with the same error, rank 0's line ends the job before that second is over. So the user
    sees the error once.
    """
    if not rank_by_engine():
        return ""
    time.sleep(1)
    return f"rank {rank_by_engine()}: "


def own_part(mine: set[int], everyones: list[set[int]]) -> int:
    """How many cores a rank may keep busy, at least one: each core is shared by the ranks that may use it.

    mine: the cores that this rank may use; everyones: those of each rank on this machine.
    """
    return whole_cores(sum(1 / sum(core in cores for cores in everyones) for core in mine))


def connect_gpus(size: int, rank: int) -> Any:
    """NCCL's communicator of all ranks' GPUs. UserError if NCCL is missing or refuses."""
    try:
        from cupyx.distributed import init_process_group

        return init_process_group(size, rank, use_mpi=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"NCCL cannot connect {size} GPUs ({type(error).__name__}: {reason}); it needs a GPU for each "
            "rank (--device cuda, without a number) and the package nvidia-nccl-cu12 or -cu13; or train with "
            "--device cpu"
        ) from None
