"""Reading small files with care, and writing files that a crash cannot spoil.

Whatever happens while a file is written, the disk holds the old content or the new, never a part of either.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any, TextIO

from tinygpt.config import LARGEST_FILE, UserError

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None


# --- reading --------------------------------------------------------------------------------------


def read_text(path: Path, largest: int = LARGEST_FILE) -> str:
    """The text of a file of at most so many bytes."""
    try:
        if not path.is_file():
            raise UserError(f"{path} is missing or not a file")
        if path.stat().st_size > largest:
            raise UserError(
                f"{path} has {path.stat().st_size:,} bytes; more than {largest:,} cannot be right"
            )
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} should hold a JSON object")
    return value


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- writing --------------------------------------------------------------------------------------


def json_text(value: dict[str, Any]) -> str:
    """An object as the text of a JSON file, in ASCII."""
    return json.dumps(value, indent=1) + "\n"


def write(path: Path, text: str) -> None:
    """Put a text into a file, in place of what was there."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        create(aside, text)
        os.replace(aside, path)
        flush(path.parent)
    except OSError:
        remove(aside)
        raise


def create(path: Path, text: str) -> None:
    """A new file with this text, flushed to the disk."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """Make sure that a file, or the list of files in a folder, has reached the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file, or a folder and all that is in it, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            os.unlink(path)


def lock(path: Path) -> TextIO:
    """Lock a file until the returned object is deleted or this process ends, however it ends.

    UserError if another process holds the lock.
    """
    # Without `with`, as the lock lives as long as the file is open.
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "another process"
        raise UserError(f"{owner} is training in {path.parent}; wait for it, or give another --out") from None
    except OSError:
        pass  # a file system without locks
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
