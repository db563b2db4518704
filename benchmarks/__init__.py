"""Benchmarks. Each measurement runs in a process of its own, so that its peak memory is its own."""

import json
import subprocess
import sys

CALL = """
import importlib, json, sys
module, name, args, kwargs = json.loads(sys.argv[1])
print(json.dumps(getattr(importlib.import_module(module), name)(*args, **kwargs)))
"""


def in_own_process(function, *args, timeout=None, **kwargs):
    """A function's result, through JSON, from a new process; None, and why, if it failed there or took too
    many seconds.
    """
    call = json.dumps([sys.modules[function.__module__].__spec__.name, function.__name__, args, kwargs])
    try:
        result = subprocess.run(
            [sys.executable, "-c", CALL, call], capture_output=True, text=True, timeout=timeout
        )
        problem = result.returncode and (result.stderr.strip().splitlines() or ["killed"])[-1]
    except subprocess.TimeoutExpired:
        problem = f"took more than {timeout:.0f} s"
    if problem:
        print(f"  {function.__name__}{args}: {problem}", flush=True)
        return None
    return json.loads(result.stdout.splitlines()[-1])
