"""A GPU other than the first, through the stand-in for CuPy: it refuses an array of another GPU's."""

import pytest

import train
from tests.stand_ins import emulate, strict_cupy
from tests.support.commands import flags
from tests.support.here import tinygpt_here
from tests.support.runs import TINY, train_here
from tinygpt.cli import device_for
from tinygpt.config import UserError
from tinygpt.parallel.ranks import Ranks

pytestmark = pytest.mark.skipif(
    emulate.COMPILER is None, reason="no C++ compiler (g++) to run CUDA kernels on the CPU with"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a text of its own, trained on the CPU."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 30)
    train_here(**TINY | dict(max_steps=2), data=folder / "text.txt", out=folder / "run")
    return folder / "run"


@pytest.fixture
def cupy():
    with strict_cupy.installed() as module:
        yield module


@pytest.mark.parametrize(
    "command", [["eval"], ["sample", "--prompt", "the", "--tokens", "5"]], ids=["eval", "sample"]
)
def test_commands_on_the_second_gpu(command, run, cupy):
    name, *rest = command
    on_cpu = tinygpt_here(name, run, *rest, "--device", "cpu")
    found = tinygpt_here(name, run, *rest, "--device", "cuda:1")
    assert found.returncode == 0 and found.stdout == on_cpu.stdout and found.stdout, found.stderr.decode()


def devices_of(job):
    """The devices of all that a training has on a device."""
    arrays = [*(p.data for p in job.model.parameters()), *(p.grad for p in job.model.parameters())]
    arrays += [job.dataset.train, job.dataset.val, *(group["m"] for group in job.optimizer.groups)]
    return {f"cuda:{array.device.id}" for array in arrays}


class SecondHere(Ranks):
    """A job of one process which sees itself as the second one on its machine."""

    local_rank, local_size = 1, 2


def test_a_rank_computes_on_a_gpu_of_its_own(run, cupy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "start_ranks", SecondHere)
    settings = flags(**TINY, data=run.with_name("text.txt"), out=tmp_path / "run", device="cuda")
    assert devices_of(train.prepare(settings)) == {"cuda:1"}


@pytest.mark.parametrize(
    ("asked", "local_rank", "gpus", "taken"),
    [
        ("cuda", 0, 2, "cuda"),
        ("cuda", 1, 2, "cuda:1"),
        ("auto", 1, 2, "cuda:1"),
        ("cuda", 3, 2, "cuda:1"),
        ("cuda", 3, 1, "cuda:0"),
        ("cuda:0", 1, 2, "cuda:0"),
        ("cuda:1", 0, 2, "cuda:1"),
    ],
)
def test_which_gpu_a_rank_takes(asked, local_rank, gpus, taken, cupy, monkeypatch):
    monkeypatch.setattr(strict_cupy, "DEVICES", gpus)
    assert device_for(asked, local_rank) == (taken, "a GPU that works")
    assert cupy.cuda.Device().id == int(taken.partition(":")[2] or 0)  # this thread works on it


def test_a_gpu_that_is_not_there(cupy):
    with pytest.raises(UserError, match="cuda:2 cannot be used: this machine has 2, numbered from 0"):
        device_for("cuda:2")
