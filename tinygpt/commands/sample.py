"""`python -m tinygpt sample`: text from a trained model."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from tinygpt.cli import device_for
from tinygpt.cli.parser import Parser
from tinygpt.commands.conversation import converse
from tinygpt.commands.shared import MODEL_HELP, load_model, note
from tinygpt.config import UserError, require
from tinygpt.generate import WHEN_FULL, TextStream, generate_rows, prompt_ids
from tinygpt.model import GPT
from tinygpt.text.decoding import decode, with_lf
from tinygpt.text.formats import STDIN
from tinygpt.text.tokenizer import Tokenizer


def main(argv: list[str]) -> None:
    """Write text with a trained model."""
    args = sampling_arguments(argv)
    interactive = args.prompt is None and not args.out and sys.stdin.isatty() and sys.stdout.isatty()
    if args.prompt == "-":
        if sys.stdin.isatty():
            note("type the prompt; Ctrl-D on a line of its own ends it")
        prompt = decode(sys.stdin.buffer.read(), STDIN)
    else:
        prompt = as_text("" if args.prompt is None else args.prompt, "--prompt")
    if args.out:
        check_beside(args.run, args.out)
    author = Author(*load_model(args.run), args)
    if interactive:
        converse(author.answer)
    else:
        with _output(args.out) as file:
            author.write(file, prompt, args.seed)


@dataclass
class Author:
    """A model on its device, and how it should write."""

    model: GPT
    tokenizer: Tokenizer
    args: argparse.Namespace

    def __post_init__(self) -> None:
        self.model.to(self.args.device)
        if self.args.top_k > self.tokenizer.vocab_size:
            size = self.tokenizer.vocab_size
            note(f"--top-k {self.args.top_k} is more than the vocabulary of {size}: all are used")
        if self.args.stop_at_end and not self.tokenizer.end_ids:
            note("--stop-at-end has no effect: the tokenizer has no token for the end of a text")

    def answer(self, line: str, number: int) -> None:
        """Print what may follow a line, without the line. number: how many answers came before."""
        self.write(sys.stdout, as_text(line, "the line"), self.args.seed + number, show_prompt=False)

    def write(self, file: TextIO, prompt: str, seed: int, show_prompt: bool = True) -> None:
        """Write the texts that --samples asks for."""
        args, context = self.args, self.model.config.block_size
        ids = prompt_ids(self.tokenizer, prompt)
        if len(ids) > context:
            note(f"only the last {context} of {len(ids)} prompt tokens fit the context")
        rows = generate_rows(
            self.model,
            ids,
            args.tokens,
            args.samples,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            seed=seed,
            when_full=args.when_full,
            vocab_size=self.tokenizer.vocab_size,
        )
        end_ids = () if args.stop_at_end is False else self.tokenizer.end_ids
        streams = [TextStream(self.tokenizer, args.stop, end_ids) for _ in range(args.samples)]
        write_samples(file, prompt if show_prompt else "", streams, rows)


def sampling_arguments(argv: list[str]) -> argparse.Namespace:
    """The arguments of `sample`, checked."""
    parser = Parser(prog="python -m tinygpt sample", description=main.__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("run", help=MODEL_HELP)
    text = "text to continue; - reads it from standard input (default: on a terminal a line at a time, as "
    text += "often as you like; else none: the start of a text)"
    add("--prompt", metavar="TEXT", help=text)
    add("--tokens", type=int, default=500, help="how many tokens to write at most (default: 500)")
    add("--temperature", type=float, default=0.8, help="below 1 bolder, 0 greedy (default: 0.8)")
    add("--top-k", type=int, default=0, help="choose among the k most likely only (default: 0, all)")
    text = "choose among the most likely that together have this chance (default: 1, all)"
    add("--top-p", type=float, default=1.0, help=text)
    text = "end before this text; may be given several times"
    add("--stop", action="append", default=[], metavar="TEXT", help=text)
    text = "end where the model ends a text, or write that token too and go on (default: end there, if the "
    text += "tokenizer has such a token)"
    add("--stop-at-end", action=argparse.BooleanOptionalAction, help=text)
    add("--samples", type=int, default=1, help="how many different texts to write (default: 1)")
    text = "names the choices made; one more for each further line on a terminal (default: 1337)"
    add("--seed", type=int, default=1337, help=text)
    add("--out", metavar="FILE", help="write into this file instead, as UTF-8")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    text = "once the context is full: recompute it for every token, or halve it and go on with the cache "
    add("--when-full", choices=WHEN_FULL, default="exact", help=text + "(default: exact)")
    args = parser.parse_args(attach(argv, ("--prompt", "--stop"), parser._option_string_actions))
    args.stop = [as_text(stop, "--stop") for stop in args.stop]
    for flag, value, is_allowed, wanted in (
        ("--temperature", args.temperature, args.temperature >= 0, "at least 0"),
        ("--tokens", args.tokens, args.tokens > 0, "more than 0"),
        ("--samples", args.samples, args.samples > 0, "more than 0"),
        ("--top-k", args.top_k, args.top_k >= 0, "at least 0"),
        ("--top-p", args.top_p, 0 < args.top_p <= 1, "more than 0 and at most 1"),
        ("--stop", args.stop, "" not in args.stop, "some text"),
    ):
        require(is_allowed, f"{flag} is {value}; it must be {wanted}")
    args.out = args.out and os.path.expanduser(args.out)
    args.device, _ = device_for(args.device)
    return args


def attach(argv: Sequence[str], flags: Iterable[str], known: Iterable[str]) -> list[str]:
    """The words of a command line, with `--prompt -hello` as `--prompt=-hello` for each of these flags.

    argparse takes a word that begins with - for a flag. Here only a known flag is one.
    """
    words = []
    for word in argv:
        if words and words[-1] in flags and word.startswith("-") and _name(word) not in known:
            words[-1] += "=" + word
        else:
            words.append(word)
    return words


def _name(word):
    return word.partition("=")[0].replace("_", "-")


def as_text(word: str | list, source: str) -> str:
    """What the user typed, as a text to train on is read: without a mark, and each line ends with LF.

    Bytes that the locale does not know arrive as surrogates: they are read as UTF-8. UserError if they are
    not.
    """
    if word == []:
        word = "--"  # argparse leaves nothing of this text
    try:
        text = word.encode("utf-8", "surrogateescape").decode("utf-8-sig")
    except UnicodeError as error:
        raise UserError(f"{source} is not UTF-8 text: {error.reason} at position {error.start}") from None
    return with_lf(text)


def write_samples(
    file: TextIO, prompt: str, streams: Sequence[TextStream], rows: Iterable[np.ndarray]
) -> None:
    """Write texts that go on from the prompt: a TextStream for each, and rows with a token for each.

    The first text is shown as it comes, the others at the end.
    """
    first, *others = streams
    texts = [[] for _ in others]
    if others:
        print("--- 1 ---", file=file)
    print(prompt, end="", file=file, flush=True)
    for row in rows:
        print(first.feed(row[0]), end="", file=file, flush=True)
        for stream, text, token in zip(others, texts, row[1:], strict=True):
            text.append(stream.feed(token))
        if all(stream.stopped for stream in streams):
            break
    print(first.finish(), file=file)
    for number, (stream, text) in enumerate(zip(others, texts, strict=True), 2):
        print(f"--- {number} ---", prompt + "".join(text) + stream.finish(), sep="\n", file=file)


def check_beside(run: str, out: str) -> None:
    """UserError if the file to write is one of the model's folder: a run's settings, say, or its weights."""
    path, folder = Path(os.path.realpath(out)), Path(os.path.realpath(run))
    require(
        not (path.exists() and folder in path.parents), f"--out {out} is a file of {run}; give another name"
    )


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[TextIO]:
    """Standard output, or a file to write to."""
    if not path:
        yield sys.stdout
        return
    try:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
