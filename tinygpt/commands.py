"""The commands of `python -m tinygpt`: what is done with a model once it is trained."""

import contextlib
import sys

from tinygpt import data, gpt2
from tinygpt.cli import Parser, device_for
from tinygpt.config import UserError, nearest
from tinygpt.generate import WHEN_FULL, TextStream, generate_rows, prompt_ids
from tinygpt.tokenizer import IdTokenizer


def main(argv=None):
    """`python -m tinygpt COMMAND ...`"""
    argv = sys.argv[1:] if argv is None else argv
    sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to stop
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: python -m tinygpt COMMAND ...; --help after a command lists its options\n")
        print("\n".join(f"  {name:8} {command.__doc__}" for name, command in COMMANDS.items()))
        return
    if argv[0] not in COMMANDS:
        raise UserError(f"unknown command {argv[0]!r}; {nearest(argv[0], COMMANDS)}")
    COMMANDS[argv[0]](argv[1:])


def sample(argv):
    """Write text with a trained model."""
    args = sampling_arguments(argv)
    prompt = data.decode(sys.stdin.buffer.read(), "standard input") if args.prompt == "-" else args.prompt
    model, tokenizer = load_model(args.run)
    ids = prompt_ids(tokenizer, prompt)
    if args.top_k > tokenizer.vocab_size:
        note(f"--top-k {args.top_k} is more than the vocabulary of {tokenizer.vocab_size}: all are used")
    if len(ids) > model.config.block_size:
        note(f"only the last {model.config.block_size} of {len(ids)} prompt tokens fit the context")
    options = {name: getattr(args, name) for name in ("temperature", "top_k", "top_p", "seed", "when_full")}
    rows = generate_rows(model.to(args.device), ids, args.tokens, args.samples, vocab_size=tokenizer.vocab_size, **options)
    with _output(args.out) as file:
        write_samples(file, prompt, [TextStream(tokenizer, args.stop) for _ in range(args.samples)], rows)


def export(argv):
    """Write a trained model as a GPT-2 folder, which Hugging Face's transformers load."""
    parser = Parser(prog="python -m tinygpt export", description=export.__doc__, allow_abbrev=False)
    parser.add_argument("run", help="the folder of a run, of one of its checkpoints, or of a GPT-2 model")
    parser.add_argument("folder", help="the new folder")
    parser.add_argument(
        "--head-bias",
        choices=("refuse", "fold", "drop"),
        default="refuse",
        help="GPT-2's output head has no bias: put a model's into its last norm, or leave it out (default: refuse)",
    )
    args = parser.parse_args(argv)
    model, tokenizer = load_model(args.run)
    gpt2.export(model, tokenizer, args.folder, args.head_bias)
    print(f"wrote {args.folder}: transformers.GPT2LMHeadModel.from_pretrained({args.folder!r})")


def load_model(path):
    """(model, tokenizer) of a run's or a GPT-2 folder."""
    model, tokenizer = gpt2.load_model(path)
    if isinstance(tokenizer, IdTokenizer):
        note(f"{path} has no tokenizer.json: prompt and text are token ids")
    return model, tokenizer


def sampling_arguments(argv):
    parser = Parser(prog="python -m tinygpt sample", description=sample.__doc__, allow_abbrev=False)
    parser.add_argument("run", help="the folder of a run, of one of its checkpoints, or of a GPT-2 model")
    add = parser.add_argument
    add("--prompt", default="", metavar="TEXT", help="text to continue; - reads it from standard input (default: a line break)")
    add("--tokens", type=int, default=500, help="how many tokens to write at most (default: 500)")
    add("--temperature", type=float, default=0.8, help="below 1 bolder, 0 greedy (default: 0.8)")
    add("--top-k", type=int, default=0, help="choose among the k most likely only (default: 0, all)")
    add("--top-p", type=float, default=1.0, help="choose among the most likely that together have this chance (default: 1, all)")
    add("--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be given several times")
    add("--samples", type=int, default=1, help="how many different texts to write (default: 1)")
    add("--seed", type=int, default=1337, help="names the choices made (default: 1337)")
    add("--out", metavar="FILE", help="write into this file instead")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add(
        "--when-full",
        choices=WHEN_FULL,
        default="exact",
        help="once the context is full: recompute it for every token, or halve it and go on with the cache (default: exact)",
    )
    args = parser.parse_args(argv)
    for name, ok, wanted in (
        ("temperature", args.temperature >= 0, "at least 0"),
        ("tokens", args.tokens > 0, "more than 0"),
        ("samples", args.samples > 0, "more than 0"),
        ("top-k", args.top_k >= 0, "at least 0"),
        ("top-p", 0 < args.top_p <= 1, "more than 0 and at most 1"),
        ("stop", "" not in args.stop, "some text"),
    ):
        if not ok:
            raise UserError(f"--{name} is {getattr(args, name.replace('-', '_'))}; it must be {wanted}")
    args.device, _ = device_for(args.device)
    return args


def write_samples(file, prompt, streams, rows):
    """Write texts that go on from the prompt: for each row of tokens a TextStream. The first one is shown as it comes."""
    texts, several = [[] for _ in streams], len(streams) > 1
    print("--- 1 ---\n" * several + prompt, end="", file=file, flush=True)
    for row in rows:
        for stream, text, token in zip(streams, texts, row, strict=True):
            text.append(stream.feed(token))
        print(texts[0][-1], end="", file=file, flush=True)
        if all(stream.stopped for stream in streams):
            break
    print(streams[0].finish(), file=file)
    for number, (stream, text) in enumerate(zip(streams[1:], texts[1:], strict=True), 2):
        print(f"--- {number} ---", prompt + "".join(text) + stream.finish(), sep="\n", file=file)


def _output(path):
    """Standard output, or a file to write to."""
    if not path:
        return contextlib.nullcontext(sys.stdout)
    try:
        return open(path, "w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def note(text):
    print(f"note: {text}", file=sys.stderr)


COMMANDS = {"sample": sample, "export": export}
