"""Benchmarks. Each measurement runs in a process of its own, so that its peak memory is its own."""

import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"

CALL = """
import importlib, json, sys
module, name, args, kwargs = json.loads(sys.argv[1])
print(json.dumps(getattr(importlib.import_module(module), name)(*args, **kwargs)))
"""


def call_command(function, args, kwargs):
    """The command that calls a function in a new process and prints its result as JSON."""
    call = json.dumps([sys.modules[function.__module__].__spec__.name, function.__name__, args, kwargs])
    return [sys.executable, "-c", CALL, call]


def in_own_process(function, *args, timeout=None, **kwargs):
    """Call a function in a new process and return its result, which must fit JSON.

    If it fails there, or takes more than `timeout` seconds, print why and return None.
    """
    problem = None
    try:
        command = call_command(function, args, kwargs)
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        if result.returncode:
            problem = (result.stderr.strip().splitlines() or ["killed"])[-1]
    except subprocess.TimeoutExpired:
        problem = f"took more than {timeout:.0f} s"
    if problem:
        print(f"  {function.__name__}{args}: {problem}", flush=True)
        return None
    return json.loads(result.stdout.splitlines()[-1])


def save(name, report, folder=RESULTS):
    """Write a report as JSON, by default into benchmarks/results."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (folder / name).write_text(text, encoding="utf-8")


# (family, model) -> generation, where the name does not tell: that of a virtual machine often says no more
# than "AMD EPYC". From the vendors' tables.
GENERATIONS = [
    (25, [*range(16, 32), *range(96, 128), *range(160, 176)], "Zen 4"),
    (25, range(256), "Zen 3"),
    (26, range(256), "Zen 5"),
    (6, [143], "Sapphire Rapids"),
    (6, [207], "Emerald Rapids"),
    (6, [106, 108], "Ice Lake"),
    (6, [85], "Skylake or Cascade Lake"),
]


def processor():
    """The processor's name, with its generation or numbers: AMD EPYC (Zen 4)."""
    facts = cpu_facts()
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    name, family, model = facts["model name"], facts.get("cpu family", ""), facts.get("model", "")
    for known_family, models, generation in GENERATIONS:
        if family == str(known_family) and model in map(str, models):
            return f"{name} ({generation})"
    return f"{name} (family {family}, model {model})" if family else name


def cpu_facts():
    """What Linux says of the first processor, as a dict of texts; {} elsewhere."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = file.read().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
