"""Reading small files with care, writing files that a crash cannot spoil, and deleting only what is ours.

Whatever happens while a file is written, the disk holds the old content or the new, never a part of either.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
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


def printable(text: str) -> str:
    """A text, such as a file's name, without line breaks and what else a terminal might obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


# --- writing --------------------------------------------------------------------------------------


def json_text(value: dict[str, Any]) -> str:
    """An object as the text of a JSON file, in ASCII."""
    return json.dumps(value, indent=1) + "\n"


def write(path: Path, content: str | bytes) -> None:
    """Put a text or bytes into a file, in place of what was there."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        create(aside, content)
        os.replace(aside, path)
        flush(path.parent)
    except OSError:
        remove(aside)
        raise


def create(path: Path, content: str | bytes) -> None:
    """A new file with this text or these bytes, flushed to the disk."""
    raw = content.encode() if isinstance(content, str) else content
    with open(path, "wb") as file:
        file.write(raw)
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


def lock(path: Path) -> TextIO:
    """Lock a file until the returned object is deleted or this process ends, however it ends.

    UserError if another process holds the lock, or if the file is not such a lock.
    """
    # A link is not followed: what it leads to would be emptied.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    try:
        file = os.fdopen(os.open(path, flags, 0o666), "a+", encoding="utf-8", errors="replace")
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise UserError(f"{path} is not a lock of ours; move it away") from None
        raise
    file.seek(0)
    before = file.read(1000).strip()
    if before and not before.startswith("process "):
        raise UserError(f"{path} is not a lock of ours; move it away")
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = before or "another process"
        raise UserError(f"{owner} is training in {path.parent}; wait for it, or give another --out") from None
    except OSError:
        pass  # a file system without locks
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


# --- deleting -------------------------------------------------------------------------------------

FILE = "file"
# What a folder of ours may hold: {regular expression of a name: FILE, or the Layout of a folder so named}.
Layout = dict[str, "Layout | str"]


def sort_out(folder: Path, layout: Layout) -> tuple[list[Path], list[Path]]:
    """(ours, foreign): what a folder holds, at any depth, by whether a layout describes it.

    What is in a folder comes before it, in the order in which it can be deleted. Symbolic links are foreign,
    and so are devices and mounted disks. Foreign folders are not looked into.
    """
    ours, foreign = [], []
    for path in sorted(folder.iterdir()):
        known = next((value for name, value in layout.items() if re.fullmatch(name, path.name)), None)
        leads_away = path.is_symlink() or os.path.ismount(path)
        if isinstance(known, dict) and path.is_dir() and not leads_away:
            inner = sort_out(path, known)
            ours += [*inner[0], path]
            foreign += inner[1]
        elif known == FILE and path.is_file() and not leads_away:
            ours.append(path)
        else:
            foreign.append(path)
    return ours, foreign


def remove(path: Path) -> None:
    """Delete a file or an empty folder, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            os.rmdir(path)
        else:
            os.unlink(path)


def remove_folder(folder: Path, layout: Layout) -> None:
    """Delete a folder, if it is there. OSError if it holds what is not in the layout; then nothing is."""
    if not folder.exists():
        return
    ours, foreign = sort_out(folder, layout)
    if foreign:
        raise OSError(errno.ENOTEMPTY, f"{foreign[0]} is not a file of ours; move it away")
    for path in (*ours, folder):
        remove(path)
