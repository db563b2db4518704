"""Saving a training run and loading it back: safetensors for arrays, JSON for the rest; never pickle.

A checkpoint is a folder `ckpt/step_004500/` with model.safetensors, optim.safetensors, config.json, tokenizer.json and
state.json. It is written under another name, flushed to the disk and then renamed, so it is there whole or not at all.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from autograd.backend import to_numpy
from tinygpt.config import GPTConfig, UserError
from tinygpt.model import GPT
from tinygpt.tokenizer import CharTokenizer

FORMAT = 1


def save(run_folder, model, optimizer, tokenizer, state):
    """Write the checkpoint of state["step"] (a JSON-able dict) and point `latest` at it. Returns its folder."""
    parent = Path(run_folder) / "ckpt"
    folder = parent / f"step_{state['step']:06d}"
    temporary = parent / f".{folder.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    # Contiguous, because safetensors writes other NumPy arrays wrongly without a word.
    weights = {name: np.ascontiguousarray(to_numpy(p.data)) for name, p in model.named_parameters()}
    save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
    moments = {f"{i}.{key}": to_numpy(group[key]) for i, group in enumerate(optimizer.groups) for key in ("m", "v")}
    save_file(moments, temporary / "optim.safetensors")
    _write_json(temporary / "config.json", dataclasses.asdict(model.config))
    (temporary / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    files = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
    _write_json(temporary / "state.json", state | {"format": FORMAT, "optimizer_steps": optimizer.steps, "sha256": files})
    for path in [*temporary.iterdir(), temporary]:
        _flush(path)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    _point_latest_at(folder)
    return folder


def load_for_sampling(path):
    """(model, tokenizer, state) of a run's folder (its latest checkpoint) or of a checkpoint's folder."""
    folder = find(path)
    state = _read_json(folder / "state.json")
    if state.get("format") != FORMAT:
        raise UserError(f"{folder}: format {state.get('format')!r} is not known to this version, which reads {FORMAT}")
    for name, expected in state["sha256"].items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise UserError(f"{folder / name} is missing or damaged (its checksum differs); use another checkpoint")
    tokenizer = CharTokenizer.from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = GPT(GPTConfig(**_read_json(folder / "config.json")))
    _load_weights(model, folder / "model.safetensors")
    return model, tokenizer, state


def find(path):
    """The folder of the newest checkpoint of a run, or the path itself if it is a checkpoint."""
    path = Path(path)
    if (path / "state.json").is_file():
        return path
    latest = path / "ckpt" / "latest"
    if not latest.is_file():
        raise UserError(f"{path} has no checkpoint; give the folder of a run, such as runs/NAME")
    return latest.parent / latest.read_text().strip()


def _load_weights(model, path):
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    for name, parameter in model.named_parameters():
        if name not in weights or weights[name].shape != parameter.shape:
            found = weights[name].shape if name in weights else "nothing"
            raise UserError(f"{path}: {name} should have shape {parameter.shape}, found {found}")
        parameter.data[...] = weights[name]


def _point_latest_at(folder):
    temporary = folder.parent / ".latest.tmp"
    temporary.write_text(folder.name + "\n")
    _flush(temporary)
    temporary.replace(folder.parent / "latest")
    _flush(folder.parent)


def _flush(path):
    """Make sure that a file, or the list of files in a folder, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
