"""What --overwrite may delete: a run that this program wrote, and nothing else.

All checks come first, so that a refusal leaves everything as it was. Then files are deleted one by one, each
by its name, never a folder with all that is in it.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinygpt.config import UserError
from tinygpt.run import checkpoint, files
from tinygpt.toml import read_toml

LOCK, SETTINGS = ".lock", "config.toml"
CONTENT: files.Layout = {  # of a run's folder
    r"\.lock|config\.toml|metrics\.jsonl|loss\.png": files.FILE,
    r"\.(config\.toml|metrics\.jsonl|loss\.png)\.tmp": files.FILE,
    "samples": {r"step_[0-9]{6,18}\.txt": files.FILE},
    "ckpt": checkpoint.CONTENT,
}
BEFORE_SETTINGS = {LOCK, f".{SETTINGS}.tmp"}  # all that a run has before its config.toml
# A config.toml that a run wrote has every setting; these were there from the first version on. One that a
# person wrote for --config leaves most of them out.
ALWAYS_WRITTEN = {
    "preset", "data", "out", "device", "seed", "architecture", "block_size", "n_layer", "n_head", "n_embd",
    "dropout", "batch_size", "max_steps", "stop_after", "learning_rate", "warmup_steps", "min_lr", "beta1",
    "beta2", "weight_decay", "decay_vectors", "grad_clip", "eval_interval", "eval_iters", "sample_tokens",
    "threads", "micro_batch",
}  # fmt: skip


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings in a run's folder. UserError says why its config.toml is not one that a run wrote."""
    path = folder / SETTINGS
    if not os.path.lexists(path):
        raise UserError(f"no {SETTINGS}")
    if path.is_symlink() or not path.is_file():
        raise UserError(f"its {SETTINGS} is no plain file")
    settings = read_toml(path)
    missing = sorted(ALWAYS_WRITTEN - settings.keys())
    if missing:
        raise UserError(f"its {SETTINGS} has no {missing[0]}, so no run wrote it")
    return settings


def check(folder: Path, inputs: Iterable[tuple[str, str]] = ()) -> None:
    """UserError unless a folder is empty, or holds a run and nothing else, and all of it can be deleted.

    inputs: (flag, path) of all that the new run reads, which must not lie in the folder.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link, so it is not overwritten; give the folder itself")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, so it is not overwritten; give another --out")
    places = [(f"{flag} {path}", path) for flag, path in inputs]
    places += [("the current folder", os.getcwd()), ("your home folder", os.path.expanduser("~"))]
    for name, path in places:
        if _lies_in(path, folder):
            raise UserError(f"{folder} is not overwritten, as {name} lies in it; give another --out")
    ours, foreign = files.sort_out(folder, CONTENT)
    if {path.name for path in (*ours, *foreign)} <= BEFORE_SETTINGS and not foreign:
        return
    holds = f"it holds {_named(foreign)}" if foreign else ""
    try:
        read_settings(folder)
    except UserError as error:
        reason = "; ".join(filter(None, [str(error), holds]))
        raise UserError(f"{folder} is not the folder of a run ({reason}), so it is not overwritten") from None
    if foreign:
        raise UserError(
            f"{folder} is not overwritten: {holds}, which no run wrote; move that away, or give another --out"
        )
    for place in sorted({folder, *(path.parent for path in ours)}):
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"{folder} is not overwritten, as you may not delete what is in {place}")


def empty(folder: Path) -> None:
    """Delete a run from its folder, but neither its lock nor config.toml, which shows that it is a run.

    UserError if something foreign has come into the folder since `check`.
    """
    ours, foreign = files.sort_out(folder, CONTENT)
    if foreign:
        raise UserError(f"{folder} holds {_named(foreign)}, which no run wrote; move that away")
    kept = (folder / LOCK, folder / SETTINGS)
    for path in ours:
        if path not in kept:
            files.remove(path)


def _lies_in(path, folder):
    """Whether a path is a folder or lies in it, at any depth, whatever links lead there."""
    path = Path(os.path.realpath(path))
    return any(place.exists() and place.samefile(folder) for place in (path, *path.parents))


def _named(paths, most=3):
    """The first of some paths in words."""
    links = {path: " (a link)" for path in paths if path.is_symlink()}
    names = ", ".join(files.printable(str(path)) + links.get(path, "") for path in paths[:most])
    return names if len(paths) <= most else f"{names} and {len(paths) - most} more"
