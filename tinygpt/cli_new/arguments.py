"""Flags, help and errors of `train.py` and `python -m tinygpt`."""

import argparse
import dataclasses
import difflib
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from autograd.backend import choose_device
from tinygpt import gpt2
from tinygpt.config import PRESETS, TrainConfig, UserError, checked, nearest, read_toml, resolve
from tinygpt.parallel.ranks import rank_by_engine, speaker
from tinygpt.run import checkpoint, resume
from tinygpt.run.checkpoint import Checkpoint
from tinygpt.version import __version__

VERSION = f"tinygpt {__version__}"


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that name the nearest flag."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: -"):
            word = message.split(": ")[1].split()[0].split("=")[0]
            message = f"unknown flag {word}; {nearest(word, _flags_near(self, word))}"
        raise UserError(message)


def _flags_near(parser, word):
    """The flags that resemble a word, or a pointer to --help: there are too many to list them all."""
    flags = list(parser._option_string_actions)
    return difflib.get_close_matches(word, flags, 3, cutoff=0.5) or ["--help lists them"]


@dataclass
class Start:
    """How a run begins."""

    overwrite: bool  # replace the folder given with --out
    force: bool  # resume in spite of differences
    saved: Checkpoint | None = None  # what to resume from


def train_config(argv: list[str] | None) -> tuple[TrainConfig, Start, str, str]:
    """(TrainConfig, Start, device, why that device) from train.py's arguments.

    Flags go before the TOML file, this before the preset. To resume, the settings of the run that goes on
    take the preset's place.
    """
    flags = vars(_train_parser().parse_args(argv))
    start = Start(overwrite=flags.pop("overwrite"), force=flags.pop("force"))
    toml, resumed = flags.pop("config"), flags.pop("resume")
    settings = read_toml(toml) if toml else {}
    settings |= checked(TrainConfig, flags, "the command line")
    if resumed:
        if start.overwrite or "out" in settings:
            raise UserError("--resume goes on in the run's own folder: leave out --overwrite and --out")
        start.saved = checkpoint.load(resumed)
        resume.check_place(start.saved, start.force)
        config = resume.settings(start.saved, settings, start.force)
        device, why = device_for(config.device)
        return config, start, device, why
    device, why = device_for(settings.get("device", "auto"))
    default_preset = "laptop" if device == "cpu" else "shakespeare"
    if settings.get("init_from"):
        settings = gpt2.settings_from(settings["init_from"], settings)
        default_preset = "finetune"
    return resolve(settings, default_preset), start, device, why


def _train_parser():
    parser = Parser(prog="train.py", description="Train a GPT on any UTF-8 text.", allow_abbrev=False)
    add = parser.add_argument
    add("--version", action="version", version=VERSION)
    text = "a TOML file of settings; flags go before it, it before the preset"
    add("--config", metavar="FILE", help=text)
    add("--overwrite", action="store_true", help="replace the run folder given with --out")
    text = "go on with the run in this folder, or from one of its checkpoints"
    add("--resume", metavar="RUN", help=text)
    text = "resume although data or settings differ, or to an older checkpoint"
    add("--force", action="store_true", help=text)
    for field in dataclasses.fields(TrainConfig):
        flag = "--" + field.name.replace("_", "-")
        text = f"{field.metadata['help']} (default: {field.default!r})".replace("%", "%%")
        if field.type is bool:
            add(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            add(flag, type=field.type, default=argparse.SUPPRESS, help=text)
    parser.epilog = "Presets: " + "; ".join(f"{name}: {values}" for name, values in PRESETS.items())
    return parser


def device_for(wanted: str) -> tuple[str, str]:
    """(device, why) for "auto", "cpu", "cuda" or "cuda:N". UserError if it cannot be used."""
    try:
        return choose_device(wanted)
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from None


def exit_with_code(function: Callable[[], Any]) -> None:
    """Run a command; the user's mistakes become one line on stderr and exit code 2."""
    # The training loop itself reports overflow and NaN.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="autograd")
    try:
        function()
    except UserError as error:
        _fail(str(error))
    except MemoryError as error:
        reason = "out of memory"
        if str(error):
            reason += f": {error}".rstrip(".")
        _fail(f"{reason}; a smaller model or batch needs less")
    except BrokenPipeError:  # the program that reads our output, such as `head`, has ended
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except Exception:
        if rank_by_engine() is not None:
            print(f"error: rank {rank_by_engine()} failed, which ends the job:", file=sys.stderr, flush=True)
        raise


def _fail(message) -> NoReturn:
    print(f"error: {speaker()}{message}", file=sys.stderr)
    sys.exit(2)
