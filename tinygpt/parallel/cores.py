"""How many cores this process may keep busy: those that it is allowed, and no more than it is asked to."""

import math
import os
from pathlib import Path

# What limits the threads of other programs that compute limits ours too. `--threads` wins over all.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def usable_cores() -> set[int]:
    """The cores that this process may use, as `taskset` or a batch system set them."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def core_limit(processes: int = 1) -> float:
    """The most cores that a process should keep busy, however many it may use; infinity without a limit.

    This is the smallest of the numbers in VARIABLES and of the time that a container grants, which
    `processes` on this machine share.
    """
    return min([*_asked_for(), container_quota() / processes])


def whole_cores(cores: float) -> int:
    """So many cores as a number of threads: at least one. (1e-6: three thirds must make one.)"""
    return max(1, int(cores + 1e-6))


def _asked_for():
    """The numbers in the environment; of a list for nested loops, such as 4,2, the first. Others are left."""
    for name in VARIABLES:
        number = os.environ.get(name, "").partition(",")[0].strip()
        if number.isascii() and number.isdigit() and int(number):
            yield int(number)


def container_quota(mounted: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """The cores' worth of time that this process and its relatives may use, as Linux's cgroups say.

    (`docker run --cpus 1.5` or a Kubernetes limit sets it.) Infinity without a limit. mounted: where the
    cgroups are shown; own: the file that names those of this process, of version 2, 1 or both.
    """
    smallest = math.inf
    for line in _lines(own):
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mounted / "cpu" if controllers else mounted
        group = top / path.lstrip("/")
        # A group's parents limit it too. In a container only the topmost may be there.
        for folder in (group, *group.parents):
            smallest = min(smallest, _quota_of(folder, in_one_file=not controllers))
            if folder == top:
                break
    return smallest


def _quota_of(folder, in_one_file):
    """The quota of one cgroup: `cpu.max` holds "150000 100000" or "max 100000", microseconds per period."""
    if in_one_file:
        words = " ".join(_lines(folder / "cpu.max")).split()
    else:
        words = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max", or no such file
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _lines(path):
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
