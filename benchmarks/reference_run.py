"""The reference run beside the one it repeats: records a run of the preset `shakespeare` for the repository.

    python train.py --preset shakespeare --out runs/reference      (and --resume runs/reference until the end)
    python -m benchmarks.reference_run runs/reference              writes benchmarks/reference/

It may be called before the run has done all its steps: then the record says how many. What it holds:
- metrics.jsonl, config.toml: the run's own, without paths;
- record.json: steps, parameters, hashes, hours, and on which machine which steps were done;
- loss.png: our losses, and the published ones as further points;
- sample.txt: 10,000 characters from the end of the run; until then the run's own latest sample.

`--table` prints the table of losses from what is recorded, and does nothing else.
"""

import argparse
import dataclasses
import json
import platform
from pathlib import Path

import numpy as np

from benchmarks import processor
from tinygpt import commands
from tinygpt.config import TrainConfig, UserError, from_dict, resolve
from tinygpt.parallel.ranks import ALONE
from tinygpt.run import checkpoint, files, folder, pictures, resume
from tinygpt.text.corpus import SHAKESPEARE_SHA256
from tinygpt.text.data import sha256_of
from tinygpt.toml import to_toml

FOLDER = Path(__file__).parent / "reference"
# step: (train loss, validation loss). From a published log of the script that this preset repeats: gpt.py of
# the lecture "Let's build GPT", in PyTorch on a GPU. Its last evaluation is before its last update, ours
# after it, at 5,000. `python -m benchmarks.agreement --start` shows how it began.
PUBLISHED = {
    0: (4.2849, 4.2823),
    500: (1.9976, 2.0895),
    1000: (1.5957, 1.7595),
    1500: (1.4335, 1.6423),
    2000: (1.3384, 1.5673),
    2500: (1.2771, 1.5301),
    3000: (1.2230, 1.5077),
    3500: (1.1835, 1.4857),
    4000: (1.1418, 1.4787),
    4500: (1.1046, 1.4849),
    4999: (1.0722, 1.4908),
}
BEST_PUBLISHED = min(validation for _, validation in PUBLISHED.values())
# What may differ from the preset: it changes no loss by more than rounding.
FREE = resume.FREE - {"eval_interval", "eval_iters"}


# --- recording ------------------------------------------------------------------------------------


def record(run, to=FOLDER, card=None):
    """Write down what the run in a folder has done so far. Returns what becomes record.json.

    card: the name of the GPU that it ran on, if it was one. UserError if it is not a run of the preset, on
    Tiny Shakespeare.
    """
    saved = checkpoint.load(run)
    config = from_dict(TrainConfig, saved.state["settings"], saved.folder / "state.json")
    check(config, saved.state["data_sha256"], saved.run_folder)
    step, lines = saved.state["step"], folder.read_events(saved.run_folder)
    # A step is logged before its update, an evaluation at the step that it stands for.
    done = [line for line in lines if line["step"] + (line["event"] == "step") <= step]
    metrics = "".join(json.dumps(line) + "\n" for line in done)
    config = dataclasses.replace(config, data="shakespeare", out="")
    settings = to_toml(config)
    found = dict(
        steps=step,
        max_steps=config.max_steps,
        parameters=saved.model_config().num_parameters(),
        data_sha256=saved.state["data_sha256"],
        hours=round(done[-1]["seconds"] / 3600, 2),
        training_hours=round(saved.state["training_seconds"] / 3600, 2),
        machines=machines(to, metrics, step, saved.state["machine"], card),
        sha256={"metrics.jsonl": sha256_of(metrics.encode()), "config.toml": sha256_of(settings.encode())},
    )
    to.mkdir(parents=True, exist_ok=True)
    files.write(to / "metrics.jsonl", metrics)
    files.write(to / "config.toml", settings)
    files.write(to / "record.json", files.json_text(found))
    files.write(to / "loss.png", picture(evaluations_in(to), found))
    return found


def check(config, data_sha256, run):
    """UserError unless these are the settings and the text of the reference run."""
    wanted = resolve(dict(preset="shakespeare"))
    names = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in FREE]
    for name in names:
        value, right = getattr(config, name), getattr(wanted, name)
        if value != right:
            raise UserError(f"{run} is not the reference run: its {name} is {value!r:.80}, not {right!r}")
    if data_sha256 != SHAKESPEARE_SHA256:
        raise UserError(f"{run} is not the reference run: its text is not Tiny Shakespeare")


