"""Flags, help and errors of `train.py` and `python -m tinygpt`."""

import argparse
import dataclasses
import difflib
import sys
import warnings

from autograd.backend import choose_device
from tinygpt import gpt2
from tinygpt.config import PRESETS, TrainConfig, UserError, checked, nearest, read_toml, resolve
from tinygpt.parallel.ranks import rank_by_engine, speaker
from tinygpt.run import checkpoint, resume


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that name the nearest flag."""

    def error(self, message):
        if message.startswith("unrecognized arguments: -"):
            word = message.split(": ")[1].split()[0].split("=")[0]
            message = f"unknown flag {word}; {nearest(word, _flags_near(self, word))}"
        raise UserError(message)


def _flags_near(parser, word):
    """The flags that resemble a word, or a pointer to --help: there are too many to list them all."""
    flags = list(parser._option_string_actions)
    return difflib.get_close_matches(word, flags, 3, cutoff=0.5) or ["--help lists them"]


def train_config(argv):
    """(TrainConfig, start, device, why that device) from train.py's arguments: preset < TOML file < flags.

    `start` says how to begin: overwrite, force (booleans) and saved, the Checkpoint to resume from or None.
    Then its settings take the preset's place.
    """
    parser = Parser(prog="train.py", description="Train a GPT on any UTF-8 text.", allow_abbrev=False)
    parser.add_argument(
        "--config", metavar="FILE", help="a TOML file of settings; flags go before it, it before the preset"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run folder given with --out")
    parser.add_argument(
        "--resume", metavar="RUN", help="go on with the run in this folder, or from one of its checkpoints"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="resume although data or settings differ, or to an older checkpoint",
    )
    for field in dataclasses.fields(TrainConfig):
        flag = "--" + field.name.replace("_", "-")
        text = f"{field.metadata['help']} (default: {field.default!r})".replace("%", "%%")
        kind = {"action": argparse.BooleanOptionalAction} if field.type is bool else {"type": field.type}
        parser.add_argument(flag, default=argparse.SUPPRESS, help=text, **kind)
    parser.epilog = "Presets: " + "; ".join(f"{name}: {values}" for name, values in PRESETS.items())
    flags = vars(parser.parse_args(argv))
    toml, path = flags.pop("config"), flags.pop("resume")
    start = argparse.Namespace(overwrite=flags.pop("overwrite"), force=flags.pop("force"), saved=None)
    settings = (read_toml(toml) if toml else {}) | checked(TrainConfig, flags, "the command line")
    if path:
        if start.overwrite or "out" in settings:
            raise UserError("--resume goes on in the run's own folder: leave out --overwrite and --out")
        start.saved = checkpoint.load(path)
        resume.check_place(start.saved, start.force)
        config = resume.settings(start.saved, settings, start.force)
        settings["device"] = config.device
    device, why = device_for(settings.get("device", "auto"))
    if not path:
        default_preset = "laptop" if device == "cpu" else "shakespeare"
        if settings.get("init_from"):
            settings = gpt2.settings_from(settings["init_from"], settings)
            default_preset = "finetune"
        config = resolve(settings, default_preset)
    return config, start, device, why


def device_for(wanted):
    """(device, why) for "auto", "cpu", "cuda" or "cuda:N". UserError if it cannot be used."""
    try:
        return choose_device(wanted)
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from None


def exit_with_code(function):
    """Run a command; the user's mistakes become one line on stderr and exit code 2."""
    # the loop reports overflow and nan
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="autograd")
    try:
        function()
    except UserError as error:
        print(f"error: {speaker()}{error}", file=sys.stderr)
        sys.exit(2)
    except MemoryError as error:
        reason = "out of memory" + (f": {error}".rstrip(".") if str(error) else "")
        print(f"error: {speaker()}{reason}; a smaller model or batch needs less", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output, `head` for one, has gone
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        print(
            f"error: {speaker()}{error.filename or 'input or output'}: {error.strerror or error}",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except Exception:
        if rank_by_engine() is not None:
            print(f"error: rank {rank_by_engine()} failed, which ends the job:", file=sys.stderr, flush=True)
        raise
