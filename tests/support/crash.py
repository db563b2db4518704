"""Kill a training process at any point, fill the disk under it, and see what is left.

Training runs in a process of its own, and SIGKILL really kills it. That process is forked from a server that
has imported everything and has no threads: so it need not wait for imports, and inherits no lock.
"""

import builtins
import contextlib
import errno
import hashlib
import io
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import traceback
from unittest import mock

from tests.support.runs import TINY, outcome, train_here
from tinygpt import cli
from tinygpt.run import checkpoint

OPERATIONS = [
    "open", "fsync", "close", "mkdir", "rename", "replace", "unlink", "rmdir", "listdir", "scandir",
    "chmod", "truncate", "ftruncate",
]  # fmt: skip
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.support.crash"])
NEED_SPACE = {"open", "write", "fsync", "flush", "mkdir", "rename", "replace", "truncate", "save_file"}


class Faults:
    """Counts a process's operations on files, and makes number `at` fail.

    mode "kill": the process is killed there. mode "full": from there on the disk is full.
    """

    def __init__(self, at, mode):
        self.at, self.mode, self.count = at, mode, 0

    def reach(self, name, do_half=None):
        """Called before each operation. do_half() leaves it half done, as if the fault came in the middle."""
        self.count += 1
        killed = self.mode == "kill" and self.count == self.at
        full = self.mode == "full" and self.count >= self.at and name in NEED_SPACE
        if do_half and (killed or full):
            do_half()
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def install(self):
        """Put this into Python's functions, until this process ends."""
        for name in OPERATIONS:
            setattr(os, name, self._counted(name, getattr(os, name)))
        builtins.open = io.open = self._open(io.open)
        checkpoint.save_file = self._save_file(checkpoint.save_file)

    def _counted(self, name, function):
        def counted(*args, **kwargs):
            reading = name == "open" and not args[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
            self.reach("open to read" if reading else name)
            return function(*args, **kwargs)

        return counted

    def _open(self, function):
        def opened(path, mode="r", *args, **kwargs):
            if isinstance(path, int) or "r" in mode:
                return function(path, mode, *args, **kwargs)
            self.reach("open")
            return File(function(path, mode, *args, **kwargs), self)

        return opened

    def _save_file(self, function):
        """The library writes outside of Python: faults come before it, or when half of the file is there."""

        def saved(arrays, path, metadata=None):
            def keep_part():
                with open(path, "r+b") as file:
                    file.truncate(100)

            self.reach("save_file")
            function(arrays, path, metadata)
            self.reach("save_file", keep_part)

        return saved


class File:
    """A file opened for writing, whose writes are counted."""

    def __init__(self, file, faults):
        self.file, self.faults = file, faults

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()

    def write(self, data):
        def write_half():
            self.file.write(data[: len(data) // 2])
            self.file.flush()

        self.faults.reach("write", write_half)
        return self.file.write(data)


def start(output, settings, prepare=None):
    """A process that calls prepare() and then trains with these settings, its stdout and stderr in a file."""
    process = PROCESSES.Process(target=_train, args=(output, settings, prepare))
    process.start()
    return process


def _train(output, settings, prepare):
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if prepare:
        prepare()
    code = 1
    try:
        cli.exit_with_code(lambda: train_here(**settings))
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)  # at once: what multiprocessing does at its end is not part of training


def exit_code(process):
    """Wait for a process: its exit code, or minus the signal that killed it."""
    process.join()
    return process.exitcode


class Reference:
    """A run that nothing happened to, with all its checkpoints, to compare others with."""

    def __init__(self, folder, data, **settings):
        self.settings = TINY | dict(data=data) | settings
        self.folder = folder / "reference"
        with mock.patch.object(checkpoint, "keep_only", lambda *arguments: None):
            train_here(**self.settings, out=self.folder)
        self.files, self.numbers = outcome(self.folder)
        self.hashes = {
            checkpoint.step_of(path): arrays_hash(path) for path in self.folder.glob("ckpt/step_*")
        }

    def check_newest(self, folder):
        """The newest checkpoint of a run loads and is what this run had at that step. Returns the step."""
        saved = checkpoint.load(folder)
        assert arrays_hash(saved.folder) == self.hashes[saved.state["step"]], saved.folder
        return saved.state["step"]

    def check_finished(self, folder):
        """A finished run has the same weights, moments, losses and samples, and nothing half done."""
        files, numbers = outcome(folder)
        known = {number[:2] for number in self.numbers}  # a run that stopped had looked at its last loss too
        assert [number for number in numbers if number[:2] in known] == self.numbers
        assert files == {name: self.files[name] for name in files} and len(files) > 2
        assert set(files) >= {name for name in self.files if name.startswith("samples")}
        assert not list(folder.rglob(".*tmp")) and not list(folder.rglob(".*old"))


def arrays_hash(folder):
    """One hash of the weights and moments in a checkpoint."""
    content = (folder / "model.safetensors").read_bytes() + (folder / "optim.safetensors").read_bytes()
    return hashlib.sha256(content).hexdigest()


def random_kills(work, data, number, max_steps=300, seed=0):
    """Kill a training process at random moments, go on from what is left, kill it again.

    Returns (kills, finished runs).
    """
    whole = Reference(work, data, max_steps=max_steps, eval_interval=3)
    moments, kills, runs = random.Random(seed), 0, 0
    while kills < number:
        folder, newest, longest = work / f"killed-{runs}", -1, 0.2  # seconds that a process may live
        settings = dict(whole.settings, out=folder)
        while True:
            process = start(work / "output.txt", settings)
            time.sleep(moments.uniform(0, longest))
            process.kill()
            code = exit_code(process)
            assert code in (0, -signal.SIGKILL), (work / "output.txt").read_text()
            if code == 0:
                break
            if list(folder.glob("ckpt/step_*")):
                kills += 1
                before, newest = newest, whole.check_newest(folder)
                # On a slow machine it takes longer to get to a new checkpoint.
                longest = 0.2 if newest > before else 1.2 * longest
                settings = dict(resume=folder)
            else:
                # It was killed before its first checkpoint.
                settings = dict(whole.settings, out=folder, overwrite=True)
                longest *= 1.2
        whole.check_finished(folder)
        runs += 1
    return kills, runs


def every_operation(work, data, mode, stride=1):
    """Make each operation on files fail in turn: the run resumes, logs, samples, saves twice and prunes.

    mode: see Faults. stride: try every n-th operation only. Returns how many were tried.
    """
    whole = Reference(work, data)
    folder, base, tried = work / "run", work / "base", 0
    train_here(**whole.settings | dict(stop_after=5), out=base)
    for at in range(1, 10_000, stride):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        settings = dict(resume=folder, stop_after=15)
        code = exit_code(start(work / "output.txt", settings, Faults(at, mode).install))
        printed = (work / "output.txt").read_text()
        step = whole.check_newest(folder)
        if code == 0:
            assert step == 15
            break
        if mode == "full":
            assert code == 2 and printed.startswith("error: ") and printed.count("\n") == 1, printed
            assert "No space left" in printed and not list(folder.rglob(".*tmp"))
        else:
            assert code == -signal.SIGKILL, printed
        train_here(resume=folder)
        whole.check_finished(folder)
        tried += 1
    return tried
