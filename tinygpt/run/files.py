"""Files that a crash cannot spoil: whatever happens in between, the disk holds the old content or the new,
whole.
"""

import contextlib
import os
import shutil
import socket

from tinygpt.config import UserError

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None


def write(path, text):
    """Put a text into a file in the place of what was there."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        create(aside, text)
        os.replace(aside, path)
        flush(path.parent)
    except OSError:
        remove(aside)
        raise


def create(path, text):
    """A new file with this text, flushed to the disk."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def flush(path):
    """Make sure that a file, or the list of files in a folder, has reached the disk."""
    if os.name == "nt" and path.is_dir():  # a folder cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path):
    """Delete a file, or a folder with all it holds, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else os.unlink(path)


def lock(path):
    """Lock a file until the returned object goes or this process ends, however it ends.

    UserError if another holds it.
    """
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115, as the lock lives as long as the file is open
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
