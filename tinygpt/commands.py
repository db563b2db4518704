"""The commands of `python -m tinygpt`: what is done with a model once it is trained."""

import argparse
import contextlib
import math
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TextIO

import numpy as np

from tinygpt import gpt2
from tinygpt.cli import VERSION, Parser, device_for
from tinygpt.config import UserError, nearest, require
from tinygpt.evaluate import total_loss
from tinygpt.generate import WHEN_FULL, TextStream, generate_rows, prompt_ids
from tinygpt.model import GPT
from tinygpt.run import checkpoint
from tinygpt.text import data
from tinygpt.text.tokenizer import IdTokenizer, Tokenizer

MODEL_HELP = "the folder of a run, of one of its checkpoints, or of a GPT-2 model"


def main(argv: list[str] | None = None) -> None:
    """`python -m tinygpt COMMAND ...`"""
    argv = sys.argv[1:] if argv is None else argv
    sys.stdout.reconfigure(errors="replace")  # for a terminal that cannot show every character
    if not argv or argv[0] in ("-h", "--help"):
        print(
            "usage: python -m tinygpt COMMAND ... (or --version); --help after a command lists its options\n"
        )
        print("\n".join(f"  {name:8} {command.__doc__}" for name, command in COMMANDS.items()))
        return
    if argv[0] == "--version":
        print(VERSION)
        return
    if argv[0] not in COMMANDS:
        raise UserError(f"unknown command {argv[0]!r}; {nearest(argv[0], COMMANDS)}")
    COMMANDS[argv[0]](argv[1:])


# --- sample ---------------------------------------------------------------------------------------


def sample(argv: list[str]) -> None:
    """Write text with a trained model."""
    args = sampling_arguments(argv)
    prompt = data.decode(sys.stdin.buffer.read(), "standard input") if args.prompt == "-" else args.prompt
    model, tokenizer = load_model(args.run)
    ids = prompt_ids(tokenizer, prompt)
    if args.top_k > tokenizer.vocab_size:
        note(f"--top-k {args.top_k} is more than the vocabulary of {tokenizer.vocab_size}: all are used")
    if len(ids) > model.config.block_size:
        note(f"only the last {model.config.block_size} of {len(ids)} prompt tokens fit the context")
    rows = generate_rows(
        model.to(args.device),
        ids,
        args.tokens,
        args.samples,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
        when_full=args.when_full,
        vocab_size=tokenizer.vocab_size,
    )
    with _output(args.out) as file:
        write_samples(file, prompt, [TextStream(tokenizer, args.stop) for _ in range(args.samples)], rows)


