"""For benchmarks that train whole models: run train.py in a process of its own, read what it left behind."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

from benchmarks import ROOT
from tinygpt import gpt2
from tinygpt.evaluate import total_loss
from tinygpt.text import data
from tinygpt.text.corpus import load_text

TOKENIZERS = {
    "characters": dict(tokenizer="char"),
    "BPE, 2,048 tokens": dict(tokenizer="bpe", vocab_size=2048),
}


def train(folder, **settings):
    """Run train.py in a new folder.

    Returns parameters, peak memory (MB), training seconds and bits per byte of its end.
    """
    command = [sys.executable, str(ROOT / "train.py"), "--out", str(folder), "--overwrite"]
    for name, value in settings.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    last = evaluations(folder)[-1]
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


def metrics(folder):
    """The lines of a run's metrics.jsonl."""
    text = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def evaluations(folder):
    """Those of them that are evaluations."""
    return [line for line in metrics(folder) if line["event"] == "evaluation"]


def seconds_per_step(folder, steps=30, **settings):
    """Measured on the second half of a short run with these settings."""
    short = settings | dict(max_steps=steps, eval_interval=max(1, steps // 2), eval_iters=1, sample_tokens=0)
    train(folder, **short)
    middle, end = evaluations(folder)[-2:]
    return (end["training_seconds"] - middle["training_seconds"]) / (end["step"] - middle["step"])


def bits_per_byte(folder, text):
    """Over the whole validation part of a text."""
    model, tokenizer = gpt2.load_model(folder)
    val = data.split(load_text(text)[1])[1]
    ids = tokenizer.encode(val)
    return total_loss(model, ids) / math.log(2) / (len(val.encode()) - len(tokenizer.pieces[ids[0]]))
