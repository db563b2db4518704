"""Training over MPI: ranks change the time, not the result; and a job ends as a whole."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.stand_ins import emulate, strict_cupy
from tests.support import ranks_job
from tests.support.commands import ROOT, finish, flags
from tests.support.runs import TINY, metrics, outcome, train_here
from tinygpt.config import UserError
from tinygpt.parallel.ranks import ALONE, connect_gpus, own_part
from tinygpt.run import checkpoint

pytest.importorskip("mpi4py", reason="mpi4py is not installed: pip install -e '.[mpi]'")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
# There may be more ranks than cores: ranks that wait must leave the cores to the others.
YIELDING = {"MPIR_CVAR_POLLS_BEFORE_YIELD": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}


TRAIN = ["-m", "mpi4py", "train.py"]  # Python's arguments; flags of train.py may follow


def mpiexec(ranks, *python_arguments):
    """A job of so many ranks, running."""
    command = [MPIEXEC, "-n", str(ranks), sys.executable, *map(str, python_arguments)]
    environment = os.environ | YIELDING | {"PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def train_there(ranks, **settings):
    """Train on so many ranks; returns what was printed."""
    result = finish(mpiexec(ranks, *TRAIN, *flags(**settings)))
    assert result.returncode == 0 and not result.stderr, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """job(ranks, device): what tests/support/ranks_job.py found."""
    folder, known = tmp_path_factory.mktemp("jobs"), {}

    def found(ranks, device="cpu"):
        if (ranks, device) not in known:
            path = folder / f"{ranks}-{device}.npz"
            command = ["-m", "mpi4py", "-m", "tests.support.ranks_job", path, device]
            result = finish(mpiexec(ranks, *command))
            assert result.returncode == 0, result.stderr
            known[ranks, device] = np.load(path)
        return known[ranks, device]

    return found


JOBS = [(2, "cpu", "float32"), (2, "cpu", "float64"), (4, "cpu", "float32"), (4, "cpu", "float64")]
NEEDS_COMPILER = pytest.mark.skipif(
    emulate.COMPILER is None, reason="no C++ compiler (g++) to run CUDA kernels on the CPU with"
)


@pytest.mark.parametrize(
    ("ranks", "device", "dtype"), [*JOBS, pytest.param(2, "cuda", "float32", marks=NEEDS_COMPILER)]
)
def test_ranks_compute_what_one_process_computes(job, ranks, device, dtype):
    with strict_cupy.installed() if device == "cuda" else contextlib.nullcontext():
        alone, found = ranks_job.train(ALONE, dtype, device), job(ranks, device)
    tolerance = {"float32": 1e-5, "float64": 1e-11}[dtype]
    for name in ("losses", "norms", "gradient"):
        np.testing.assert_allclose(
            found[f"{dtype} {name}"], alone[name], rtol=0, atol=tolerance, err_msg=name
        )
    assert alone["losses"][-2] < 0.5 < 2 < alone["losses"][0]  # it learned, so agreeing means something
    hashes = found[f"{dtype} hash"]
    assert len(hashes) == ranks and len(set(hashes)) == 1


def test_two_ranks_compute_the_bits_of_two_threads(job):
    threads = ranks_job.train(ALONE, threads=2, micro_batch=ranks_job.ROWS // 2)
    assert job(2)["float32 hash"][0] == threads["hash"]


@NEEDS_COMPILER
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


# --- train.py -------------------------------------------------------------------------------------

# Two ranks of one thread compute the very bits of two threads in one process.
RANKS, THREADS = dict(threads=1, micro_batch=2), dict(threads=2, micro_batch=2)


@pytest.fixture
def options(text_file):
    return TINY | dict(grad_clip=0.5, warmup_steps=4, min_lr=1e-4, data=text_file)


def test_a_run_on_two_ranks(options, tmp_path):
    train_here(**options | THREADS, out=tmp_path / "threads")
    printed = train_there(2, **options | RANKS, out=tmp_path / "ranks")
    assert outcome(tmp_path / "ranks") == outcome(tmp_path / "threads")
    assert printed.count("step 20: train loss") == 1
    assert "on cpu, 2 ranks, 1 threads, micro-batches of 2" in printed
    left = {path.name for path in (tmp_path / "ranks").iterdir()}
    assert left == {path.name for path in (tmp_path / "threads").iterdir()} | {"loss.png"}


WATCHED = """
import sys
import train
from tinygpt import cli
from tinygpt.parallel import ranks

