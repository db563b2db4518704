"""`python -m tinygpt page`: a model as one HTML file that runs it in a browser."""

import os
from pathlib import Path

from tinygpt.cli.parser import Parser
from tinygpt.commands.shared import MODEL_HELP, check_out
from tinygpt.config import UserError
from tinygpt.gpt2 import load_model
from tinygpt.page import KINDS, is_page, page_of
from tinygpt.run import files


def main(argv: list[str]) -> None:
    """Write a trained model as one HTML page that runs it in a browser."""
    parser = Parser(prog="python -m tinygpt page", description=main.__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("run", help=MODEL_HELP)
    kinds = "; ".join(f"{kind}: {about}" for kind, (_, about) in KINDS.items())
    add("--weights", choices=tuple(KINDS), default="int16", help=f"{kinds} (default: int16)")
    add("--out", metavar="FILE", help="the page (default: NAME.html in this folder)")
    args = parser.parse_args(argv)
    name = name_of(args.run)
    out = Path(f"{name}.html" if args.out is None else args.out)
    form, fault = "the page is an HTML file; end it in .html", "is not a page of this command"
    check_out(out, (".html", ".htm"), is_page, form, fault)
    model, tokenizer = load_model(args.run)
    text = page_of(model, tokenizer, name, args.weights)
    try:
        files.write(out, text)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; give another --out") from None
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    print(
        f"wrote {out}: {size}, {model.num_parameters():,} parameters as {args.weights}; open it in a browser"
    )


def name_of(path: str) -> str:
    """The name of a run, also if a checkpoint of it is given, or of another folder."""
    folder = Path(os.path.realpath(path))
    if folder.parent.name == "ckpt":
        folder = folder.parent.parent
    return files.printable(folder.name) or "model"
