"""What the programs print, wherever that goes: terminals without the letters, closed streams, full disks."""

import os
import subprocess
import sys

import pytest

from tests.support.commands import ROOT, SECONDS, refused
from tests.support.here import stream, tinygpt_here, train_program_here, unread_pipe
from tests.support.runs import TINY
from tests.support.texts import CHINESE
from tinygpt.run import checkpoint

TEXT = CHINESE * 20 + "😀é" * 20
ENCODINGS = ("ascii", "cp1252", "latin-1", "utf-16", "shift_jis")
NAMES = ("三国.txt", "😀 café.txt", os.fsdecode(b"caf\xe9.txt"))  # the last one is no UTF-8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on TEXT, from a file with a Chinese name."""
    work = tmp_path_factory.mktemp("山")
    (work / NAMES[0]).write_text(TEXT, encoding="utf-8")
    result = train_program_here(**TINY, data=work / NAMES[0], out=work / "运行")
    assert result.returncode == 0, result.stderr
    return work / "运行"


# --- characters that cannot be shown --------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "name"), list(zip(ENCODINGS, NAMES * 2, strict=False)))
def test_training_where_the_text_and_its_name_cannot_be_shown(encoding, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(TEXT, encoding="utf-8")
    shorter = TINY | dict(max_steps=2, sample_tokens=50)
    result = train_program_here(dict(encoding=encoding), **shorter, data=name)
    assert result.returncode == 0 and result.stderr == b"", result.stderr
    printed = result.stdout.decode(encoding)
    assert ("?" in printed) == (encoding != "utf-16") and "more text: python -m tinygpt sample" in printed
    [run] = (tmp_path / "runs").iterdir()
    written = (run / "samples" / "step_000002.txt").read_bytes().decode()
    assert len(written) == 50 and not written.isascii()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_commands_where_the_text_cannot_be_shown(encoding, run, tmp_path):
    sampling = ("sample", run, "--prompt", "山é😀", "--tokens", 5)
    for command in (sampling, ("eval", run), ("list", run.parent)):
        whole, result = tinygpt_here(*command).stdout.decode(), tinygpt_here(*command, encoding=encoding)
        assert not whole.isascii()
        assert (result.returncode, result.stderr) == (0, b"")
        assert result.stdout == whole.encode(encoding, "replace")
    assert tinygpt_here(*sampling, "--out", tmp_path / "出.txt", encoding=encoding).returncode == 0
    assert (tmp_path / "出.txt").read_bytes() == tinygpt_here(*sampling).stdout
    exported = tinygpt_here("export", run, tmp_path / "二", "--head-bias", "drop", encoding=encoding)
    assert exported.returncode == 0 and (tmp_path / "二" / "config.json").is_file()
    result = tinygpt_here("sample", tmp_path / "没有", encoding=encoding)
    assert result.returncode == 2 and "has no checkpoint" in result.stderr.decode(encoding)


def test_how_characters_are_replaced_may_be_chosen(run):
    """PYTHONIOENCODING=ascii:backslashreplace"""
    stdout = stream(encoding="ascii", errors="backslashreplace")
    assert tinygpt_here("sample", run, "--prompt", "山", "--tokens", 1, stdout=stdout).returncode == 0
    assert stdout.buffer.getvalue().startswith(b"\\u5c71")


@pytest.mark.parametrize("locale", [dict(PYTHONIOENCODING="ascii"), dict(PYTHONUTF8="0", LC_ALL="C")])
def test_in_the_plainest_of_locales(locale, run):
    """There a word of the command line arrives as bytes that the locale does not know."""
    environment = os.environ | dict(PYTHONCOERCECLOCALE="0") | locale
    command = [
        sys.executable,
        "-m",
        "tinygpt",
        "sample",
        run,
        "--prompt",
        "山é",
        "--stop",
        "。",
        "--tokens",
        "9",
    ]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=SECONDS)
    expected = tinygpt_here(*command[3:]).stdout.decode()
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == expected.encode("ascii", "replace")


