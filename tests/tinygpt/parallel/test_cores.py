"""The number of worker threads respects what the user and the system allow."""

import math
import os

import pytest

from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.parallel import cores
from tinygpt.parallel.ranks import ALONE
from tinygpt.parallel.workers import choose_division


@pytest.fixture
def machine(monkeypatch):
    """machine(cores, quota, **environment): a machine with so many cores for this process."""

    def set_up(usable, quota=math.inf, **environment):
        for name in cores.VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(usable)), raising=False)
        monkeypatch.setattr(cores, "container_quota", lambda: quota)

    return set_up


@pytest.mark.parametrize(
    ("usable", "quota", "environment", "expected"),
    [
        (8, math.inf, {}, 8),
        (8, math.inf, {"OMP_NUM_THREADS": "1"}, 1),
        (8, math.inf, {"OPENBLAS_NUM_THREADS": "3"}, 3),
        (8, math.inf, {"MKL_NUM_THREADS": "2", "OMP_NUM_THREADS": "5"}, 2),
        (8, math.inf, {"OMP_NUM_THREADS": "4,2"}, 4),
        (8, math.inf, {"OMP_NUM_THREADS": "64"}, 8),
        (8, math.inf, {"OMP_NUM_THREADS": ""}, 8),
        (8, math.inf, {"OMP_NUM_THREADS": "0", "MKL_NUM_THREADS": "many", "OPENBLAS_NUM_THREADS": "-2"}, 8),
        (1, math.inf, {"OMP_NUM_THREADS": "4"}, 1),
        (8, 2.0, {}, 2),
        (8, 1.5, {}, 1),
        (8, 0.5, {}, 1),
        (8, 4.0, {"OMP_NUM_THREADS": "3"}, 3),
    ],
)
def test_the_smallest_limit_counts(usable, quota, environment, expected, machine):
    machine(usable, quota, **environment)
    assert ALONE.cores() == expected
    assert choose_division(TrainConfig(preset="x"), GPTConfig(65))[0] == expected


def test_threads_that_are_asked_for_win(machine):
    machine(8, 1.0, OMP_NUM_THREADS="1")
    assert choose_division(TrainConfig(preset="x", threads=5), GPTConfig(65))[0] == 5


def test_the_ranks_of_a_machine_share_the_quota(machine):
    machine(8, 4.0)
    assert cores.core_limit(2) == 2.0
    machine(8, 4.0, OMP_NUM_THREADS="1")
    assert cores.core_limit(2) == 1


TREES = {  # name -> (/proc/self/cgroup, {file below /sys/fs/cgroup: its text}, the quota)
    "none": ("0::/\n", {}, math.inf),
    "unlimited": ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
    "a container": ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    "a group": ("0::/user/job\n", {"user/job/cpu.max": "50000 100000"}, 0.5),
    "its parent": (
        "0::/user/job\n",
        {"user/job/cpu.max": "max 100000", "user/cpu.max": "200000 100000"},
        2.0,
    ),
    "version 1": (
        "5:cpu,cpuacct:/docker/ab\n4:memory:/x\n",
        {"cpu/docker/ab/cpu.cfs_quota_us": "300000\n", "cpu/docker/ab/cpu.cfs_period_us": "100000\n"},
        3.0,
    ),
    "version 1, seen from within": (
        "5:cpu:/docker/ab\n",
        {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
        2.0,
    ),
    "version 1, unlimited": (
        "1:cpu:/\n0::/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        math.inf,
    ),
    "nonsense": ("what\n\n0::\n", {"cpu.max": "a b c"}, math.inf),
}


@pytest.mark.parametrize("name", TREES)
def test_quotas(name, tmp_path):
    own, files, expected = TREES[name]
    (tmp_path / "own").write_text(own)
    for path, text in files.items():
        (tmp_path / "groups" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / path).write_text(text)
    assert cores.container_quota(tmp_path / "groups", tmp_path / "own") == expected


def test_this_machine_can_be_asked():
    assert cores.container_quota() > 0 and ALONE.cores() >= 1