def sampling_arguments(argv: list[str]) -> argparse.Namespace:
    """The arguments of `sample`, checked."""
    parser = Parser(prog="python -m tinygpt sample", description=sample.__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("run", help=MODEL_HELP)
    text = "text to continue; - reads it from standard input (default: a line break)"
    add("--prompt", default="", metavar="TEXT", help=text)
    add("--tokens", type=int, default=500, help="how many tokens to write at most (default: 500)")
    add("--temperature", type=float, default=0.8, help="below 1 bolder, 0 greedy (default: 0.8)")
    add("--top-k", type=int, default=0, help="choose among the k most likely only (default: 0, all)")
    text = "choose among the most likely that together have this chance (default: 1, all)"
    add("--top-p", type=float, default=1.0, help=text)
    text = "end before this text; may be given several times"
    add("--stop", action="append", default=[], metavar="TEXT", help=text)
    add("--samples", type=int, default=1, help="how many different texts to write (default: 1)")
    add("--seed", type=int, default=1337, help="names the choices made (default: 1337)")
    add("--out", metavar="FILE", help="write into this file instead")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    text = "once the context is full: recompute it for every token, or halve it and go on with the cache "
    add("--when-full", choices=WHEN_FULL, default="exact", help=text + "(default: exact)")
    args = parser.parse_args(argv)
    for flag, value, is_allowed, wanted in (
        ("--temperature", args.temperature, args.temperature >= 0, "at least 0"),
        ("--tokens", args.tokens, args.tokens > 0, "more than 0"),
        ("--samples", args.samples, args.samples > 0, "more than 0"),
        ("--top-k", args.top_k, args.top_k >= 0, "at least 0"),
        ("--top-p", args.top_p, 0 < args.top_p <= 1, "more than 0 and at most 1"),
        ("--stop", args.stop, "" not in args.stop, "some text"),
    ):
        require(is_allowed, f"{flag} is {value}; it must be {wanted}")
    args.device, _ = device_for(args.device)
    return args


def write_samples(
    file: TextIO, prompt: str, streams: Sequence[TextStream], rows: Iterable[np.ndarray]
) -> None:
    """Write texts that go on from the prompt: a TextStream for each, and rows with a token for each.

    The first text is shown as it comes, the others at the end.
    """
    texts = [[] for _ in streams]
    if len(streams) > 1:
        print("--- 1 ---", file=file)
    print(prompt, end="", file=file, flush=True)
    for row in rows:
        for stream, text, token in zip(streams, texts, row, strict=True):
            text.append(stream.feed(token))
        print(texts[0][-1], end="", file=file, flush=True)
        if all(stream.stopped for stream in streams):
            break
    print(streams[0].finish(), file=file)
    for number, (stream, text) in enumerate(zip(streams[1:], texts[1:], strict=True), 2):
        print(f"--- {number} ---", prompt + "".join(text) + stream.finish(), sep="\n", file=file)


def _output(path: str | None) -> AbstractContextManager[TextIO]:
    """Standard output, or a file to write to."""
    if not path:
        return contextlib.nullcontext(sys.stdout)
    try:
        return open(path, "w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


# --- eval -----------------------------------------------------------------------------------------


def evaluate(argv: list[str]) -> None:
    """Measure a model's loss, perplexity and bits per byte over a whole text."""
    parser = Parser(prog="python -m tinygpt eval", description=evaluate.__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("run", help=MODEL_HELP)
    add("--data", default="", help="a text, as for train.py (default: that of the run)")
    text = "which part of it (default: val, the last tenth)"
    add("--split", choices=("val", "train", "all"), default="val", help=text)
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    args = parser.parse_args(argv)
    device, _ = device_for(args.device)
    model, tokenizer = load_model(args.run)
    corpus, text = data.load_text(args.data or _data_of(args.run))
    train, val = data.split(text)
    part = {"train": train, "val": val, "all": text}[args.split]
    ids = tokenizer.encode(part, offset=len(train) if args.split == "val" else 0)
    require(
        len(ids) >= 2,
        f"the text has {len(ids)} tokens in this part ({args.split}); it takes 2 to predict one from the "
        "other",
    )
    loss = total_loss(model.to(device), ids, device, progress=sys.stderr.isatty()) / (len(ids) - 1)
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss}: the model's weights are damaged or its training diverged")
    size = len(part.encode())
    predicted = size - len(tokenizer.pieces[ids[0]])  # bytes
    bits = loss * (len(ids) - 1) / math.log(2) / predicted
    print(f"{corpus}, {args.split}: {len(ids):,} tokens, {size:,} bytes")
    print(f"loss {loss:.4f} nats per token, perplexity {math.exp(loss):.3f}, {bits:.4f} bits per byte")


def _data_of(path: str) -> str:
    """The name or path of the text that a run was trained on."""
    if gpt2.is_gpt2(path):
        raise UserError(f"{path} does not say what it was trained on; give a text with --data")
    return checkpoint.load(path).state["settings"]["data"]


# --- export ---------------------------------------------------------------------------------------


def export(argv: list[str]) -> None:
    """Write a trained model as a GPT-2 folder, which Hugging Face's transformers load."""
    parser = Parser(prog="python -m tinygpt export", description=export.__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("run", help=MODEL_HELP)
    add("folder", help="the new folder")
    text = "GPT-2's output head has no bias: put a model's into its last norm, or leave it out "
    choices = ("refuse", "fold", "drop")
    add("--head-bias", choices=choices, default="refuse", help=text + "(default: refuse)")
    args = parser.parse_args(argv)
    model, tokenizer = load_model(args.run)
    gpt2.export(model, tokenizer, args.folder, args.head_bias)
    print(f"wrote {args.folder}: transformers.GPT2LMHeadModel.from_pretrained({args.folder!r})")


# --- what they share ------------------------------------------------------------------------------


def load_model(path: str) -> tuple[GPT, Tokenizer]:
    """(model, tokenizer) of a run's folder or a GPT-2 folder."""
    model, tokenizer = gpt2.load_model(path)
    if isinstance(tokenizer, IdTokenizer):
        note(f"{path} has no tokenizer.json: prompt and text are token ids")
    return model, tokenizer


def note(text: str) -> None:
    """Tell the user something that is not an error, apart from the output."""
    print(f"note: {text}", file=sys.stderr)


COMMANDS = {"sample": sample, "eval": evaluate, "export": export}