# --- streams that are closed, full, or not read ---------------------------------------------------

COMMANDS = {
    "sample": ["sample", "RUN", "--tokens", "3"],
    "several": ["sample", "RUN", "--tokens", "3", "--samples", "3"],
    "eval": ["eval", "RUN"],
    "list": ["list", "RUN"],
    "help": [],
    "help of a command": ["sample", "--help"],
    "version": ["--version"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_output_that_nobody_can_read(name, run):
    command = [run if word == "RUN" else word for word in COMMANDS[name]]
    assert tinygpt_here(*command).stdout.count(b"\n") >= 1
    for closed in (["stdout"], ["stderr"], ["stdout", "stderr"], ["stdin", "stdout", "stderr"]):
        result = tinygpt_here(*command, **dict.fromkeys(closed))
        assert result.returncode == 0 and result.stderr == b""
        assert bool(result.stdout) == ("stdout" not in closed)
    with open("/dev/full", "w") as full:
        refused(tinygpt_here(*command, stdout=full), "error: standard output: No space left on device")
    with unread_pipe() as pipe:
        result = tinygpt_here(*command, stdout=pipe)
        assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.parametrize("words", [["sampel"], ["sample"], ["sample", "nowhere"], ["eval", "--nothing"]])
def test_an_error_that_nobody_can_read(words):
    refused(tinygpt_here(*words), "error: ")
    assert tinygpt_here(*words, stderr=None).returncode == 2
    with open("/dev/full", "w") as full, unread_pipe() as pipe:
        assert tinygpt_here(*words, stderr=full).returncode == 2
        assert tinygpt_here(*words, stderr=pipe).returncode == 2


def test_a_note_that_cannot_be_written_stops_nothing(run):
    command = ["sample", run, "--tokens", 3, "--top-k", 9999]
    whole = tinygpt_here(*command)
    assert whole.stderr.startswith(b"note: ")
    with open("/dev/full", "w") as full:
        result = tinygpt_here(*command, stderr=full)
    assert (result.returncode, result.stdout) == (0, whole.stdout)


def test_training_that_nobody_can_read(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    settings = TINY | dict(data=tmp_path / "text.txt")
    for closed in (["stdout"], ["stderr"], ["stdin", "stdout", "stderr"]):
        result = train_program_here(dict.fromkeys(closed), **settings, out=tmp_path / "-".join(closed))
        assert result.returncode == 0 and result.stderr == b""
        assert checkpoint.load(tmp_path / "-".join(closed)).state["step"] == 20
    with open("/dev/full", "w") as full:
        result = train_program_here(dict(stdout=full), **settings, out=tmp_path / "full")
        refused(result, "error: standard output: No space left on device")
    with unread_pipe() as pipe:
        result = train_program_here(dict(stdout=pipe), **settings, out=tmp_path / "pipe")
        assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("redirected", "code", "error"),
    [
        (">/dev/full", 2, b"error: standard output: No space left on device\n"),
        (">/dev/full 2>/dev/full", 2, b""),
        ("<&- >&- 2>&-", 0, b""),
        ("| true", 0, b""),
    ],
)
def test_python_adds_nothing_when_it_ends(redirected, code, error):
    """What a stream still holds is written by Python itself at the end, and would fail there once more."""
    shell = f"'{sys.executable}' -m tinygpt sample --help {redirected}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(["sh", "-c", shell], cwd=ROOT, env=environment, capture_output=True)
    assert (result.returncode, result.stdout, result.stderr) == (code, b"", error)


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path):
    """Or else a hint for the user, written to standard error by its number, would end up in that file."""
    code = "from tinygpt import streams; streams.make_safe(); file = open('file', 'w'); "
    code += "file.write(str(file.fileno()))"
    shell = f"'{sys.executable}' -c \"{code}\" <&- >&- 2>&-"
    environment = os.environ | dict(PYTHONPATH=str(ROOT))
    assert subprocess.run(["sh", "-c", shell], cwd=tmp_path, env=environment).returncode == 0
    assert int((tmp_path / "file").read_text()) > 2
