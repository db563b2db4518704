"""When the programs cannot even be imported, and when memory ends later: one line, exit code 2."""

import os
import subprocess
import sys

import pytest

from tests.support.commands import ROOT, refused
from tinygpt import cli, startup

# What numpy does when it is imported -> what the line must say.
IMPORTS = {
    "raise MemoryError": "cannot start: out of memory; close other programs, or raise the limit (ulimit -v)",
    "raise ImportError('libopenblas.so: failed to map segment from shared object')": "out of memory: libop",
    "try: 1 / 0\nexcept Exception as e: raise ImportError('\\n\\nREAD THIS\\n') from e": "division by zero",
    "import no_such_package": "No module named 'no_such_package'; install what it needs: pip install -e .",
}


@pytest.mark.parametrize("program", [["train.py"], ["-m", "tinygpt", "sample", "run"]])
@pytest.mark.parametrize("code", IMPORTS)
def test_imports_that_fail(code, program, tmp_path):
    (tmp_path / "numpy.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, *program]
    refused(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True), IMPORTS[code])


def test_other_programs_get_the_exception(tmp_path):
    (tmp_path / "numpy.py").write_text("raise MemoryError")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", "import tinygpt"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.endswith("MemoryError\n")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"),
        ImportError("libz.so.1: failed to map segment from shared object"),
        MemoryError("Unable to allocate 41.1 MiB for an array"),
        MemoryError(),
    ],
)
def test_memory_that_ends_later(error, capsys):
    def train():
        raise error

    with pytest.raises(SystemExit) as stopped:
        cli.exit_with_code(train)
    line = capsys.readouterr().err
    assert stopped.value.code == 2 and line.count("\n") == 1
    assert line.startswith(f"error: out of memory{': ' if str(error) else ''}{error};")


def test_other_errors_keep_their_traceback():
    def train():
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError):
        cli.exit_with_code(train)
    assert not startup.is_lack_of_memory(RuntimeError("a mistake of ours"))
