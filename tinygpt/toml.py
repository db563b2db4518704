"""Files of settings: TOML that people write, and the config.toml of a run, which reads back as it was."""

import dataclasses
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from tinygpt.config import LARGEST_FILE, TrainConfig, UserError, checked

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# A character that a basic string of TOML cannot hold as it is.
SPECIAL = re.compile(r'[\x00-\x1f"\\\x7f]')
# Python keeps a byte of a file's name that is no UTF-8 as a surrogate, which TOML has no way to write. So it
# becomes a NUL, which no name has, and four hexadecimal digits. A NUL itself becomes NUL 0000.
UNWRITABLE, WRITTEN = re.compile("[\x00\ud800-\udfff]"), re.compile("\x00([0-9a-f]{4})")


# --- writing --------------------------------------------------------------------------------------


def to_toml(config: TrainConfig) -> str:
    """A TrainConfig as TOML. `read_toml` gives the same values back, whatever they are."""
    settings = dataclasses.asdict(config)
    return "".join(f"{key} = {_value(value)}\n" for key, value in settings.items())


def _value(value):
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)  # numbers and booleans are written as in JSON


def _string(text):
    text = UNWRITABLE.sub(lambda match: f"\0{ord(match[0]):04x}", text)
    return '"' + SPECIAL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + '"'


# --- reading --------------------------------------------------------------------------------------


def read_toml(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file, with every key and type checked. UserError says what to do about it."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > LARGEST_FILE:
                raise UserError(f"{path} has more than {LARGEST_FILE:,} bytes; that is no file of settings")
            raw = file.read()
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give the file: {Path(path, 'config.toml')}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if raw.startswith(UTF16_MARKS):
        raise UserError(f"{path} is UTF-16; save it as UTF-8")
    try:
        settings = tomllib.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: byte {error.start}; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a TOML file: {error}{_advice(str(error))}") from None
    for key, value in settings.items():
        if isinstance(value, dict):
            raise UserError(
                f"{path}: [{key}] is a section; settings stand at the top of the file, without one"
            )
    return checked(TrainConfig, {key: _restored(value) for key, value in settings.items()}, path)


def _restored(value):
    """A value with the surrogates that TOML could not hold; see UNWRITABLE."""
    if isinstance(value, list):
        return [_restored(each) for each in value]
    if isinstance(value, str):
        return WRITTEN.sub(lambda match: chr(int(match[1], 16)), value)
    return value


def _advice(error):
    """What to do about an error of tomllib's that people often meet."""
    if "hex value" in error or "'\\'" in error or "'\\\\'" in error:
        return r"; a path with \ stands in single quotes: data = 'C:\Users\me\novel.txt'"
    if "Invalid value" in error:
        return "; text stands in quotes, true and false have small letters"
    if "overwrite a value" in error:
        return "; the key is given twice"
    return ""
