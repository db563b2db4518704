"""Going on with a run: what has to be the same as before, and what may change.

Nothing but the step and the seed decides which batch and which dropout masks come next (see
autograd/random.py), so the weights, the optimizer's state and the settings are all that a run needs to go on
as if it had never stopped.
"""

import dataclasses
import hashlib

from tinygpt.config import TrainConfig, UserError, from_dict
from tinygpt.run.checkpoint import folders, step_of

# These do not change what the steps compute. (More threads, other micro-batches or another device round
# differently.) `data` names where the text lies; its checksum says whether it is the same. `out` is the
# folder the run is in now.
FREE = {
    "data", "out", "device", "threads", "micro_batch", "activation_checkpointing", "stop_after", "eval_interval",
    "eval_iters", "sample_tokens", "detect_anomaly",
}  # fmt: skip


def settings(saved, asked, force=False):
    """The TrainConfig of a run that goes on from a Checkpoint: its own settings, under those asked for now.

    UserError shows the differences that would make it another run, unless forced.
    """
    before = from_dict(TrainConfig, saved.state["settings"], saved.folder / "state.json")
    after = TrainConfig(
        **(dataclasses.asdict(before) | {"stop_after": 0, "out": str(saved.run_folder)} | asked)
    )
    free = FREE | ({"max_steps"} if before.min_lr < 0 else set())  # a decay to min_lr ends where the run ends
    names = [name for name in asked if name not in free and getattr(after, name) != getattr(before, name)]
    if names and not force:
        changes = ", ".join(f"{name} {getattr(before, name)!r} -> {getattr(after, name)!r}" for name in names)
        raise UserError(
            f"{saved.run_folder} was trained with other settings: {changes}; leave them, or --force the "
            "change"
        )
    return after


def check_place(saved, force=False):
    """UserError if going back to this Checkpoint would delete later ones, unless forced."""
    later = [folder.name for folder in folders(saved.folder.parent) if step_of(folder) > saved.state["step"]]
    if later and not force:
        raise UserError(f"going back to {saved.folder} deletes {' and '.join(later)}; --force does it")


def check_data(saved, corpus, text, force=False):
    """UserError if the text is not the one that the run was trained on, unless forced."""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    before = saved.state["data_sha256"]
    if sha256 != before and not force:
        raise UserError(
            f"{saved.run_folder} was trained on other data: {saved.state['corpus']} with sha256 "
            f"{before[:12]}..., now {corpus} with {sha256[:12]}...; give the same text with --data, or "
            "--force the change"
        )
