"""Saving a training run and loading it back: safetensors for arrays, JSON for the rest; never pickle.

A checkpoint is a folder `ckpt/step_004500/` with model.safetensors, optim.safetensors, config.json,
tokenizer.json and state.json. state.json holds the SHA-256 of the others and, in its `seal`, of itself. The
folder is written under another name, flushed to the disk and then renamed, so it is there complete or not at
all. The newest is the one with the highest step. The files `latest` and `best` beside it name a checkpoint
each, for people and other programs.
"""

import contextlib
import dataclasses
import math
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from autograd import AdamW
from autograd.backend import array_module, to_numpy
from tinygpt.config import GPTConfig, UserError, from_dict
from tinygpt.model import GPT
from tinygpt.run import files
from tinygpt.text.data import sha256_of
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer, Tokenizer
from tinygpt.text.tokenizer_file import load_file, to_json

FORMAT = 2
FILES = ("config.json", "model.safetensors", "optim.safetensors", "tokenizer.json")  # hashed in state.json
LARGEST_HEADER = 1_000_000  # bytes; GPT-2's largest has 60,000
STATE = {  # the fields of state.json that a reader relies on
    "step": int,
    "optimizer_steps": int,
    "training_seconds": float,
    "best": dict,
    "corpus": str,
    "data_sha256": str,
    "machine": str,
    "settings": dict,
    "sha256": dict,
}
# The fields of its `best`, which is empty before the first evaluation.
BEST = {"step": int, "val_loss": float}
# Only what these describe is ever deleted: the folder of a checkpoint, and what a run has in ckpt/.
CHECKPOINT: files.Layout = {
    "|".join(map(re.escape, (*FILES, "state.json"))): files.FILE,
    r"\.tmp[A-Za-z0-9]{6}": files.FILE,  # safetensors gives a file its name when it is whole
}
STEP_FOLDER = r"step_[0-9]{6,18}|\.step_[0-9]{6,18}\.(tmp|old)"
CONTENT: files.Layout = {r"latest|best|\.latest\.tmp|\.best\.tmp": files.FILE, STEP_FOLDER: CHECKPOINT}
Shape = tuple[int, ...]


# --- writing --------------------------------------------------------------------------------------


def save(
    run_folder: str | Path,
    model: GPT,
    optimizer: AdamW,
    tokenizer: CharTokenizer | BPETokenizer,
    state: dict[str, Any],
) -> Path:
    """Write the checkpoint of state["step"] and delete the others except the best. Returns its folder.

    state: what becomes state.json. A checkpoint that is there already (the run was resumed from it) stays as
    it is. UserError if it cannot be written; then the older ones are still there.
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
            files.remove_folder(temporary, CHECKPOINT)
        reason, advice = getattr(error, "strerror", None) or error, "there is no checkpoint yet"
        if kept := folders(ckpt):
            advice = f"{kept[-1]} is complete: make room and --resume {run_folder}"
        raise UserError(f"cannot save {folder}: {reason}; {advice}") from None
    return folder


def _write(folder, model, optimizer, tokenizer, state):
    files.remove_folder(folder, CHECKPOINT)
    os.mkdir(folder)
    weights = {name: to_numpy(p.data) for name, p in model.named_parameters()}
    _write_arrays(folder / "model.safetensors", weights, metadata={"format": "pt"})
    moments = {name: to_numpy(array) for name, array in _moments(optimizer).items()}
    _write_arrays(folder / "optim.safetensors", moments)
    files.create(folder / "config.json", files.json_text(dataclasses.asdict(model.config)))
    files.create(folder / "tokenizer.json", to_json(tokenizer))
    hashes = {name: files.sha256_of_file(folder / name) for name in FILES}
    state = {**state, "format": FORMAT, "optimizer_steps": optimizer.steps, "sha256": hashes}
    files.create(folder / "state.json", seal(state))
    for name in ("model.safetensors", "optim.safetensors"):
        # safetensors lets only their owner read them
        shutil.copymode(folder / "state.json", folder / name)
    files.flush(folder)


def _write_arrays(path, arrays, metadata=None):
    # Contiguous, because safetensors writes other NumPy arrays wrongly without an error.
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, metadata)
    files.flush(path)


def _moments(optimizer):
    """{name in optim.safetensors: array} of AdamW's two moments, for each group of parameters."""
    return {f"{i}.{key}": group[key] for i, group in enumerate(optimizer.groups) for key in ("m", "v")}


def keep_only(ckpt: Path, step: int, best: dict[str, Any]) -> None:
    """Delete all checkpoints except that of this step and the best, and what killed processes left behind.

    A checkpoint that holds something foreign stays.
    """
    kept = {"latest": ckpt / _name(step), "best": ckpt / _name(best.get("step", step))}
    for name, folder in kept.items():
        if folder.is_dir():
            files.write(ckpt / name, folder.name + "\n")
    for entry in sorted(ckpt.iterdir()):
        if entry in kept.values() or foreign_in(entry):
            continue
        if step_of(entry) is not None:
            # Under another name, so that it is no checkpoint any more when only a part of it is deleted.
            entry = entry.rename(ckpt / f".{entry.name}.old")
        if entry.name.startswith("."):
            files.remove_folder(entry, CHECKPOINT)


def foreign_in(folder: Path) -> list[Path]:
    """What a checkpoint never wrote in its folder: the folder itself, if it is something else."""
    if not re.fullmatch(STEP_FOLDER, folder.name) or not folder.is_dir() or folder.is_symlink():
        return [folder]
    return files.sort_out(folder, CHECKPOINT)[1]


def seal(state: dict[str, Any]) -> str:
    """The text of state.json: JSON whose last field is the SHA-256 of the text without that field."""
    state = {key: value for key, value in state.items() if key != "seal"}
    return files.json_text(state | {"seal": sha256_of(files.json_text(state).encode())})


