"""The programs in this process, with standard streams of their own: as in commands.py, but quicker."""

import io
import os
import subprocess
import sys
from unittest import mock

import train
from tests.support.commands import flags
from tinygpt import commands
from tinygpt.cli import exit_with_code
from tinygpt.run.folder import Run


def stream(content=b"", encoding="utf-8", errors="strict"):
    """A text stream over bytes, as strict as Python's own standard streams."""
    return io.TextIOWrapper(io.BytesIO(content), encoding=encoding, errors=errors)


def unread_pipe():
    """A stream into a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


def program(function, *arguments, encoding="utf-8", stdin=b"", **streams):
    """Run the main function of a program as its process would: its returncode, stdout and stderr, as bytes.

    stdin: bytes. Without others, stdout and stderr have this encoding. One that is None is closed.
    """
    out, error = stream(encoding=encoding), stream(encoding=encoding, errors="backslashreplace")
    streams = dict(stdin=stream(stdin, encoding), stdout=out, stderr=error) | streams
    code = 0
    with mock.patch.multiple(sys, **streams):
        try:
            exit_with_code(lambda: function(list(map(str, arguments))))
        except SystemExit as end:
            code = end.code or 0
    printed = [each.buffer.getvalue() for each in (out, error)]
    return subprocess.CompletedProcess(arguments, code, *printed)


def tinygpt_here(*arguments, **streams):
    """`python -m tinygpt`, as `tests.support.commands.tinygpt`."""
    return program(commands.main, *arguments, **streams)


def sample_here(*arguments, **streams):
    """The text that `python -m tinygpt sample` prints."""
    result = tinygpt_here("sample", *arguments, **streams)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()


def train_program_here(streams=None, **settings):
    """train.py, but without its plots."""
    with mock.patch.object(Run, "plot_losses"):
        return program(train.main, *flags(**settings), **(streams or {}))
