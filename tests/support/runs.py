"""Tiny training runs for the tests about checkpoints: in this process, or in one of their own."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import train
from tests.support.survived import count
from tinygpt.run.folder import Run

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "preset": "smoke", "block_size": 8, "n_layer": 1, "n_embd": 8, "batch_size": 4, "max_steps": 20, "eval_interval": 5,
    "eval_iters": 1, "sample_tokens": 5, "dropout": 0.2, "threads": 1,
}  # fmt: skip


def arguments(**settings):
    """Flags of train.py: max_steps=5, resume=PATH, force=True become --max-steps 5 --resume PATH --force."""
    flags = []
    for name, value in settings.items():
        flags += ["--" + name.replace("_", "-"), *([] if value is True else [str(value)])]
    return flags


def train_here(plot=False, **settings):
    """Train in this process; returns what was printed. Without the plots, which would take most of the time."""
    original, printed = Run.plot_losses, io.StringIO()
    if not plot:
        Run.plot_losses = lambda self: None
    try:
        with contextlib.redirect_stdout(printed):
            train.main(arguments(**settings))
    finally:
        Run.plot_losses = original
    return printed.getvalue()


def start(*flags, **settings):
    """A training process of its own, as from a shell."""
    command = [sys.executable, str(ROOT / "train.py"), *map(str, flags), *arguments(**settings)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_until_it_listens(process):
    """Until the process has a handler for SIGTERM of its own."""
    while process.poll() is None:
        lines = dict(
            line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        )
        if int(lines["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)
    raise AssertionError(process.stderr.read())


def finish(process):
    """(exit code, stdout, stderr) of a process, which must end by itself."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def refused(message, **settings):
    """Check that train.py ends with exit code 2 and one line that holds the message."""
    code, _, err = finish(start(**settings))
    assert code == 2 and message in err and err.startswith("error: ") and err.count("\n") == 1, err
    count("refused with one line and exit code 2, through the command line")


def result(folder):
    """What must be equal after the same training: weights and moments by step, losses by event and step,
    samples.
    """
    files = [*folder.glob("ckpt/step_*/*.safetensors"), *folder.glob("samples/*")]
    numbers = [
        (e["event"], e["step"], e.get("loss"), e.get("val_loss"), e.get("train_loss"))
        for e in metrics(folder)
    ]
    assert len(numbers) == len({n[:2] for n in numbers}), "an event was written down twice"
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}, numbers


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
