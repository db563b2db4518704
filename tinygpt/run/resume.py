"""Going on with a run: what must be the same as before, and what may change.

The step and the seed alone decide which batch and which dropout masks come next (see autograd/random.py). So
the weights, the optimizer's state and the settings are all that a run needs to go on as if it had never
stopped.
"""

import dataclasses
from typing import Any

from tinygpt.config import TrainConfig, UserError, from_dict
from tinygpt.run.checkpoint import Checkpoint, folders, step_of
from tinygpt.text.data import sha256_of

# These do not change what the steps compute. (More threads, other micro-batches or another device round
# differently.) `data` says where the text is; its checksum says whether it is the same. `out` is the folder
# that the run is in now.
FREE = {
    "data",
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
}


def settings(saved: Checkpoint, asked: dict[str, Any], force: bool = False) -> TrainConfig:
    """The TrainConfig of a run that goes on from a Checkpoint: its own settings, changed as asked for now.

    UserError shows the differences that would make it another run, unless forced.
    """
    before = from_dict(TrainConfig, saved.state["settings"], saved.folder / "state.json")
    here = {"stop_after": 0, "out": str(saved.run_folder)}
    after = TrainConfig(**(dataclasses.asdict(before) | here | asked))
    free = set(FREE)
    if before.min_lr < 0:  # or else the learning rate decays to min_lr at max_steps
        free.add("max_steps")
    names = [name for name in asked if name not in free and getattr(after, name) != getattr(before, name)]
    if names and not force:
        changes = ", ".join(f"{name} {getattr(before, name)!r} -> {getattr(after, name)!r}" for name in names)
        raise UserError(
            f"{saved.run_folder} was trained with other settings: {changes}; leave them, or --force the "
            "change"
        )
    return after


def check_place(saved: Checkpoint, force: bool = False) -> None:
    """UserError if going back to this Checkpoint would delete later ones, unless forced."""
    later = [folder.name for folder in folders(saved.folder.parent) if step_of(folder) > saved.state["step"]]
    if later and not force:
        raise UserError(f"going back to {saved.folder} deletes {' and '.join(later)}; --force does it")


def check_data(saved: Checkpoint, corpus: str, text: str, force: bool = False) -> None:
    """UserError if the text is not the one that the run was trained on, unless forced."""
    before, now = saved.state["data_sha256"], sha256_of(text.encode())
    if now != before and not force:
        raise UserError(
            f"{saved.run_folder} was trained on other data: {saved.state['corpus']} with sha256 "
            f"{before[:12]}..., now {corpus} with {now[:12]}...; give the same text with --data, or "
            "--force the change"
        )
