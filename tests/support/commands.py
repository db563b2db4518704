"""train.py and `python -m tinygpt` as a user runs them: in a process of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.survived import count

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # that a process may take


def flags(**settings):
    """Flags of train.py: max_steps=5, resume=PATH, force=True become --max-steps 5 --resume PATH --force.

    A list becomes several values.
    """
    words = []
    for name, value in settings.items():
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words += map(str, value if isinstance(value, list) else [value])
    return words


def train_command(**settings):
    """The command line of train.py with these settings."""
    return [sys.executable, str(ROOT / "train.py"), *flags(**settings)]


def start(cwd=ROOT, **settings):
    """train.py, running."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(train_command(**settings), cwd=cwd, env=environment, **pipes)


def finish(process):
    """Wait for a process whose output is piped: its returncode, stdout and stderr."""
    out, err = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def train(cwd=ROOT, **settings):
    """train.py, finished: its returncode, stdout and stderr."""
    return finish(start(cwd, **settings))


def tinygpt(*arguments, stdin=b"", cwd=ROOT, **environment):
    """`python -m tinygpt`, finished. Its output stays bytes, so that decoding hides nothing."""
    command = [sys.executable, "-m", "tinygpt", *map(str, arguments)]
    environment = os.environ | environment
    return subprocess.run(
        command, cwd=cwd, env=environment, input=stdin, capture_output=True, timeout=SECONDS
    )


def sample(*arguments, **options):
    """The text that `python -m tinygpt sample` prints."""
    result = tinygpt("sample", *arguments, **options)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()


def refused(result, message):
    """Check that a finished process left exit code 2 and one line on stderr that holds the message.

    Returns that line.
    """
    text = result.stderr.decode() if isinstance(result.stderr, bytes) else result.stderr
    assert result.returncode == 2, text
    assert message in text and text.startswith("error: ") and text.count("\n") == 1, text
    count("refused with one line and exit code 2, through the command line")
    return text


def wait_until_it_listens(process):
    """Until the process has a handler for SIGTERM of its own."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in status.splitlines())
        if int(lines["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)
    raise AssertionError(process.stderr.read())
