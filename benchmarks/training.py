"""What the benchmarks that train whole models share: a run of train.py in a process of its own, and what it
left behind.
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

from tinygpt import gpt2
from tinygpt.evaluate import total_loss
from tinygpt.text import data

RESULTS = Path(__file__).parent / "results"


def train(folder, **settings):
    """Run train.py in a new folder.

    Returns parameters, peak memory (MB), training seconds and bits per byte of its end.
    """
    flags = [part for name, value in settings.items() for part in ("--" + name.replace("_", "-"), str(value))]
    command = [
        sys.executable,
        str(Path(__file__).parent.parent / "train.py"),
        *flags,
        "--out",
        str(folder),
        "--overwrite",
    ]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    lines = [
        json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    last = [line for line in lines if line["event"] == "evaluation"][-1]
    return dict(
        parameters=_number(r"model: ([\d,]+) parameters", result.stdout),
        vocabulary=_number(r"vocabulary of ([\d,]+)", result.stdout),
        peak_mb=_number(r"peak memory ([\d,]+) MB", result.stdout),
        steps=last["step"],
        seconds=last["training_seconds"],
        val_bits_per_byte=last["val_bits_per_byte"],
    )


def _number(pattern, text):
    return int(re.search(pattern, text)[1].replace(",", ""))


def seconds_per_step(folder, steps=30, **settings):
    """Measured on the second half of a short run with these settings."""
    short = settings | dict(max_steps=steps, eval_interval=max(1, steps // 2), eval_iters=1, sample_tokens=0)
    train(folder, **short)
    lines = [
        json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    middle, end = [line for line in lines if line["event"] == "evaluation"][-2:]
    return (end["training_seconds"] - middle["training_seconds"]) / (end["step"] - middle["step"])


def bits_per_byte(folder, text):
    """Over the whole validation part of a text."""
    model, tokenizer = gpt2.load_model(folder)
    val = data.split(data.load_text(text)[1])[1]
    ids = tokenizer.encode(val)
    return total_loss(model, ids) / math.log(2) / (len(val.encode()) - len(tokenizer.pieces[ids[0]]))


def save(name, report):
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
