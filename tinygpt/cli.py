"""Flags, help and errors of `train.py` and `python -m tinygpt`."""

import argparse
import dataclasses
import difflib
import sys
import warnings

from autograd.backend import choose_device
from tinygpt import checkpoint, resume
from tinygpt.config import PRESETS, TrainConfig, UserError, checked, nearest, read_toml, resolve


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that name the nearest flag."""

    def error(self, message):
        if message.startswith("unrecognized arguments: -"):
            word = message.split(": ")[1].split()[0].split("=")[0]
            message = f"unknown flag {word}; {nearest(word, _flags_near(self, word))}"
        raise UserError(message)


def _flags_near(parser, word):
    """The flags that resemble a word, or a pointer to --help: there are too many to list them all."""
    flags = list(parser._option_string_actions)
    return difflib.get_close_matches(word, flags, 3, cutoff=0.5) or ["--help lists them"]


def train_config(argv):
    """(TrainConfig, start, device, why that device) from train.py's arguments: preset < TOML file < flags.

    `start` says how to begin: overwrite, force (booleans) and saved, the Checkpoint to resume from or None. Then its
    settings take the preset's place.
    """
    parser = Parser(prog="train.py", description="Train a GPT on any UTF-8 text.", allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="a TOML file of settings; flags go before it, it before the preset")
    parser.add_argument("--overwrite", action="store_true", help="replace the run folder given with --out")
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, or from one of its checkpoints")
    parser.add_argument("--force", action="store_true", help="resume although data or settings differ, or to an older checkpoint")
    for field in dataclasses.fields(TrainConfig):
        flag = "--" + field.name.replace("_", "-")
        text = f"{field.metadata['help']} (default: {field.default!r})".replace("%", "%%")
        kind = {"action": argparse.BooleanOptionalAction} if field.type is bool else {"type": field.type}
        parser.add_argument(flag, default=argparse.SUPPRESS, help=text, **kind)
    parser.epilog = "Presets: " + "; ".join(f"{name}: {values}" for name, values in PRESETS.items())
    flags = vars(parser.parse_args(argv))
    toml, path = flags.pop("config"), flags.pop("resume")
    start = argparse.Namespace(overwrite=flags.pop("overwrite"), force=flags.pop("force"), saved=None)
    settings = (read_toml(toml) if toml else {}) | checked(TrainConfig, flags, "the command line")
    if path:
        if start.overwrite or "out" in settings:
            raise UserError("--resume goes on in the run's own folder: leave out --overwrite and --out")
        start.saved = checkpoint.load(path)
        resume.check_place(start.saved, start.force)
        config = resume.settings(start.saved, settings, start.force)
        settings["device"] = config.device
    try:
        device, why = choose_device(settings.get("device", "auto"))
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from None
    if not path:
        config = resolve(settings, default_preset="laptop" if device == "cpu" else "shakespeare")
    return config, start, device, why


def sample(argv):
    """`python -m tinygpt sample RUN`"""
    from tinygpt.generate import WHEN_FULL, generate

    parser = Parser(prog="python -m tinygpt sample", description="Sample text from a trained run.", allow_abbrev=False)
    parser.add_argument("run", help="the folder of a run, or of one of its checkpoints")
    parser.add_argument("--prompt", default="", help="text to continue (default: a line break)")
    parser.add_argument("--tokens", type=int, default=500, help="how many tokens to write (default: 500)")
    parser.add_argument("--temperature", type=float, default=0.8, help="below 1 bolder, 0 greedy (default: 0.8)")
    parser.add_argument("--top-k", type=int, default=0, help="choose among the k most likely only (default: 0, all)")
    parser.add_argument("--seed", type=int, default=1337, help="names the choices made (default: 1337)")
    parser.add_argument(
        "--when-full",
        choices=WHEN_FULL,
        default="exact",
        help="once the context is full: recompute it for every token, or halve it and go on with the cache (default: exact)",
    )
    args = parser.parse_args(argv)
    for name, ok, wanted in (
        ("temperature", args.temperature >= 0, "at least 0"),
        ("tokens", args.tokens > 0, "more than 0"),
        ("top-k", args.top_k >= 0, "at least 0"),
    ):
        if not ok:
            raise UserError(f"--{name} is {getattr(args, name.replace('-', '_'))}; it must be {wanted}")
    model, tokenizer, _ = checkpoint.load_for_sampling(args.run)
    if args.top_k > tokenizer.vocab_size:
        print(
            f"note: --top-k {args.top_k} is more than the vocabulary of {tokenizer.vocab_size}: all are used",
            file=sys.stderr,
        )
    ids = prompt_ids(tokenizer, args.prompt)
    if len(ids) > model.config.block_size:
        print(
            f"note: only the last {model.config.block_size} of {len(ids)} prompt tokens fit the context",
            file=sys.stderr,
        )
    print(args.prompt, end="", flush=True)
    for token in generate(model, ids, args.tokens, args.temperature, args.top_k, args.seed, args.when_full):
        print(tokenizer.decode([token]), end="", flush=True)
    print()


def prompt_ids(tokenizer, prompt):
    """The ids of a prompt. An empty one starts with a line break, or the first token if the vocabulary has none."""
    if prompt:
        return tokenizer.encode(prompt)
    try:
        return tokenizer.encode("\n")
    except UserError:
        return [0]


def main(argv=None):
    """`python -m tinygpt COMMAND ...`"""
    argv = sys.argv[1:] if argv is None else argv
    commands = {"sample": sample}
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: python -m tinygpt sample RUN [options]; --help after a command lists its options")
        return
    if argv[0] not in commands:
        raise UserError(f"unknown command {argv[0]!r}; {nearest(argv[0], commands)}")
    commands[argv[0]](argv[1:])


def exit_with_code(function):
    """Run a command; the user's mistakes become one line on stderr and exit code 2."""
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="autograd")  # the loop reports overflow and nan
    try:
        function()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except MemoryError as error:
        print(f"error: out of memory{f': {error}' if str(error) else ''}; a smaller model or batch needs less", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output, `head` for one, has gone
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
