"""Crashes, full disks and broken files in numbers.

`pytest --full tests/tinygpt/run/test_crash.py` tries ten times as many or more.
"""

import re
import shutil
import subprocess
import sys

import pytest

from tests.support.commands import ROOT, train_command
from tests.support.crash import Reference, every_operation, random_kills
from tests.support.fuzz import Fuzz
from tests.support.runs import TINY, train_here
from tests.support.survived import count
from tinygpt.run import checkpoint


@pytest.fixture
def size(request):
    """A test's size: size(quick, full)."""
    return lambda quick, full: full if request.config.getoption("--full") else quick


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory):
    with Fuzz(tmp_path_factory.mktemp("fuzz")) as fuzz:
        yield fuzz


def test_kills_at_random_moments(size, text_file, tmp_path):
    kills, _ = random_kills(tmp_path, text_file, size(20, 200), max_steps=size(60, 300))
    count("training killed (SIGKILL) at a random moment, resumed", kills)


@pytest.mark.parametrize("mode", ["kill", "full"])
def test_a_fault_at_every_operation_on_files(mode, size, text_file, tmp_path):
    names = {
        "kill": "killed at an operation on files of a resumed run that saves twice",
        "full": "disk full from an operation on",
    }
    count(names[mode], every_operation(tmp_path, text_file, mode, stride=size(13, 1)))


def test_a_kill_at_every_system_call_on_files(size, text_file, tmp_path):
    """By strace, which sees also what the library for safetensors does."""
    if not shutil.which("strace") or not size(False, True):
        pytest.skip("only with --full, where strace is installed")
    whole, base, folder = Reference(tmp_path, text_file), tmp_path / "base", tmp_path / "run"
    train_here(**TINY, data=text_file, out=base, stop_after=5)
    calls = "write,pwrite64,fsync,ftruncate,rename,renameat,mkdir,mkdirat,unlink,unlinkat,rmdir"
    calls += ",chmod,fchmod,fchmodat"
    trace = ["strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", f"trace={calls}"]
    train = train_command(resume=folder, stop_after=10)
    shutil.copytree(base, folder)
    if subprocess.run([*trace, *train], capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    names = re.findall(r"^\d+ +(\w+)\(", (tmp_path / "trace").read_text(), re.MULTILINE)
    for name in sorted(set(names)):
        for when in range(1, names.count(name) + 1):
            shutil.rmtree(folder)
            shutil.copytree(base, folder)
            subprocess.run(
                [*trace, "-e", f"inject={name}:signal=KILL:when={when}", *train], capture_output=True
            )
            whole.check_newest(folder)
            train_here(resume=folder)
            whole.check_finished(folder)
            count("killed at a system call of a resumed run that saves (strace)")


@pytest.mark.parametrize(
    ("campaign", "number", "name"),
    [
        ("damaged", 4000, "a file of a checkpoint damaged: refused by its hash"),
        ("forged", 2000, "the same with hashes that fit"),
        ("arrays", 5000, "a safetensors file without hashes"),
        ("tokenizers", 5000, "tokenizer.json, characters and byte pairs"),
        ("configs", 5000, "config.toml and config.json"),
    ],
)
def test_mutated_files(campaign, number, name, size, fuzz):
    tried, refused = getattr(fuzz, campaign)(size(200, number))
    assert refused > 0.9 * tried
    count(f"{name} (mutated)", tried)


def test_every_flipped_bit_is_noticed(size, fuzz):
    count("a single bit of a checkpoint flipped", fuzz.every_bit(stride=size(97, 1)))


def test_loading_takes_no_more_memory_than_twice_the_file(text_file, tmp_path):
    """Measured by the system in a process of its own, on a model of 7 MB."""
    options = TINY | dict(n_embd=256, n_layer=2, max_steps=1, sample_tokens=0)
    train_here(**options, data=text_file, out=tmp_path / "run")
    program = """if True:
        import sys
        from tinygpt.parallel import estimate
        from tinygpt.run import checkpoint
        from safetensors.numpy import load_file
        small, large = (checkpoint.find(path) for path in sys.argv[1:])
        checkpoint.load(small).model()
        before = estimate.peak_memory()
        model = checkpoint.load(large).model()
        print(estimate.peak_memory() - before)
    """
    train_here(**TINY | dict(max_steps=1, sample_tokens=0), data=text_file, out=tmp_path / "small")
    command = [sys.executable, "-c", program, str(tmp_path / "small"), str(tmp_path / "run")]
    taken = int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    size = (checkpoint.find(tmp_path / "run") / "model.safetensors").stat().st_size
    assert size > 6e6 and size < taken < 2.2 * size, (taken, size)
