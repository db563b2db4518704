"""`python -m tinygpt eval`: how well a model predicts a whole text."""

import argparse
import math
import os
import sys

from tinygpt import gpt2
from tinygpt.cli import device_for
from tinygpt.cli.parser import Parser
from tinygpt.commands.shared import MODEL_HELP, load_model, note
from tinygpt.config import UserError, require
from tinygpt.evaluate import total_loss
from tinygpt.run import checkpoint, resume
from tinygpt.run.checkpoint import Checkpoint
from tinygpt.text.corpus import load_documents
from tinygpt.text.data import Parts, checksum


def main(argv: list[str]) -> None:
    """Measure a model's loss, perplexity and bits per byte over a whole text."""
    args = evaluation_arguments(argv)
    model, tokenizer = load_model(args.run)
    saved = None if gpt2.is_gpt2(args.run) else checkpoint.load(args.run)
    corpus, documents = documents_for(args, saved)
    part = getattr(Parts(documents), args.split)
    ids = part.encode(tokenizer)
    require(
        len(ids) >= 2,
        f"the text has {len(ids)} tokens in this part ({args.split}); it takes 2 to predict one from the "
        "other",
    )
    if saved and checksum(documents) != saved.state["data_sha256"]:
        note(difference(args, saved, corpus))
    progress = sys.stderr.isatty()
    loss = total_loss(model.to(args.device), ids, args.device, progress) / (len(ids) - 1)
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss}: the model's weights are damaged or its training diverged")
    predicted = part.bytes - len(tokenizer.pieces[ids[0]])  # bytes
    bits = loss * (len(ids) - 1) / math.log(2) / predicted
    perplexity = math.exp(loss) if loss < 700 else math.inf  # there are no larger floats
    print(f"{corpus}, {args.split}: {len(ids):,} tokens, {part.bytes:,} bytes")
    print(f"loss {loss:.4f} nats per token, perplexity {perplexity:.3f}, {bits:.4f} bits per byte")


def evaluation_arguments(argv: list[str]) -> argparse.Namespace:
    """The arguments of `eval`, checked."""
    parser = Parser(prog="python -m tinygpt eval", description=main.__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("run", nargs="?", help=MODEL_HELP)
    add("--data", nargs="+", metavar="TEXT", help="texts, as for train.py (default: those of the run)")
    add("--encoding", default="", help="that of the texts (default: UTF-8)")
    add("--text-key", default="text", help="where a line of JSON has its text (default: text)")
    text = "which part of it (default: val, the last tenth)"
    add("--split", choices=("val", "train", "all"), default="val", help=text)
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    args = parser.parse_args(argv)
    if not args.run and args.data and len(args.data) > 1:  # --data TEXT RUN
        *args.data, args.run = args.data
    require(bool(args.run), "the following arguments are required: run")
    args.device, _ = device_for(args.device)
    return args


def documents_for(args: argparse.Namespace, saved: Checkpoint | None) -> tuple[str, list[str]]:
    """(name, documents) of the text that is asked for, else of that which the run `saved` was trained on."""
    if args.data:
        paths = [os.path.expanduser(path) for path in args.data]
        return load_documents(paths, args.encoding, args.text_key, note)
    if not saved:
        raise UserError(f"{args.run} does not say what it was trained on; give a text with --data")
    settings = saved.state["settings"]
    encoding, text_key = settings.get("encoding", ""), settings.get("text_key", "text")
    return load_documents(resume.data_of(saved), encoding, text_key, note)


def difference(args: argparse.Namespace, saved: Checkpoint, corpus: str) -> str:
    """What to tell about a text that is not the one that the run was trained on."""
    before = saved.state["corpus"]
    if corpus == before:
        text = f"{corpus} is not what it was when {args.run} was trained on it (its sha256 differs)"
    else:
        text = f"{args.run} was trained on {before}, and this is {corpus}"
    if args.split == "val":
        text += "; so this val may hold text that the model was trained on"
    return text
