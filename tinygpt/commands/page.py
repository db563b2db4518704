"""`python -m tinygpt page`: a model as one HTML file that runs it in a browser."""

import os
from pathlib import Path

from tinygpt.cli.parser import Parser
from tinygpt.commands.shared import MODEL_HELP
from tinygpt.config import UserError, require
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
    check_out(out)
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


def check_out(out: Path) -> None:
    """UserError unless a page may be written there: only a page of ours is replaced."""
    require(
        out.suffix.lower() in (".html", ".htm"), f"--out {out}: the page is an HTML file; end it in .html"
    )
    require(out.parent.is_dir(), f"--out {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the name of a file")
    if out.exists() or out.is_symlink():
        require(_is_page(out), f"{out} exists and is not a page of this command; give another --out")


def _is_page(path):
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return is_page(file.read(1000))