def is_finite(optimizer: AdamW) -> bool:
    """Whether all weights and moments are numbers.

    (If their sum overflows, the weights are far too large to be of use.)
    """
    arrays = [parameter.data for parameter in optimizer.parameters()]
    arrays += _moments(optimizer).values()
    return all(math.isfinite(float(array.sum())) for array in arrays)


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are those that were written: `load` has compared every hash."""

    folder: Path
    state: dict[str, Any]

    @property
    def run_folder(self) -> Path:
        return Path(os.path.normpath(self.folder / ".." / ".."))

    def tokenizer(self) -> Tokenizer:
        return load_file(self.folder / "tokenizer.json")

    def model_config(self) -> GPTConfig:
        path = self.folder / "config.json"
        return from_dict(GPTConfig, files.read_json(path), path)

    def model(self) -> GPT:
        """The GPT with its weights."""
        config, path = self.model_config(), self.folder / "model.safetensors"
        if 4 * config.num_parameters() > path.stat().st_size:  # before memory is asked for
            raise UserError(
                f"{path} is too small for the {config.num_parameters():,} parameters of config.json"
            )
        model = GPT(config, seed=None)
        self._load_weights(model)
        return model

    def restore(self, model: GPT, optimizer: AdamW) -> None:
        """Put the saved weights and the saved state of the optimizer into these two, bit for bit."""
        self._load_weights(model)
        _fill(_moments(optimizer), self.folder / "optim.safetensors")
        optimizer.steps = self.state["optimizer_steps"]

    def _load_weights(self, model):
        _fill({name: p.data for name, p in model.named_parameters()}, self.folder / "model.safetensors")


def load(path: str | Path) -> Checkpoint:
    """The newest Checkpoint in a run's folder, or the one in a checkpoint's own folder.

    UserError names the file that is wrong.
    """
    folder = find(path)
    state = read_state(folder / "state.json")
    for name in FILES:
        if not (folder / name).is_file() or files.sha256_of_file(folder / name) != state["sha256"][name]:
            raise UserError(
                f"{folder / name} is missing or damaged (its checksum differs); {_others(folder)}"
            )
    return Checkpoint(folder, state)


def load_for_sampling(path: str | Path) -> tuple[GPT, Tokenizer, dict[str, Any]]:
    """(model, tokenizer, state) of a run's folder (its newest checkpoint) or of a checkpoint's folder."""
    saved = load(path)
    model, tokenizer = saved.model(), saved.tokenizer()
    if model.config.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"{saved.folder}: tokenizer.json has {tokenizer.vocab_size} tokens, config.json "
            f"{model.config.vocab_size}"
        )
    return model, tokenizer, saved.state


def find(path: str | Path) -> Path:
    """The folder of a run's newest checkpoint, or of the one that its own path, `latest` or `best` names."""
    path = Path(path)
    if path.name in ("latest", "best") and path.is_file():
        name = files.read_text(path, 100).strip()
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


def read_arrays(path: Path, shapes: dict[str, Shape]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, float32 array) for each name in `shapes`, one at a time.

    UserError unless the file holds just these.
    """
    check_header(path)
    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            for name in sorted(shapes.keys() ^ names):
                fault = "missing" if name in shapes else "not one of this model's"
                raise UserError(f"{path}: tensor {name} is {fault}")
            for name, shape in shapes.items():
                found = file.get_slice(name)
                if (found.get_dtype(), tuple(found.get_shape())) != ("F32", shape):
                    raise UserError(
                        f"{path}: {name} should be F32 {shape}, found {found.get_dtype()} {found.get_shape()}"
                    )
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def check_header(path: Path) -> None:
    """UserError for what is no safetensors file, before anything in it is used."""
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


def read_state(path: Path) -> dict[str, Any]:
    """The fields of a state.json whose seal is right. UserError says what is wrong with it."""
    state = files.read_json(path)
    if state.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {state.get('format')!r:.80} is not known to this version, which reads {FORMAT}"
        )
    if not _is_sealed(state, path):
        raise UserError(f"{path} is damaged (its seal differs); {_others(path.parent)}")
    for name, kind in STATE.items():
        value = state.get(name)
        if not isinstance(value, kind) or (kind is int and not 0 <= value < 2**53):
            raise UserError(f"{path}: {name} should be of type {kind.__name__}, found {value!r:.80}")
    if sorted(state["sha256"]) != sorted(FILES):
        raise UserError(f"{path}: the files named are {sorted(state['sha256'])!r:.200}, not {sorted(FILES)}")
    best = state["best"]
    if best and {name: type(value) for name, value in best.items()} != BEST:
        raise UserError(f"{path}: best should hold a step and a val_loss, found {best!r:.80}")
    return state


def _is_sealed(state, path):
    try:
        return seal(state) == files.read_text(path)
    except RecursionError:
        return False


def _others(folder):
    """What to do instead of using this checkpoint."""
    others = [str(other) for other in folders(folder.parent) if other.name != folder.name]
    return f"use {others[-1]} instead" if others else "there is no other checkpoint beside it"


def folders(ckpt: Path) -> list[Path]:
    """The checkpoints in a folder, the newest last."""
    entries = ckpt.iterdir() if ckpt.is_dir() else ()
    return sorted((entry for entry in entries if step_of(entry) is not None and entry.is_dir()), key=step_of)


def _name(step):
    return f"step_{step:06d}"


def step_of(folder: Path) -> int | None:
    """The step in the name of a checkpoint's folder; None for other names."""
    match = re.fullmatch(r"step_(\d{6,18})", folder.name, re.ASCII)
    return int(match[1]) if match else None