def hook(event, arguments):
    named = any(sys.argv[-1] in str(argument) for argument in arguments)
    if named and event.startswith(("open", "os.")) and ranks.rank_by_engine():
        raise RuntimeError(f"{event} {arguments}")

sys.addaudithook(hook)
cli.exit_with_code(lambda: train.main(sys.argv[1:]))
"""


def test_the_other_ranks_never_touch_the_folder(options, tmp_path):
    settings = flags(**options | RANKS, out=tmp_path / "run")
    result = finish(mpiexec(2, "-m", "mpi4py", "-c", WATCHED, *settings))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_resuming_on_another_number_of_ranks(before, after, options, tmp_path):
    train_here(**options | THREADS, out=tmp_path / "whole")
    files, numbers = outcome(tmp_path / "whole")
    folder = tmp_path / "run"
    for ranks, settings in ((before, dict(options, out=folder, stop_after=7)), (after, dict(resume=folder))):
        if ranks == 2:
            printed = train_there(2, **settings | RANKS)
        else:
            printed = train_here(**settings | THREADS)
    assert "note: this rounds differently than before" in printed
    parts, part_numbers = outcome(folder)
    assert {name: parts[name] for name in files} == files
    assert [n for n in part_numbers if n[:2] in {m[:2] for m in numbers}] == numbers


WITHOUT_MPI = """
import sys
import train

train.main(sys.argv[1:])
assert not [module for module in sys.modules if "mpi" in module.split(".")[0]]
"""


def test_without_an_engine_mpi4py_is_not_imported(options, tmp_path):
    settings = flags(**options | dict(max_steps=2), out=tmp_path / "run")
    subprocess.run([sys.executable, "-c", WITHOUT_MPI, *settings], cwd=ROOT, check=True, capture_output=True)


def long_job(options, folder, ranks=2):
    """A job in the middle of a long training, and the process number of each rank."""
    settings = options | RANKS | dict(max_steps=1_000_000, eval_interval=500_000)
    process = mpiexec(ranks, *TRAIN, *flags(**settings, out=folder))
    while not list(folder.glob("ckpt/latest")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return process, processes(str(folder))


def processes(argument):
    """The process numbers of the ranks that were started with this argument."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            rank = re.search(rb"_RANK=(\d+)\0", (entry / "environ").read_bytes())
            if rank and argument.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found[int(rank[1])] = int(entry.name)
    return [found[rank] for rank in range(len(found))]


def stopped(process, folder):
    """Check that a job has saved, once, and said so, once; returns its exit code."""
    result = finish(process)
    step = checkpoint.load(folder).state["step"]
    assert result.stdout.count(f"stopped after {step} steps; saved") == 1
    assert "Traceback" not in result.stderr
    assert {path.name for path in folder.glob("ckpt/*")} >= {"latest", f"step_{step:06d}"}
    assert not list(folder.glob("ckpt/.*"))
    assert max(line["step"] for line in metrics(folder)) <= step
    return result.returncode


def test_ctrl_c_saves_once(options, tmp_path):
    process, _ = long_job(options, tmp_path / "run")
    process.send_signal(signal.SIGINT)
    assert stopped(process, tmp_path / "run") == 130
    step = checkpoint.load(tmp_path / "run").state["step"]
    assert f"\nstep {step + 2}: train loss" in train_there(2, resume=tmp_path / "run", stop_after=step + 2)


def test_a_signal_to_one_rank_stops_all(options, tmp_path):
    process, ranks = long_job(options, tmp_path / "run")
    os.kill(ranks[1], signal.SIGTERM)
    assert stopped(process, tmp_path / "run") == 143


def test_a_killed_rank_ends_the_job(options, tmp_path):
    process, ranks = long_job(options | dict(batch_size=8), tmp_path / "run", ranks=4)
    began = time.monotonic()
    os.kill(ranks[2], signal.SIGKILL)
    result = finish(process)
    assert result.returncode != 0 and time.monotonic() - began < 10
    assert f"error: rank 2 (process {ranks[2]} on " in result.stderr
    assert result.stderr.count("error: ") == 1
    assert len(ranks) == 4 and not processes(str(tmp_path / "run"))
    train_here(resume=tmp_path / "run", stop_after=2)  # its lock went with it, its last checkpoint is whole


