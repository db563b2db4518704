"""`python -m tinygpt export`: a model for other programs."""

from tinygpt import gpt2
from tinygpt.cli.parser import Parser
from tinygpt.commands.shared import MODEL_HELP, load_model


def main(argv: list[str]) -> None:
    """Write a trained model as a GPT-2 folder, which Hugging Face's transformers load."""
    parser = Parser(prog="python -m tinygpt export", description=main.__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("run", help=MODEL_HELP)
    add("folder", help="the new folder")
    text = "GPT-2's output head has no bias: put a model's into its last norm, or leave it out "
    choices = ("refuse", "fold", "drop")
    add("--head-bias", choices=choices, default="refuse", help=text + "(default: refuse)")
    args = parser.parse_args(argv)
    model, tokenizer = load_model(args.run)
    source = gpt2.source_of(args.run, tokenizer)
    gpt2.export(model, tokenizer, args.folder, args.head_bias, source)
    print(f"wrote {args.folder}: transformers.GPT2LMHeadModel.from_pretrained({args.folder!r})")
