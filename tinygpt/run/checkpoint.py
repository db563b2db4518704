"""Saving a training run and loading it back: safetensors for arrays, JSON for the rest; never pickle.

A checkpoint is a folder `ckpt/step_004500/` with model.safetensors, optim.safetensors, config.json,
tokenizer.json and state.json, which holds the SHA-256 of the others and, in its `seal`, of itself. It is
written under another name, flushed to the disk and then renamed, so it is there whole or not at all; the
newest is the one with the highest step. The files `latest` and `best` beside it name a checkpoint each, for
people and other programs.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from autograd.backend import array_module, to_numpy
from tinygpt.config import LARGEST_FILE, GPTConfig, UserError, from_dict
from tinygpt.model import GPT
from tinygpt.run import files
from tinygpt.text.tokenizer import load_tokenizer

FORMAT = 2
FILES = ("config.json", "model.safetensors", "optim.safetensors", "tokenizer.json")  # hashed in state.json
LARGEST_HEADER = 1_000_000  # bytes; GPT-2's largest has 60,000
STATE = {  # the fields of state.json that a reader relies on
    "step": int, "optimizer_steps": int, "training_seconds": float, "best": dict, "corpus": str, "data_sha256": str,
    "machine": str, "settings": dict, "sha256": dict,
}  # fmt: skip


# --- writing --------------------------------------------------------------------------------------


def save(run_folder, model, optimizer, tokenizer, state):
    """Write the checkpoint of state["step"] (a JSON-able dict) and delete the others but the best. Returns
    its folder.

    If it is there already (the run was resumed from it) it stays as it is. UserError if it cannot be written;
    what was there before is still there then.
    """
    ckpt = Path(run_folder) / "ckpt"
    folder = ckpt / _name(state["step"])
    if folder.exists():
        return folder
    temporary = ckpt / f".{folder.name}.tmp"
    try:
        ckpt.mkdir(exist_ok=True)
        _write(temporary, model, optimizer, tokenizer, state)
        os.rename(temporary, folder)
        files.flush(ckpt)
        keep_only(ckpt, state["step"], state["best"])
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            files.remove(temporary)
        kept = folders(ckpt)
        raise UserError(
            f"cannot save {folder}: {getattr(error, 'strerror', None) or error}; "
            + (
                f"{kept[-1]} is whole: make room and --resume {run_folder}"
                if kept
                else "there is no checkpoint yet"
            )
        ) from None
    return folder


def _write(folder, model, optimizer, tokenizer, state):
    files.remove(folder)
    os.mkdir(folder)
    weights = {name: to_numpy(p.data) for name, p in model.named_parameters()}
    _write_arrays(folder / "model.safetensors", weights, metadata={"format": "pt"})
    moments = {
        f"{i}.{key}": to_numpy(group[key]) for i, group in enumerate(optimizer.groups) for key in ("m", "v")
    }
    _write_arrays(folder / "optim.safetensors", moments)
    files.create(folder / "config.json", json.dumps(dataclasses.asdict(model.config), indent=1) + "\n")
    files.create(folder / "tokenizer.json", tokenizer.to_json())
    hashes = {name: _sha256(folder / name) for name in FILES}
    files.create(
        folder / "state.json",
        seal({**state, "format": FORMAT, "optimizer_steps": optimizer.steps, "sha256": hashes}),
    )
    for name in ("model.safetensors", "optim.safetensors"):
        shutil.copymode(folder / "state.json", folder / name)  # safetensors lets nobody else read them
    files.flush(folder)


def _write_arrays(path, arrays, metadata=None):
    # Contiguous, because safetensors writes other NumPy arrays wrongly without a word.
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, metadata)
    files.flush(path)


def keep_only(ckpt, step, best):
    """Delete every checkpoint but that of this step and the best, and what killed processes left half done."""
    kept = {"latest": ckpt / _name(step), "best": ckpt / _name(best.get("step", step))}
    for name, folder in kept.items():
        if folder.is_dir():
            files.write(ckpt / name, folder.name + "\n")
    for entry in sorted(ckpt.iterdir()):
        if step_of(entry) is not None and entry not in kept.values():
            # half deleted, it must not look like a checkpoint
            entry = entry.rename(ckpt / f".{entry.name}.old")
        if entry.name.startswith(".") and entry.suffix in (".old", ".tmp"):
            files.remove(entry)


def seal(state):
    """The text of state.json for a dict: JSON whose last field is the SHA-256 of the text without that field."""
    state = {key: value for key, value in state.items() if key != "seal"}
    return _dumps(state | {"seal": hashlib.sha256(_dumps(state).encode()).hexdigest()})


def is_finite(optimizer):
    """Whether all weights and moments are numbers.

    (A sum that overflows stands for weights far beyond use.)
    """
    arrays = [group[key] for group in optimizer.groups for key in ("data", "m", "v")]
    return all(math.isfinite(float(array.sum())) for array in arrays)


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are those that were written: `load` has compared every hash."""

    folder: Path
    state: dict

    @property
    def run_folder(self):
        return Path(os.path.normpath(self.folder / ".." / ".."))

    def tokenizer(self):
        return load_tokenizer(self.folder / "tokenizer.json")

    def model_config(self):
        path = self.folder / "config.json"
        return from_dict(GPTConfig, read_json(path), path)

    def model(self):
        """The GPT with its weights."""
        config, path = self.model_config(), self.folder / "model.safetensors"
        if 4 * config.num_parameters() > path.stat().st_size:  # before memory is asked for
            raise UserError(
                f"{path} is too small for the {config.num_parameters():,} parameters of config.json"
            )
        model = GPT(config, seed=None)
        self._load_weights(model)
        return model

    def restore(self, model, optimizer):
        """Put the weights and the optimizer's state back, bit for bit."""
        self._load_weights(model)
        targets = {f"{i}.{key}": group[key] for i, group in enumerate(optimizer.groups) for key in ("m", "v")}
        _fill(targets, self.folder / "optim.safetensors")
        optimizer.steps = self.state["optimizer_steps"]

    def _load_weights(self, model):
        _fill({name: p.data for name, p in model.named_parameters()}, self.folder / "model.safetensors")


