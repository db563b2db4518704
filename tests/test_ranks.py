"""Training over MPI: ranks change the time, not the result; and a job ends as a whole."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import ranks_job
from tinygpt.ranks import ALONE, own_part

pytest.importorskip("mpi4py", reason="mpi4py is not installed: pip install -e '.[mpi]'")
ROOT = Path(__file__).parent.parent
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
# There may be more ranks than cores: those that wait must leave the cores to the others.
YIELDING = {"MPIR_CVAR_POLLS_BEFORE_YIELD": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}


def mpiexec(ranks, *arguments, cwd=ROOT, timeout=60):
    command = [MPIEXEC, "-n", str(ranks), sys.executable, *map(str, arguments)]
    environment = os.environ | YIELDING
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """job(ranks, device): what tests/ranks_job.py found."""
    folder, known = tmp_path_factory.mktemp("jobs"), {}

    def found(ranks, device="cpu"):
        if (ranks, device) not in known:
            path = folder / f"{ranks}-{device}.npz"
            result = mpiexec(ranks, "-m", "mpi4py", "-m", "tests.ranks_job", path, device)
            assert result.returncode == 0, result.stderr
            known[ranks, device] = np.load(path)
        return known[ranks, device]

    return found


JOBS = [(2, "cpu", "float32"), (2, "cpu", "float64"), (4, "cpu", "float32"), (4, "cpu", "float64"), (2, "cuda", "float32")]


@pytest.mark.parametrize(("ranks", "device", "dtype"), JOBS)
def test_ranks_compute_what_one_process_computes(job, ranks, device, dtype):
    alone, found = ranks_job.train(ALONE, dtype), job(ranks, device)
    tolerance = {"float32": 1e-5, "float64": 1e-11}[dtype]
    tolerance *= 100 if device == "cuda" else 1  # other kernels round otherwise, and 50 steps let that grow
    for name in ("losses", "norms", "gradient"):
        np.testing.assert_allclose(found[f"{dtype} {name}"], alone[name], rtol=0, atol=tolerance, err_msg=name)
    assert alone["losses"][-2] < 0.5 < 2 < alone["losses"][0]  # it learned: agreeing is no matter of course
    hashes = found[f"{dtype} hash"]
    assert len(hashes) == ranks and len(set(hashes)) == 1


def test_two_ranks_compute_the_bits_of_two_threads(job):
    threads = ranks_job.train(ALONE, threads=2, micro_batch=ranks_job.ROWS // 2)
    assert job(2)["float32 hash"][0] == threads["hash"]


def test_one_sum_of_the_flat_gradient_per_step(job):
    calls = [str(call) for call in job(2, "cuda")["float32 calls"]]
    size = job(2, "cuda")["float32 gradient"].size
    steps = calls[calls.index(f"all_reduce {size}") :]
    assert steps == [f"all_reduce {size}", "all_reduce 1"] * ranks_job.STEPS + ["all_reduce 1"]


@pytest.mark.parametrize(
    ("mine", "everyones", "cores"),
    [
        ({0, 1}, [{0, 1}] * 2, 1),  # an engine that binds nothing
        ({0, 1}, [{0, 1}] * 4, 1),
        (set(range(12)), [set(range(12))] * 6, 2),
        ({4, 5}, [{0, 1}, {4, 5}], 2),  # one that gives each rank cores of its own
        ({0, 1, 2, 3}, [{0, 1, 2, 3}, {0}], 3),
    ],
)
def test_a_machines_cores_are_divided_among_its_ranks(mine, everyones, cores):
    assert own_part(mine, everyones) == cores


def test_cores_of_two_ranks(job):
    assert job(2)["cores"] == max(1, ALONE.cores() // 2)
