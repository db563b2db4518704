"""Going on with a run: what must be the same as before, and what may change.

The step and the seed alone decide which batch and which dropout masks come next (see autograd/random.py). So
the weights, the optimizer's state and the settings are all that a run needs to go on as if it had never
stopped.
"""

import dataclasses
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.config import TrainConfig, UserError, from_dict
from tinygpt.run.checkpoint import Checkpoint, folders, foreign_in, step_of
from tinygpt.text.data import checksum

# These do not change what the steps compute. (More threads, other micro-batches or another device round
# differently.) `data`, `encoding` and `text_key` say where the text is and how it is read; its checksum says
# whether it is the same. `out` is the folder that the run is in now.
FREE = {
    "data",
    "encoding",
    "text_key",
    "out",
    "device",
    "threads",
    "micro_batch",
    "activation_checkpointing",
    "stop_after",
    "eval_interval",
    "eval_iters",
    "sample_tokens",
    "detect_anomaly",
    "patience",
}
# These made the weights or the tokenizer. No step after that can change them, so not even --force may.
FIXED = {
    "preset",
    "init_from",
    "tokenizer",
    "vocab_size",
    "architecture",
    "block_size",
    "n_layer",
    "n_head",
    "n_embd",
}
NAMES = ("", "shakespeare", "python", "-")  # what `data` may be beside a path


def settings(saved: Checkpoint, asked: dict[str, Any], force: bool = False) -> TrainConfig:
    """The TrainConfig of a run that goes on from a Checkpoint: its own settings, changed as asked for now.

    UserError shows the differences that would make it another run, unless forced.
    """
    before = from_dict(TrainConfig, saved.state["settings"], saved.folder / "state.json")
    here = {"stop_after": 0, "out": str(saved.run_folder)}
    if "data" not in asked:
        here["data"] = data_of(saved)
    after = TrainConfig(**(dataclasses.asdict(before) | here | asked))
    free = set(FREE)
    if before.min_lr < 0:  # or else the learning rate decays to min_lr at max_steps
        free.add("max_steps")
    names = [name for name in asked if name not in free and getattr(after, name) != getattr(before, name)]
    fixed = [name for name in names if name in FIXED]
    if fixed or (names and not force):
        changes = ", ".join(f"{name} {getattr(before, name)!r} -> {getattr(after, name)!r}" for name in names)
        advice = "leave them, or --force the change"
        if fixed:
            advice = (
                f"leave {' and '.join(fixed)} out: a run that goes on cannot change that, nor can --force"
            )
        raise UserError(f"{saved.run_folder} was trained with other settings: {changes}; {advice}")
    if "max_steps" in asked and after.max_steps < saved.state["step"]:
        raise UserError(
            f"{saved.run_folder} has done {saved.state['step']} steps already, more than max_steps "
            f"{after.max_steps}; give a larger --max-steps"
        )
    return after


def lasting(data: Any) -> Any:
    """The setting `data` as a run records it: every path absolute, so that it can be read from anywhere."""
    if isinstance(data, str):
        return data if data in NAMES else os.path.abspath(data)
    return type(data)(map(lasting, data))


def data_of(saved: Checkpoint) -> Any:
    """The setting `data` of a Checkpoint's run, with every path where it is now.

    If a file is no longer there (an older version recorded paths as they were given; or the folders were
    moved), it is looked for beside the run. UserError if it is in neither place.
    """
    data = saved.state["settings"].get("data", "")
    found = [_found(path, saved) for path in ([data] if isinstance(data, str) else data)]
    return found[0] if isinstance(data, str) else type(data)(found)


def _found(path: str, saved: Checkpoint) -> str:
    if path == "-":
        raise UserError(
            f"{saved.run_folder} was trained on standard input; give the same text once more with --data"
        )
    if path in NAMES or _is_there(path):
        return path
    for place in _beside(path, saved.run_folder):
        if _is_there(place):
            return place
    raise UserError(
        f"{saved.run_folder} was trained on {path}, which is not there any more; name the text with --data"
    )


def _beside(path: str, run_folder: Path) -> Iterator[str]:
    """Where a text may be that was moved together with its run: the end of its path, from each folder above.

    Folders near the run come first, and in each of them the longest end of the path.
    """
    parts = Path(path).parts
    for folder in run_folder.resolve().parents:
        for start in range(1 if os.path.isabs(path) else 0, len(parts)):
            if not glob.has_magic(parts[start]):  # *.txt alone would match whatever lies there
                yield str(Path(folder, *parts[start:]))


def _is_there(path: str) -> bool:
    return os.path.exists(path) or bool(glob.glob(path, recursive=True))


def check_place(saved: Checkpoint, force: bool = False) -> None:
    """UserError if going back to this Checkpoint would delete later ones, unless forced.

    What is not ours in them is never deleted.
    """
    later = [folder for folder in folders(saved.folder.parent) if step_of(folder) > saved.state["step"]]
    if later and not force:
        names = " and ".join(folder.name for folder in later)
        raise UserError(f"going back to {saved.folder} deletes {names}; --force does it")
    foreign = [path for folder in later for path in foreign_in(folder)]
    if foreign:
        raise UserError(
            f"going back to {saved.folder} would delete {foreign[0]}, which no run wrote: move it away"
        )


def check_data(saved: Checkpoint, corpus: str, documents: Sequence[str], force: bool = False) -> None:
    """UserError if the documents are not those that the run was trained on, unless forced."""
    before, now = saved.state["data_sha256"], checksum(documents)
    if now != before and not force:
        raise UserError(
            f"{saved.run_folder} was trained on other data: {saved.state['corpus']} with sha256 "
            f"{before[:12]}..., now {corpus} with {now[:12]}...; give the same text with --data, or "
            "--force the change"
        )