def load(path):
    """The Checkpoint in a run's folder (its newest) or in a checkpoint's own.

    UserError names the file that is wrong.
    """
    folder = find(path)
    state = _read_state(folder / "state.json")
    for name in FILES:
        if not (folder / name).is_file() or _sha256(folder / name) != state["sha256"][name]:
            raise UserError(
                f"{folder / name} is missing or damaged (its checksum differs); {_others(folder)}"
            )
    return Checkpoint(folder, state)


def load_for_sampling(path):
    """(model, tokenizer, state) of a run's folder (its newest checkpoint) or of a checkpoint's folder."""
    saved = load(path)
    model, tokenizer = saved.model(), saved.tokenizer()
    if model.config.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"{saved.folder}: tokenizer.json has {tokenizer.vocab_size} tokens, config.json "
            f"{model.config.vocab_size}"
        )
    return model, tokenizer, saved.state


def find(path):
    """The folder of the newest checkpoint of a run, or of the one that is named: by its own path, by `latest`
    or `best`.
    """
    path = Path(path)
    if path.name in ("latest", "best") and path.is_file():
        name = _read_text(path, 100).strip()
        if step_of(Path(name)) is None or Path(name).name != name:
            raise UserError(f"{path} does not name a checkpoint; give the folder of one")
        path = path.parent / name
    if step_of(path) is not None:
        return path
    found = folders(path / "ckpt")
    if path.is_file():
        raise UserError(
            f"{path} is a file; give the folder of a run, such as runs/NAME (a pickle or .pt is never read)"
        )
    if not found:
        raise UserError(f"{path} has no checkpoint; give the folder of a run, such as runs/NAME")
    return found[-1]


def read_arrays(path, shapes):
    """Yield (name, float32 array) for each name in `shapes`, one at a time.

    UserError unless the file holds just these.
    """
    check_header(path)
    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            for name in sorted(shapes.keys() ^ names):
                raise UserError(
                    f"{path}: tensor {name} is "
                    + ("missing" if name in shapes else "not one of this model's")
                )
            for name, shape in shapes.items():
                found = file.get_slice(name)
                if (found.get_dtype(), tuple(found.get_shape())) != ("F32", shape):
                    raise UserError(
                        f"{path}: {name} should be F32 {shape}, found {found.get_dtype()} {found.get_shape()}"
                    )
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def check_header(path):
    """Refuse what is no safetensors file before anything is made of its content."""
    try:
        with open(path, "rb") as file:
            start, size = file.read(8), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise UserError(
            f"{path} is a pickle or a .pt file, which can run code: never read; convert it to safetensors"
        )
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, LARGEST_HEADER):
        raise UserError(
            f"{path} is truncated or not a safetensors file: {size:,} bytes, with a header of {length:,}"
        )


def _fill(targets, path):
    """Copy the arrays of a file into these arrays, by name."""
    for name, array in read_arrays(path, {name: target.shape for name, target in targets.items()}):
        targets[name][...] = array_module(targets[name]).asarray(array)


def _read_state(path):
    state = read_json(path)
    if state.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {state.get('format')!r:.80} is not known to this version, which reads {FORMAT}"
        )
    if not _is_sealed(state, path):
        raise UserError(f"{path} is damaged (its seal differs); {_others(path.parent)}")
    for name, kind in STATE.items():
        if not isinstance(state.get(name), kind) or (kind is int and not 0 <= state[name] < 2**53):
            raise UserError(
                f"{path}: {name} should be of type {kind.__name__}, found {state.get(name)!r:.80}"
            )
    if sorted(state["sha256"]) != sorted(FILES):
        raise UserError(f"{path}: the files named are {sorted(state['sha256'])!r:.200}, not {sorted(FILES)}")
    if state["best"] and {name: type(value) for name, value in state["best"].items()} != {
        "step": int,
        "val_loss": float,
    }:
        raise UserError(f"{path}: best should hold a step and a val_loss, found {state['best']!r:.80}")
    return state


def _is_sealed(state, path):
    try:
        return seal(state) == _read_text(path, LARGEST_FILE)
    except RecursionError:
        return False


def _others(folder):
    """What to do instead of using this checkpoint."""
    others = [str(other) for other in folders(folder.parent) if other.name != folder.name]
    return f"use {others[-1]} instead" if others else "there is no other checkpoint beside it"


def folders(ckpt):
    """The checkpoints in a folder, the newest last."""
    entries = ckpt.iterdir() if ckpt.is_dir() else ()
    return sorted((entry for entry in entries if step_of(entry) is not None and entry.is_dir()), key=step_of)


def _name(step):
    return f"step_{step:06d}"


def step_of(folder):
    """The step in the name of a checkpoint's folder; None for other names."""
    match = re.fullmatch(r"step_(\d{6,18})", folder.name, re.ASCII)
    return int(match[1]) if match else None


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dumps(state):
    return json.dumps(state, indent=1) + "\n"


def _read_text(path, largest):
    try:
        if not path.is_file():
            raise UserError(f"{path} is missing or not a file")
        if path.stat().st_size > largest:
            raise UserError(
                f"{path} has {path.stat().st_size:,} bytes; more than {largest:,} cannot be right"
            )
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def read_json(path):
    """The object in a small JSON file."""
    try:
        value = json.loads(_read_text(path, LARGEST_FILE))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} should hold a JSON object")
    return value
