"""The folder of a run: config.toml, metrics.jsonl, loss.png, samples/, ckpt/."""

import json
import shutil
import time
from pathlib import Path

from tinygpt.config import UserError, to_toml


class Run:
    """Writes what a training run leaves behind. metrics.jsonl is the source of truth: a line per event, with its step."""

    def __init__(self, config, corpus, overwrite=False):
        self.folder = Path(config.out) if config.out else _free_folder(f"runs/{config.preset}-{corpus}")
        if self.folder.exists():
            if not overwrite:
                raise UserError(f"{self.folder} exists; give another --out, or --overwrite to replace it")
            _remove_run(self.folder)
        try:
            (self.folder / "samples").mkdir(parents=True)
            (self.folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}; give another --out") from None
        self.evaluations = []
        self.started = time.perf_counter()

    def log(self, event, step, **values):
        """Append a line to metrics.jsonl; evaluations also go into the curve."""
        line = {"event": event, "step": step, "seconds": round(time.perf_counter() - self.started, 3), **values}
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if event == "evaluation":
            self.evaluations.append(line)

    def save_sample(self, step, text):
        (self.folder / "samples" / f"step_{step:06d}.txt").write_text(text, encoding="utf-8")

    def plot_losses(self):
        """Draw loss.png from the evaluations so far."""
        from matplotlib.figure import Figure  # here, because it takes longer to import than everything else together

        axes = (figure := Figure(figsize=(7, 4.5))).add_subplot()
        steps = [line["step"] for line in self.evaluations]
        for name, label in (("train_loss", "train"), ("val_loss", "validation")):
            axes.plot(steps, [line[name] for line in self.evaluations], marker="o", label=label)
        best = min(self.evaluations, key=lambda line: line["val_loss"])
        axes.set(xlabel="step", ylabel="loss (nats per token)", title=f"best validation loss {best['val_loss']:.4f}")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(self.folder / "loss.png", dpi=120)


def _free_folder(stem):
    """`stem`, or the first of stem-2, stem-3, ... that does not exist."""
    folder, number = Path(stem), 1
    while folder.exists():
        number += 1
        folder = Path(f"{stem}-{number}")
    return folder


def _remove_run(folder):
    """Delete a run's folder, and only if it looks like one."""
    if any(folder.iterdir()) and not (folder / "config.toml").is_file():
        raise UserError(f"{folder} is not the folder of a run (no config.toml), so it is not overwritten")
    shutil.rmtree(folder)
