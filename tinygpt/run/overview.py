"""All runs below a folder in a table: what each is, how far it came and how well it did.

Only small files are read, no weights.
"""

import contextlib
import math
import os
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinygpt.config import GPTConfig, UserError, from_dict
from tinygpt.run import checkpoint, files
from tinygpt.run.folder import METRICS, read_events
from tinygpt.run.overwrite import SETTINGS, read_settings

UNKNOWN = "-"
SPACE = "  "  # between two columns
# Columns in the order in which they are left out of a narrow table. The others always stay.
LESS_IMPORTANT = ("parameters", "tokens/s", "preset", "when", "at step")
NARROWEST_NAME = 12


@dataclass
class Overview:
    """What is known about a run; None where its files do not say."""

    folder: Path
    preset: str | None = None
    parameters: int | None = None
    steps: int = 0
    max_steps: int | None = None
    best: dict[str, Any] = field(default_factory=dict)  # step and val_loss
    tokens_per_second: float | None = None
    when: float = 0.0  # its newest file was written, in seconds since 1970
    damage: list[str] = field(default_factory=list)

    def row(self) -> dict[str, str]:
        """{heading: text} of this run in the table."""
        loss, step = self.best.get("val_loss"), self.best.get("step")
        return {
            "run": files.printable(str(self.folder)) + (" (damaged)" if self.damage else ""),
            "preset": files.printable(self.preset or UNKNOWN),
            "parameters": _count(self.parameters),
            "steps": f"{self.steps}/{UNKNOWN if self.max_steps is None else self.max_steps}",
            "best val loss": UNKNOWN if loss is None else f"{loss:.4f}",
            "at step": UNKNOWN if step is None else str(step),
            "tokens/s": _count(self.tokens_per_second),
            "when": _date(self.when),
        }


# --- finding and reading --------------------------------------------------------------------------


def find_runs(top: Path) -> Iterator[Path]:
    """The folders of runs in a folder, at any depth; itself, if it is one. Links are not followed."""
    for place, folders, _ in os.walk(top):
        inside = ()
        if is_run(Path(place)):
            yield Path(place)
            inside = ("ckpt", "samples")
        folders[:] = sorted(name for name in folders if name not in inside and not name.startswith("."))


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, though it may be damaged."""
    with contextlib.suppress(UserError, OSError):
        if (folder / SETTINGS).is_file() and ((folder / METRICS).is_file() or read_settings(folder)):
            return True
    with contextlib.suppress(OSError):
        return bool(checkpoint.folders(folder / "ckpt"))
    return False


def look_at(folder: Path) -> Overview:
    """The Overview of a run."""
    run = Overview(folder)
    settings = {}
    with _noting_damage(run):
        settings = read_settings(folder)
    state = {}
    with _noting_damage(run):
        state = _look_at_checkpoint(run)
    if not settings:
        settings = state.get("settings", {})
    run.preset, run.max_steps = settings.get("preset"), settings.get("max_steps")
    events = []
    with _noting_damage(run):
        events = _look_at_metrics(run)
    run.steps = max([state.get("step", 0), *(event["step"] for event in events)])
    evaluations = [event for event in events if event["event"] == "evaluation"]
    run.best = min(evaluations, key=lambda line: line["val_loss"], default=state.get("best", {}))
    if evaluations:
        run.tokens_per_second = _speed(evaluations[-1], settings)
    for path in (folder / SETTINGS, folder / METRICS, folder / "ckpt"):
        with contextlib.suppress(OSError):
            run.when = max(run.when, path.stat().st_mtime)
    return run


@contextlib.contextmanager
def _noting_damage(run):
    try:
        yield
    except UserError as error:
        text = str(error)
        run.damage.append(text if str(run.folder) in text else f"{run.folder}: {text}")
    except OSError as error:
        run.damage.append(f"{error.filename} cannot be read: {error.strerror}")


def _look_at_checkpoint(run):
    """The state.json of the newest checkpoint, {} if there is none; notes the number of parameters."""
    found = checkpoint.folders(run.folder / "ckpt")
    if not found:
        return {}
    config = found[-1] / "config.json"
    run.parameters = from_dict(GPTConfig, files.read_json(config), config).num_parameters()
    for name in checkpoint.FILES:
        if not (found[-1] / name).is_file():
            raise UserError(f"{found[-1] / name} is missing")
    return checkpoint.read_state(found[-1] / "state.json")


def _look_at_metrics(run):
    """The whole lines of metrics.jsonl. Notes if more than the last one is damaged."""
    path = run.folder / METRICS
    if run.parameters and not path.is_file():
        raise UserError(f"{path} is missing")
    events = read_events(run.folder)
    lines = [line for line in path.read_bytes().splitlines() if line.strip()] if path.is_file() else []
    if len(lines) > len(events) + 1:
        run.damage.append(f"{path} has {len(lines) - len(events)} damaged lines")
    return events


def _speed(evaluation, settings):
    """Tokens per second of training, up to an evaluation."""
    seconds = evaluation.get("training_seconds")
    if "tokens_per_second" in evaluation:
        return evaluation["tokens_per_second"]
    if not seconds or not settings:
        return None
    return evaluation["step"] * settings["batch_size"] * settings["block_size"] / seconds


# --- the table ------------------------------------------------------------------------------------


def table(runs: Sequence[Overview], width: float = math.inf) -> str:
    """The runs in rows of at most so many columns of a terminal; the latest comes last."""
    rows = [run.row() for run in sorted(runs, key=lambda run: run.when)]
    left_out = []
    for heading in LESS_IMPORTANT:
        if _needed(rows) <= width:
            break
        left_out.append(heading)
        for row in rows:
            del row[heading]
    room = max(NARROWEST_NAME, width - (_needed(rows) - _width(rows, "run")))
    for row in rows:
        row["run"] = shorten(row["run"], room)
    lines = [SPACE.join(_padded(heading, heading, rows) for heading in rows[0])]
    lines += [SPACE.join(_padded(text, heading, rows) for heading, text in row.items()) for row in rows]
    if left_out:
        lines.append(f"(no room for {', '.join(left_out)})")
    lines += [f"damaged: {files.printable(reason)}" for run in runs for reason in run.damage]
    return "\n".join(line.rstrip() for line in lines)


def _needed(rows):
    """The columns of a terminal that rows need."""
    return sum(_width(rows, heading) for heading in rows[0]) + len(SPACE) * (len(rows[0]) - 1)


def _width(rows, heading):
    return max(columns_of(text) for text in (heading, *(row[heading] for row in rows)))


def _padded(text, heading, rows):
    """A cell: words begin on the left, numbers end on the right."""
    space = " " * (_width(rows, heading) - columns_of(text))
    return text + space if heading in ("run", "preset", "when") else space + text


def columns_of(text: str) -> int:
    """The columns that a text takes in a terminal: Chinese and the like take two each."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def shorten(text: str, room: float) -> str:
    """A text in at most so many columns: the middle of a longer one becomes "…"."""
    if columns_of(text) <= room:
        return text
    start, end = text, text
    while columns_of(start) > (room - 1) // 2:
        start = start[:-1]
    while columns_of(end) > room - 1 - columns_of(start):
        end = end[1:]
    return f"{start}…{end}"


def _count(number):
    return UNKNOWN if number is None else f"{number:,.0f}"


def _date(seconds):
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return UNKNOWN
