"""A stand-in for `cupyx.distributed` where there is no GPU: NCCL's rules, with MPI's sums."""

import contextlib
import sys
import types

from mpi4py import MPI

from tests.stand_ins import strict_cupy

calls = []  # in order, such as "all_reduce 17"


class Communicator:
    """The part of cupyx.distributed.NCCLBackend that the program uses."""

    def all_reduce(self, in_array, out_array, op="sum", stream=None):
        if op != "sum":
            raise RuntimeError(f"Unknown op {op} for NCCL")
        self._check(in_array, out_array)
        calls.append(f"all_reduce {in_array._host.size}")
        out_array._host[...] = MPI.COMM_WORLD.allreduce(in_array._host)

    def broadcast(self, in_out_array, root=0, stream=None):
        self._check(in_out_array)
        calls.append(f"broadcast {in_out_array._host.size}")
        in_out_array._host[...] = MPI.COMM_WORLD.bcast(in_out_array._host, root)

    def _check(self, *arrays):
        for array in arrays:
            if not isinstance(array, strict_cupy.ndarray):
                raise TypeError(f"NCCL got a {type(array).__name__}, not a device array")
            if not array._host.flags.c_contiguous:
                raise RuntimeError("NCCL requires arrays to be either c- or f-contiguous")


def init_process_group(n_devices, rank, *, backend="nccl", host=None, port=None, use_mpi=False):
    if not use_mpi or (n_devices, rank) != (MPI.COMM_WORLD.size, MPI.COMM_WORLD.rank):
        raise ValueError("the ranks of NCCL must be those of MPI, or use_mpi was forgotten")
    return Communicator()


@contextlib.contextmanager
def installed():
    """The stand-ins as the modules `cupy` and `cupyx.distributed`."""
    names = ("cupyx", "cupyx.distributed")
    with strict_cupy.installed() as cupy:
        for name in names:
            sys.modules[name] = types.ModuleType(name)
        sys.modules["cupyx.distributed"].init_process_group = init_process_group
        try:
            yield cupy
        finally:
            for name in names:
                del sys.modules[name]
