"""From the arguments of train.py to its settings."""

import dataclasses
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograd.backend import choose_device
from tinygpt import gpt2
from tinygpt.cli.combinations import reconcile
from tinygpt.cli.train_flags import train_parser
from tinygpt.config import TrainConfig, UserError, checked, require, resolve
from tinygpt.run import checkpoint, resume
from tinygpt.run.checkpoint import Checkpoint
from tinygpt.text.tokenizer_folder import has_tokenizer
from tinygpt.toml import read_toml

PATHS = ("data", "init_from", "tokenizer", "out")  # settings that are paths, or may be


@dataclass
class Start:
    """How a run begins."""

    overwrite: bool  # replace the folder given with --out
    force: bool  # resume in spite of differences
    saved: Checkpoint | None = None  # what to resume from
    settings_file: str = ""  # given with --config
    notes: list[str] = field(default_factory=list)  # on settings, for the user


def train_config(argv: list[str] | None, place: int = 0) -> tuple[TrainConfig, Start, str, str]:
    """(TrainConfig, Start, device, why that device) from train.py's arguments.

    Flags go before the TOML file, this before the preset. To resume, the settings of the run that goes on
    take the preset's place. place: as for choose_device.
    """
    flags = _parsed(argv)
    start = Start(
        overwrite=flags.pop("overwrite"),
        force=flags.pop("force"),
        settings_file=os.path.expanduser(flags.pop("config") or ""),
    )
    resumed = flags.pop("resume")
    flags = at_home(checked(TrainConfig, flags, "the command line"))
    file = _file_settings(start)
    if resumed:
        config, usual = _going_on(os.path.expanduser(resumed), file, flags, start)
        device, why = device_for(config.device, place)
        first_step = start.saved.state["step"]
    else:
        device, why = device_for((file | flags).get("device", "auto"), place)
        config, usual = _fresh(file, flags, start, device)
        first_step = 0
    asked = set(flags) | {name for name in file if file[name] != usual[name]}
    config, notes = reconcile(config, set(flags), asked, device != "cpu", first_step)
    start.notes += notes
    return config, start, device, why


def _parsed(argv):
    """The flags that were given, by name. --help shows what a run without any would use here."""
    words = sys.argv[1:] if argv is None else argv
    device = "cpu"
    if "-h" in words or "--help" in words:  # or else a GPU would be looked for twice
        device, _ = choose_device()
    flags = vars(train_parser(resolve({}, _default_preset(device)), device).parse_args(words))
    if len(flags.get("data", [])) == 1:
        flags["data"] = flags["data"][0]
    return flags


def _default_preset(device):
    return "laptop" if device == "cpu" else "shakespeare"


def _file_settings(start):
    """The settings in the file given with --config."""
    if not start.settings_file:
        return {}
    settings = at_home(read_toml(start.settings_file))
    if not settings:
        start.notes.append(f"{start.settings_file} sets nothing")
    for name in set(PATHS) & set(settings):
        for path in _each(settings[name]):
            if not path.isprintable() and not os.path.exists(path):
                raise UserError(
                    f"{start.settings_file}: {name} is {path!r:.80}, which is not there; "
                    r"a path with \ stands in single quotes: data = 'C:\new\text.txt'"
                )
    return settings


def at_home(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the home folder for ~ in paths. A shell does that for --out ~/run, not --out=~/run."""
    changed = {}
    for name in set(PATHS) & set(settings):
        value = settings[name]
        expanded = [os.path.expanduser(path) for path in _each(value)]
        changed[name] = expanded[0] if isinstance(value, str) else type(value)(expanded)
    return settings | changed


def _each(value):
    """The paths in a setting that is one path or several."""
    return [value] if isinstance(value, str) else value


def _fresh(file, flags, start, device):
    """(TrainConfig of a run from its beginning, {setting: its value if nothing but the preset is given})."""
    settings, preset = file | flags, _default_preset(device)
    require(not start.force, "--force is for --resume; --overwrite replaces a folder")
    require(not start.overwrite or settings.get("out"), "--overwrite needs the folder: give it with --out")
    model = {}
    if settings.get("init_from"):
        _check_tokenizer(settings)
        settings, preset = gpt2.settings_from(settings["init_from"], settings), "finetune"
        model = {name: settings[name] for name in settings if name not in file | flags}
    config = resolve(settings, preset)
    return config, dataclasses.asdict(resolve({"preset": config.preset})) | model


def _check_tokenizer(settings):
    """UserError if another tokenizer is asked for than that of the model in init_from."""
    path = settings["init_from"]
    folder = Path(path) if gpt2.is_gpt2(path) else checkpoint.find(path)
    own = {(folder / name).resolve() for name in ("", "tokenizer.json")}
    wanted = settings.get("tokenizer")
    if wanted is not None and has_tokenizer(folder) and Path(wanted).resolve() not in own:
        raise UserError(f"the tokenizer is that of the model in {path}; leave --tokenizer {wanted} out")


def _going_on(folder, file, flags, start):
    """(TrainConfig of a run that goes on, {setting: what it was before})."""
    start.saved = saved = checkpoint.load(folder)
    out = file.pop("out", "")  # a run's own config.toml may name its folder
    elsewhere = out and Path(out).resolve() != saved.run_folder.resolve()
    if start.overwrite or elsewhere or "out" in flags:
        raise UserError("--resume goes on in the run's own folder: leave out --overwrite and --out")
    resume.check_place(saved, start.force)
    config = resume.settings(saved, file | flags, start.force)
    return config, dataclasses.asdict(config) | saved.state["settings"]


def device_for(wanted: str, place: int = 0) -> tuple[str, str]:
    """(device, why) as choose_device gives them. UserError for a device that cannot be used."""
    try:
        return choose_device(wanted, place)
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from None
