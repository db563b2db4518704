"""`python -m tinygpt sample`: prompts as people write them, the end of a text, and lines on a terminal."""

import codecs
import contextlib
import os
import pty
import select
import shutil
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from tests.support.commands import ROOT, refused
from tests.support.here import sample_here, tinygpt_here, train_program_here
from tests.support.models import sharp_model
from tests.support.runs import TINY, train_here
from tests.support.texts import MIXED
from tinygpt.commands import sample
from tinygpt.commands.conversation import converse
from tinygpt.config import UserError
from tinygpt.text.tokenizer import CharTokenizer

SHORT = ("--tokens", 8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run by characters and one by byte-pair encoding."""
    work = tmp_path_factory.mktemp("runs")
    (work / "mixed.txt").write_text(MIXED + "-", encoding="utf-8")
    for name, more in (("char", {}), ("bpe", dict(vocab_size=300))):
        train_here(**TINY, data=work / "mixed.txt", tokenizer=name, out=work / name, **more)
    return work


# --- prompts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["-hello", "--hello", "-the", "--", "-p 1", "-山", "--tok", "-5", "-e"])
def test_texts_that_look_like_flags(text, runs):
    assert sample_here(runs / "bpe", *SHORT, "--prompt", text).startswith(text)
    assert sample_here(runs / "bpe", *SHORT, f"--prompt={text}").startswith(text)
    assert sample_here("--prompt", text, "--stop", text, *SHORT, runs / "bpe").startswith(text)


def test_a_stop_text_that_looks_like_a_flag(runs):
    whole = sample_here(runs / "bpe", "--tokens", 200)
    for stop in ("-", "-e", "--no", "--"):
        stopped = sample_here(runs / "bpe", "--tokens", 200, "--stop", stop)
        assert stopped == sample_here(runs / "bpe", "--tokens", 200, f"--stop={stop}")
        assert stopped == whole.partition(stop)[0].removesuffix("\n") + "\n"


def test_a_flag_without_its_text(runs):
    """A flag that there is, is no text. It can be one after an equals sign."""
    for forgotten in (["--prompt", "--tokens", 5], ["--stop", "--samples=2"], ["--prompt", "--top_p", 1]):
        flag = forgotten[0]
        refused(tinygpt_here("sample", runs / "bpe", *forgotten), f"argument {flag}: expected one argument")
    assert sample_here(runs / "bpe", *SHORT, "--prompt=--tokens").startswith("--tokens")


@pytest.mark.parametrize(
    "text",
    ["山上\r\nThe", "\ufeff山上\nThe", "\ufeff山上\r\nThe", "山上\rThe", os.fsdecode("山上\nThe".encode())]
    + ["山上\nThe".encode().decode("ascii", "surrogateescape")],
)
@pytest.mark.parametrize("name", ["char", "bpe"])
def test_prompts_are_read_as_training_text_is(name, text, runs):
    """From the command line, from standard input, and as a stop text."""
    expected = sample_here(runs / name, *SHORT, "--prompt", "山上\nThe")
    assert sample_here(runs / name, *SHORT, "--prompt", text) == expected
    stdin = text.encode("utf-8", "surrogateescape")
    assert sample_here(runs / name, *SHORT, "--prompt", "-", stdin=stdin) == expected
    args = sample.sampling_arguments(["RUN", "--stop", text])
    assert args.stop == ["山上\nThe"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1e-310"], "--temperature"),
        (["--temperature", "-inf"], "--temperature"),
        (["--top-p", "nan"], "--top-p is nan; it must be more than 0 and at most 1"),
        (["--top-p", "-nan"], "--top-p"),
        (["--top-p", "inf"], "--top-p is inf"),
        (["--seed", "1.5"], "argument --seed: invalid int value: '1.5'"),
        (["--tokens", "1e9"], "argument --tokens: invalid int value: '1e9'"),
        (["--stop", os.fsdecode(b"\xff")], "--stop is not UTF-8 text: invalid start byte at position 0"),
        (["--prompt", "a\ud800"], "--prompt is not UTF-8 text: surrogates not allowed at position 1"),
        (["--prompt", "The\x00"], "character '\\x00' at position 3 is not in this model's vocabulary"),
        (["--prompt", "ROMEO 😀"], "is not in this model's vocabulary"),
        (["--out", "/dev/full"], "cannot write /dev/full: No space left on device"),
        (["--out", "/"], "cannot write /: Is a directory"),
    ],
)
def test_what_is_refused(arguments, message, runs):
    refused(tinygpt_here("sample", runs / "char", *arguments), message)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--temperature", "1e-310"],
        ["--temperature", "5e-324", "--top-k", "5", "--top-p", "0.9"],
        ["--temperature", "1e-320", "--samples", "2"],
    ],
)
def test_tiny_temperatures_are_greedy(arguments, runs):
    """Without a warning about the division that overflows."""
    greedy = sample_here(runs / "char", *SHORT, "--temperature", 0)
    result = tinygpt_here("sample", runs / "char", *SHORT, *arguments)
    assert (result.returncode, result.stderr) == (0, b"")
    assert greedy in result.stdout.decode()


@pytest.mark.parametrize("flag", [["--temperature", 1e300], ["--temperature", "inf"], ["--top-p", 1e-300]])
def test_extreme_numbers(flag, runs):
    result = tinygpt_here("sample", runs / "char", *SHORT, *flag)
    assert (result.returncode, result.stderr) == (0, b"") and len(result.stdout.decode()) == 8 + 1


def test_any_integer_is_a_seed(runs):
    seeds = (0, -1, 2**64 - 2, 2**63, -(10**30))
    assert len({sample_here(runs / "char", *SHORT, "--seed", seed) for seed in seeds}) == len(seeds)


def test_as_many_tokens_as_one_likes(runs):
    whole = sample_here(runs / "char", "--tokens", 100)
    stopped = sample_here(runs / "char", "--tokens", 10**30, "--stop", whole[90:93])
    assert whole.startswith(stopped[:-1])


# --- the end of a text ----------------------------------------------------------------------------

ENDING = CharTokenizer("abcdefghijklmnopqrst \n", end=True)


@pytest.fixture
def ending():
    """A model that ends its texts after about 20 characters takes the place of the run that is named."""
    with mock.patch.object(sample, "load_model", lambda path: (sharp_model(), ENDING)):
        yield


def texts(printed):
    """The texts of several samples."""
    return [part.partition(" ---\n")[2].removesuffix("\n") for part in printed.split("--- ")[1:]]


ONWARD = ("RUN", "--temperature", 2, "--tokens", 60)


def test_texts_end_where_the_model_ends_them(ending):
    """Each of several for itself; an ended one prints nothing more, and its end is not shown."""
    whole = sample_here(*ONWARD, "--samples", 4, "--no-stop-at-end")
    ended = sample_here(*ONWARD, "--samples", 4)
    assert whole.count("<|endoftext|>") > 3
    assert texts(ended) == [text.partition("<|endoftext|>")[0] for text in texts(whole)]
    assert len({len(text) for text in texts(ended)}) > 2


def test_a_text_that_ends_is_not_computed_further(ending):
    assert "<|endoftext|>" not in sample_here(*ONWARD[:3], "--tokens", 10**9, "--samples", 3)


@pytest.mark.parametrize(
    "flags", [(), ("--top-k", 9), ("--top-p", 0.9), ("--when-full", "halve"), ("--seed", 4)]
)
@pytest.mark.parametrize("prompt", ["", "abc", "a<|endoftext|>b"])
def test_the_end_with_other_options(flags, prompt, ending):
    options = (*ONWARD, "--prompt", prompt, *flags)
    whole, ended = sample_here(*options, "--no-stop-at-end"), sample_here(*options)
    assert ended.startswith(prompt)
    continuation = whole.removeprefix(prompt).removesuffix("\n")
    assert ended.removeprefix(prompt) == continuation.partition("<|endoftext|>")[0] + "\n"
    stopped = sample_here(*options, "--stop", "e", "--stop", "q")
    assert stopped.removeprefix(prompt).removesuffix("\n") in ended and len(stopped) <= len(ended)


def test_an_end_that_the_tokenizer_does_not_have(runs):
    plain = tinygpt_here("sample", runs / "char", *SHORT)
    asked = tinygpt_here("sample", runs / "char", *SHORT, "--stop-at-end")
    assert plain.stderr == b"" and asked.stdout == plain.stdout
    assert asked.stderr.startswith(b"note: --stop-at-end has no effect") and asked.stderr.count(b"\n") == 1


def test_a_model_trained_on_documents(tmp_path):
    """Its samples, those that training writes too, never show the token between documents."""
    (tmp_path / "poems").mkdir()
    for i in range(30):
        (tmp_path / "poems" / f"{i}.txt").write_text("ab" * (i % 3 + 1), encoding="utf-8")
    settings = TINY | dict(max_steps=60, eval_interval=60, learning_rate=0.02, sample_tokens=100)
    result = train_program_here(**settings, data=tmp_path / "poems", out=tmp_path / "run")
    assert result.returncode == 0, result.stderr
    written = (tmp_path / "run" / "samples" / "step_000060.txt").read_text()
    assert set(written) <= set("ab") and len(written) < 30
    ended = sample_here(tmp_path / "run", "--tokens", 100)
    onward = sample_here(tmp_path / "run", "--tokens", 100, "--no-stop-at-end")
    assert len(ended) < 30 and onward.startswith(ended[:-1] + "<|endoftext|>")


# --- lines on a terminal --------------------------------------------------------------------------


def lines(*events):
    """A reader as `input`, which returns these lines or raises these exceptions."""
    events = iter(events)

    def read(prompt):
        event = next(events)
        if isinstance(event, str):
            return event
        raise event

    return read


def test_a_conversation(capsys):
    answers = []

    def answer(line, number):
        answers.append((line, number))
        if line == "wrong":
            raise UserError("no such character")
        if line == "long":
            raise KeyboardInterrupt
        print(line.upper())

    converse(answer, lines("one", "", "wrong", "long", "two", EOFError()))
    assert answers == [("one", 0), ("", 1), ("wrong", 2), ("long", 2), ("two", 3)]
    printed = capsys.readouterr()
    assert printed.out == "ONE\n\n\nTWO\n\n"
    assert printed.err.endswith("error: no such character\n")


@pytest.mark.parametrize("end", [EOFError(), KeyboardInterrupt()])
def test_leaving_a_conversation(end):
    converse(lambda line, number: pytest.fail("there was no line"), lines(end))


@pytest.mark.parametrize("name", ["char", "bpe"])
def test_answers_are_those_of_one_prompt_each(name, runs, capsys):
    """The same text as with --prompt, and with a seed that is one more each time."""
    options = [*map(str, SHORT), "--samples", "2", "--seed", "7"]
    args = sample.sampling_arguments([str(runs / name), *options])
    author = sample.Author(*sample.load_model(args.run), args)
    for number, line in enumerate(["The ", "", "山", "The "]):
        author.answer(line, number)
        expected = sample_here(runs / name, *SHORT, "--samples", 2, "--seed", 7 + number, "--prompt", line)
        assert capsys.readouterr().out.splitlines()[0] == "--- 1 ---"
        author.answer(line, number)
        assert capsys.readouterr().out.replace("---\n", f"---\n{line}") == expected
    with pytest.raises(UserError, match="the line is not UTF-8 text"):
        author.answer("\udcff", 0)


def on_a_terminal(arguments, steps):
    """Start `python -m tinygpt` on a terminal of its own; for each step wait for a text, then type another.

    Returns its exit code and all that the terminal showed.
    """
    process, terminal = pty.fork()
    if not process:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "tinygpt", *map(str, arguments)])
    shown, at = "", 0
    with contextlib.closing(TerminalOutput(terminal)) as output:
        for wanted, typed in steps:
            while wanted not in shown[at:]:
                shown += output.read() or pytest.fail(f"it ended, or shows no {wanted!r}: {shown}")
            at = shown.index(wanted, at) + len(wanted)
            time.sleep(0.1)  # it must be waiting for a key again
            os.write(terminal, typed.encode())
        while more := output.read():
            shown += more
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown


class TerminalOutput:
    """What a terminal shows, until its process ends or has been silent for too long."""

    def __init__(self, terminal):
        self.terminal = terminal
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self):
        while select.select([self.terminal], [], [], 20)[0]:
            try:
                new = os.read(self.terminal, 65_536)
            except OSError:  # the process has ended
                break
            if text := self.decoder.decode(new):
                return text
        return ""

    def close(self):
        os.close(self.terminal)


def test_a_terminal(runs):
    """An answer, a line that is given up, a line from the history, an answer that is stopped, the end."""
    answer = sample_here(runs / "char", "--tokens", 9, "--prompt", "The fox").replace("\n", "\r\n")
    up, interrupt, end = "\x1b[A", "\x03", "\x04"
    steps = [
        ("> ", "The fox\n"), (answer[7:16], interrupt),
        ("> ", "given up"), ("given up", interrupt),
        ("> ", up), ("The fox", "\n"), ("\r\n", interrupt),
        ("> ", end),
    ]  # fmt: skip
    code, shown = on_a_terminal(["sample", runs / "char", "--tokens", 10**9], steps)
    assert code == 0 and "Traceback" not in shown


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl", "ckpt/latest"])
def test_no_file_of_the_model_is_written_over(runs, tmp_path, name):
    run = Path(shutil.copytree(runs / "char", tmp_path / "run"))
    before = (run / name).read_bytes()
    refused(tinygpt_here("sample", run, "--out", run / name), f"is a file of {run}")
    (tmp_path / "link").symlink_to(run / name)
    refused(tinygpt_here("sample", run, "--out", tmp_path / "link"), f"is a file of {run}")
    assert (run / name).read_bytes() == before
    for new in (run / "more.txt", tmp_path / "more.txt", tmp_path / "more.txt"):
        assert tinygpt_here("sample", run, "--tokens", 3, "--out", new).returncode == 0