FAILING = """
import sys
import train
from tinygpt import cli
from tinygpt.parallel.workers import Workers
from tinygpt.config import UserError

def failing(self, *args, right=Workers.loss_and_gradients):
    if self.ranks.rank in {ranks}:
        raise {error}
    return right(self, *args)

Workers.loss_and_gradients = failing
cli.exit_with_code(lambda: train.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("ranks", "error", "code", "messages"),
    [
        (
            [1],
            "ZeroDivisionError('oh')",
            1,
            ["error: rank 1 failed, which ends the job:", "ZeroDivisionError: oh"],
        ),
        ([1], "UserError('no more room')", 2, ["error: rank 1: no more room"]),
        ([1], "MemoryError()", 2, ["error: rank 1: out of memory"]),
        ([0, 1, 2], "UserError('no more room')", 2, ["error: no more room"]),
    ],
)
def test_a_rank_that_fails_ends_the_job_and_says_which(ranks, error, code, messages, options, tmp_path):
    program = FAILING.format(ranks=ranks, error=error)
    began = time.monotonic()
    settings = flags(**options | dict(batch_size=6), out=tmp_path / "run")
    result = finish(mpiexec(3, "-m", "mpi4py", "-c", program, *settings))
    assert result.returncode == code and time.monotonic() - began < 10
    assert all(message in result.stderr for message in messages), result.stderr
    assert result.stderr.count("error: ") == 1, result.stderr


def told_once(result, message):
    """Check that a job ended with exit code 2, and that one rank alone said why."""
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert result.stderr.count("error: ") == 1 and "Traceback" not in result.stderr, result.stderr


FAULTS = {  # name -> (settings, what the error must say)
    "batch": (dict(batch_size=10), "batch_size 10 cannot be shared equally by 3 ranks"),
    "small batch": (dict(batch_size=2), "by 3 ranks; try --batch-size 3"),
    "no data": (dict(data="none.txt"), "cannot read none.txt"),
    "flag": (dict(batch_sise=4), "unknown flag --batch-sise"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told_once(fault, text_file, tmp_path):
    settings, message = FAULTS[fault]
    settings = dict(preset="smoke", data=text_file, out=tmp_path / "run") | settings
    told_once(finish(mpiexec(3, *TRAIN, *flags(**settings))), message)
    assert not (tmp_path / "run").exists()


def test_python_must_be_started_with_mpi4py(options, tmp_path):
    settings = flags(**options, out=tmp_path / "run")
    told_once(finish(mpiexec(3, "train.py", *settings)), "under mpiexec, start Python with -m mpi4py")
    assert not (tmp_path / "run").exists()


OTHER_DEVICE = """
from tinygpt import cli
from tinygpt.parallel import ranks

job = ranks.start_ranks()
cli.exit_with_code(lambda: job.connect("cpu" if job.rank == 2 else "cuda"))
"""


def test_ranks_must_agree_on_the_device():
    result = finish(mpiexec(3, "-m", "mpi4py", "-c", OTHER_DEVICE))
    told_once(result, "rank 2 would use cpu but rank 0 cuda")


def test_one_rank_needs_nothing(options, tmp_path):
    settings = flags(**options | dict(max_steps=2), out=tmp_path / "run")
    result = finish(mpiexec(1, "train.py", *settings))
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert "step 2: train loss" in result.stdout and "ranks" not in result.stdout


def test_no_room_for_the_watching_process(options, tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 30)  # too long for the path of a socket
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    printed = train_there(2, **options | RANKS | dict(max_steps=2), out=tmp_path / "run")
    assert "step 2: train loss" in printed


def test_an_engine_of_another_mpi_is_noticed():
    """Each process would train alone, and into the same folder."""
    environment = os.environ | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"}
    command = [sys.executable, "-m", "mpi4py", "train.py"]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 2 and "the engine started 4 processes, but mpi4py connects 1" in found.stderr


def test_gpus_that_cannot_be_connected():
    with pytest.raises(UserError, match="NCCL cannot connect 2 GPUs .*--device cpu"):
        connect_gpus(2, 0)
