"""Forks compute what threads compute, pass errors on, and never outlive their parent."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from autograd import AdamW, Stream
from autograd.anomaly import AnomalyError, detect_anomaly
from tinygpt.config import GPTConfig, UserError
from tinygpt.model import GPT
from tinygpt.parallel import workers as workers_module
from tinygpt.parallel.forked import Forks, can_fork, is_shared, shared_zeros
from tinygpt.parallel.workers import Workers

pytestmark = pytest.mark.skipif(not can_fork(), reason="forks are for Linux")
CONFIG = GPTConfig(vocab_size=13, block_size=12, n_layer=1, n_head=2, n_embd=16, dropout=0.2)
IDS = np.random.default_rng(0).integers(0, 13, (6, 13))


def workers_of(threads, flat_before=False):
    model = GPT(CONFIG, seed=1)
    optimizer = AdamW(model.parameter_groups(0.1), lr=1e-2)
    if flat_before:
        optimizer.flatten()
    return model, Workers(model, optimizer, threads, micro_batch=2)


def trained(model, workers, steps=3):
    """The losses, weights and moments after some steps, with another learning rate in each."""
    losses = []
    for step in range(steps):
        for group in workers.optimizer.groups:
            group["lr"] = 0.01 * (step + 1)
        losses.append(float(workers.loss_and_gradients(IDS[:, :-1], IDS[:, 1:], Stream(5, step=step))))
        workers.update()
    losses.append(float(workers.loss(IDS[:, :-1], IDS[:, 1:])))
    arrays = [group[name].copy() for group in workers.optimizer.groups for name in ("data", "m", "v")]
    return losses, arrays, workers.optimizer.steps


@pytest.mark.parametrize("threads", [2, 3])
def test_forks_give_the_bits_of_threads(threads, monkeypatch):
    model, forked = workers_of(threads)
    found = trained(model, forked)
    assert forked.forks and len(forked.forks.processes) == threads - 1
    monkeypatch.setattr(workers_module, "can_fork", lambda: False)
    model, threaded = workers_of(threads)
    expected = trained(model, threaded)
    assert threaded.forks is None
    assert found[0] == expected[0] and found[2] == expected[2] == 3
    for mine, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_arrays_that_were_flat_before_are_left_to_threads():
    """Others may hold them, and forks would write into copies."""
    model, workers = workers_of(2, flat_before=True)
    before = trained(model, workers)
    assert workers.forks is None
    for mine, theirs in zip(before[1], trained(*workers_of(2))[1], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_shared_arrays_are_shared():
    array = shared_zeros(3, np.float64)
    forks = Forks(lambda number: array.__setitem__(number, number), 2)
    forks(lambda: None)
    assert array.tolist() == [0, 1, 2] and is_shared(array)
    assert not is_shared(np.zeros(3)) and not is_shared(np.zeros(6)[:3])


def fail(number, where):
    if number == where:
        raise MemoryError(f"worker {number}")
    return number


@pytest.mark.parametrize("where", [0, 1, 2])
def test_an_error_is_raised_here_and_the_next_call_gets_its_own_answers(where):
    forks = Forks(fail, 2)
    with pytest.raises(MemoryError, match=f"worker {where}"):
        forks(lambda: fail(0, where), where)
    assert forks(lambda: 0, None) == [0, 1, 2]


def test_an_interrupted_call_ends_the_forks_and_workers_fork_anew():
    model, workers = workers_of(2)
    expected = float(workers.loss(IDS[:, :-1], IDS[:, 1:]))

    def interrupt(i):
        raise KeyboardInterrupt

    workers.forks._receive = interrupt
    with pytest.raises(KeyboardInterrupt):
        workers.loss(IDS[:, :-1], IDS[:, 1:])
    assert not workers.forks.close.alive
    assert float(workers.loss(IDS[:, :-1], IDS[:, 1:])) == expected


def test_a_killed_fork_is_an_error_of_one_line():
    forks = Forks(fail, 1)
    os.kill(forks.processes[0], signal.SIGKILL)
    os.waitid(os.P_PID, forks.processes[0], os.WEXITED | os.WNOWAIT)  # it is dead by now
    with pytest.raises(UserError, match="a worker process was killed by signal 9; if the memory") as error:
        forks(lambda: 0, None)
    assert "\n" not in str(error.value)


def test_too_many_processes_is_an_error_of_one_line(monkeypatch):
    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(UserError, match=r"cannot start a worker process \(Resource .* try --threads 1"):
        Forks(fail, 1)


def test_a_fork_finds_an_anomaly_in_its_own_rows():
    """Who begins to look, looks in the forks too: only row 5, which a fork computes, has token 12."""
    model, workers = workers_of(2)
    ids = np.where(IDS == 12, 3, IDS)
    ids[2, 0] = 12
    workers.loss(ids[:, :-1], ids[:, 1:])  # forks that do not look
    model.transformer.wte.weight.data[12] = np.nan
    with pytest.raises(AnomalyError, match="embedding"), detect_anomaly():
        workers.loss(ids[:, :-1], ids[:, 1:])


def test_forks_end_when_they_are_forgotten():
    forks = Forks(fail, 2)
    processes = list(forks.processes)
    del forks
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_ctrl_c_of_a_terminal_which_reaches_all_processes_is_for_the_parent():
    forks = Forks(fail, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(forks.processes[0], number)
    assert forks(lambda: 0, None) == [0, 1]


PARENT = """
import fcntl, sys, time
from tinygpt.parallel.forked import Forks
locked = open(sys.argv[1], "w")
fcntl.flock(locked, fcntl.LOCK_EX)
forks = Forks(lambda number: time.sleep(1.5), 2)
print(*forks.processes, flush=True)
forks(lambda: None)
"""


def test_forks_end_after_a_killed_parent_and_hold_none_of_its_files(tmp_path):
    import fcntl

    command = [sys.executable, "-c", PARENT, str(tmp_path / "lock")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    processes = parent.stdout.readline().split()
    time.sleep(0.2)  # now they are busy for a while
    parent.kill()
    parent.wait(20)
    with open(tmp_path / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert parent.stdout.read() == ""  # it ends at once, since no fork holds the other end
    assert all(os.path.exists(f"/proc/{process}") for process in processes)
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{process}") for process in processes):
            return
        time.sleep(0.05)
    raise AssertionError("a fork lives on")


def test_the_memory_of_forks_counts():
    forks = Forks(lambda number: globals().__setitem__("kept", np.ones(2_000_000)), 1)
    before = forks.private_memory()
    forks(lambda: None)
    assert forks.private_memory() - before > 15e6
