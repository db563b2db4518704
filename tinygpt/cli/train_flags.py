"""The flags of train.py and their --help: what a run on this machine will use, and the presets as a table."""

import argparse
import dataclasses
import shutil

from tinygpt.cli.parser import VERSION, Parser
from tinygpt.config import GROUPS, PRESETS, TrainConfig, resolve
from tinygpt.names import NOT_IN_TRAINING

PLACEHOLDERS = {int: "N", float: "X", str: "NAME"}
SEVERAL = str | list  # the type of a setting that is one value or several
NARROWEST, WIDEST = 60, 110  # columns


def train_parser(config: TrainConfig, device: str) -> Parser:
    """The parser of train.py's arguments. Settings that are not given are missing in what it returns.

    config: what a run without any flag would use on this machine, and device: where. --help shows it.
    """
    parser = Parser(
        prog="train.py",
        usage="python train.py [--SETTING VALUE ...]",
        description="Train a GPT on any text. In brackets: what `python train.py` uses on this\n"
        f"machine ({device}, so preset {config.preset}). Settings may stand in a TOML file too.",
        epilog=f"presets, where they differ:\n{preset_table()}\n\n"
        "A flag goes before the TOML file, the file before the preset. With --init-from\n"
        "the model's own shape is taken.",
        formatter_class=Layout,
        allow_abbrev=False,
        add_help=False,
        absent=NOT_IN_TRAINING,
    )
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    add = groups["start"].add_argument
    add("-h", "--help", action="help", help="print this")
    add("--version", action="version", version=VERSION, help="print the version")
    add("--config", metavar="FILE", help="a TOML file of settings")
    text = "go on with the run in this folder, or from one of its checkpoints"
    add("--resume", metavar="RUN", help=text)
    text = "resume although data or settings differ, or go back to an older checkpoint"
    add("--force", action="store_true", help=text)
    add("--overwrite", action="store_true", help="replace the run folder given with --out")
    for field in dataclasses.fields(TrainConfig):
        add = groups[field.metadata["group"]].add_argument
        flag = "--" + field.name.replace("_", "-")
        text = (field.metadata["help"] + in_brackets(getattr(config, field.name))).replace("%", "%%")
        if field.type is bool:
            add(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        elif field.type == SEVERAL:
            add(flag, nargs="+", default=argparse.SUPPRESS, metavar=PLACEHOLDERS[str], help=text)
        else:
            word = PLACEHOLDERS[field.type]
            add(flag, type=field.type, default=argparse.SUPPRESS, metavar=word, help=text)
    return parser


def in_brackets(value: object) -> str:
    """A setting's value for --help; nothing for an empty text, whose meaning the help explains."""
    return f" [{_word(value)}]" if value != "" else ""


def preset_table() -> str:
    """A row for each setting in which presets differ, a column for each preset; 80 columns at most."""
    columns = {name: dataclasses.asdict(resolve({"preset": name})) for name in PRESETS}
    names = [field.name for field in dataclasses.fields(TrainConfig) if field.name != "preset"]
    rows = [["", *columns]]
    for name in names:
        values = [_word(settings[name]) for settings in columns.values()]
        if len(set(values)) > 1:
            rows.append([name, *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def _word(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


class Layout(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal, within bounds."""

    def __init__(self, prog: str, **options: object) -> None:
        width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns))
        super().__init__(prog, max_help_position=26, width=width, **options)