def machines(to, metrics, step, division, card):
    """On which machine the run was until which step: those of the record in `to`, and now this one.

    If that is a record of another run, this machine has done it all.
    """
    here = dict(name=card or f"{processor()}, {ALONE.cores()} cores", division=division)
    here |= dict(python=platform.python_version(), numpy=np.__version__)
    before = []
    if (to / "record.json").is_file() and metrics.startswith(files.read_text(to / "metrics.jsonl")):
        before = files.read_json(to / "record.json")["machines"]
    if before and before[-1] == here | {"until_step": before[-1]["until_step"]}:
        before.pop()
    elif before and before[-1]["until_step"] == step:  # recorded again, elsewhere
        return before
    return [*before, here | {"until_step": step}]


def write_sample(run, to, found):
    """sample.txt, as said above."""
    if found["steps"] == found["max_steps"]:
        commands.main(["sample", str(run), "--tokens", "10000", "--out", str(to / "sample.txt")])
        return
    samples = sorted((Path(run) / "samples").glob("step_*.txt"))
    files.write(to / "sample.txt", samples[-1].read_text(encoding="utf-8") if samples else "")


def picture(evaluations, found):
    """loss.png."""
    ours = pictures.Curve(
        f"tinygpt, {found['steps']:,} steps",
        [line["step"] for line in evaluations],
        [line["train_loss"] for line in evaluations],
        [line["val_loss"] for line in evaluations],
    )
    train, validation = map(list, zip(*PUBLISHED.values(), strict=True))
    theirs = pictures.Curve("gpt.py, published", list(PUBLISHED), train, validation)
    return pictures.comparison([ours, theirs], "step")[0]


# --- what is recorded -----------------------------------------------------------------------------


def recorded(at=FOLDER):
    """What record.json holds."""
    return files.read_json(at / "record.json")


def evaluations_in(at=FOLDER):
    """The evaluations of the recorded metrics, without one where the run was only interrupted."""
    lines = [line for line in folder.read_events(at) if line["event"] == "evaluation"]
    return [line for line in lines if published_step(line["step"]) is not None]


def published_step(step):
    """The step of the published log that one of ours stands beside, or None."""
    last = max(PUBLISHED)
    return last if step == last + 1 else step if step in PUBLISHED else None


def differences(evaluations):
    """{step: the larger difference of our two losses from the published ones}."""
    found = {}
    for line in evaluations:
        train, validation = PUBLISHED[published_step(line["step"])]
        found[line["step"]] = max(abs(line["train_loss"] - train), abs(line["val_loss"] - validation))
    return found


def table(evaluations):
    """Both runs as Markdown, a row for each published evaluation; empty where ours is not there yet."""
    ours = {published_step(line["step"]): line for line in evaluations}
    lines = [
        "| step | train loss, gpt.py | ours | validation loss, gpt.py | ours |",
        "|---|---|---|---|---|",
    ]
    for step, (train, validation) in PUBLISHED.items():
        label, line = f"{step:,}", ours.get(step)
        if line and line["step"] != step:
            label += f" (ours {line['step']:,})"
        losses = [f"{line[name]:.4f}" if line else "" for name in ("train_loss", "val_loss")]
        lines.append(f"| {label} | {train:.4f} | {losses[0]} | {validation:.4f} | {losses[1]} |")
    return "\n".join(lines)


def summary(found, evaluations):
    """What the table shows, in a sentence."""
    best = min(evaluations, key=lambda line: line["val_loss"])
    places = " and ".join(dict.fromkeys(each["name"] for each in found["machines"]))
    first, *later = differences(evaluations).values()
    after = f", after it at most {max(later):.3f}" if later else ""
    return (
        f"{found['steps']:,} of {found['max_steps']:,} steps in {found['hours']:.1f} h ({places}). "
        f"Best validation loss {best['val_loss']:.4f} at step {best['step']:,}, published "
        f"{BEST_PUBLISHED:.4f}. Difference from the published losses: {first:.3f} at step 0{after}."
    )


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reference_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", nargs="?", default="runs/reference", help="default: runs/reference")
    text = "where the record is (default: benchmarks/reference)"
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="FOLDER", help=text)
    parser.add_argument("--table", action="store_true", help="print what is recorded, and do nothing else")
    args = parser.parse_args(argv)
    if not args.table:
        found = record(args.run, args.to)
        write_sample(args.run, args.to, found)
    evaluations = evaluations_in(args.to)
    print(table(evaluations), summary(recorded(args.to), evaluations), sep="\n\n")


if __name__ == "__main__":
    from tinygpt.cli import exit_with_code

    exit_with_code(main)
