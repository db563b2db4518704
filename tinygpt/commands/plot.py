"""`python -m tinygpt plot`: the losses of several runs in one picture."""

import os
from collections.abc import Sequence
from pathlib import Path

from tinygpt.cli.parser import Parser
from tinygpt.commands.shared import check_out, note
from tinygpt.config import UserError, require
from tinygpt.run import files, pictures
from tinygpt.run.folder import read_events
from tinygpt.run.overview import find_runs, is_run
from tinygpt.run.overwrite import read_settings

X_LABELS = {"steps": "step", "tokens": "training tokens", "seconds": "seconds of training"}


def main(argv: list[str]) -> None:
    """Draw the losses of several runs in one picture."""
    parser = Parser(prog="python -m tinygpt plot", description=main.__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="the folder of a run")
    add("--x", choices=tuple(X_LABELS), default="steps", help="draw over this (default: steps)")
    add("--out", default="loss.png", metavar="FILE", help="the picture, a PNG file (default: loss.png)")
    args = parser.parse_args(argv)
    out = Path(args.out)
    form, fault = "the picture is a PNG file; give a name with .png", "was not drawn by this command"
    check_out(out, (".png",), pictures.is_comparison, form, fault)
    once = {}  # however a run's folder is written
    for run in args.runs:
        check_run(Path(run))
        once.setdefault(os.path.realpath(run), Path(run))
    folders = list(once.values())
    named = zip(names_of(folders), folders, strict=True)
    curves = [curve for name, folder in named if (curve := read_curve(name, folder, args.x))]
    require(bool(curves), "there is nothing to draw yet: no evaluation in metrics.jsonl")
    try:
        picture, has_all_names = pictures.comparison(curves, X_LABELS[args.x])
        files.write(out, picture)
    except Exception as error:  # whatever matplotlib or the disk may be missing
        raise UserError(f"cannot draw {out}: {pictures.reason(error)}") from None
    if not has_all_names:
        note("no font on this machine has all letters of the names; boxes stand for them")
    print(f"wrote {out}: the losses of {len(curves)} {'run' if len(curves) == 1 else 'runs'} over {args.x}")


def check_run(folder: Path) -> None:
    """UserError unless a folder is that of a run."""
    if is_run(folder):
        return
    if not folder.exists():
        raise UserError(f"{folder} does not exist; give the folder of a run, such as runs/NAME")
    inner = next(find_runs(folder), None) if folder.is_dir() else None
    hint = f"did you mean {inner}?" if inner else "give one such as runs/NAME"
    raise UserError(f"{folder} is not the folder of a run; {hint}")


def names_of(folders: Sequence[Path]) -> list[str]:
    """The runs' names: those of their folders, or their paths if these are needed to tell them apart."""
    names = [Path(os.path.realpath(folder)).name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def read_curve(name: str, folder: Path, x: str) -> pictures.Curve | None:
    """The losses of a run over "steps", "tokens" or "seconds"; None, with a note, if it has none yet."""
    evaluations = [event for event in read_events(folder) if event["event"] == "evaluation"]
    if not evaluations:
        note(f"{folder} has no evaluation in metrics.jsonl yet, so it is not drawn")
        return None
    if x == "tokens":
        try:
            settings = read_settings(folder)
        except UserError as error:
            raise UserError(f"the tokens of {folder} cannot be counted: {error}") from None
        over = [line["step"] * settings["batch_size"] * settings["block_size"] for line in evaluations]
    elif x == "seconds":
        over = [line.get("training_seconds", line["seconds"]) for line in evaluations]
    else:
        over = [line["step"] for line in evaluations]
    losses = ([line[name] for line in evaluations] for name in ("train_loss", "val_loss"))
    return pictures.Curve(name, over, *losses)
