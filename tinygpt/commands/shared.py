"""What the commands share."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tinygpt import gpt2
from tinygpt.config import UserError, require
from tinygpt.model import GPT
from tinygpt.streams import tell
from tinygpt.text.tokenizer import IdTokenizer, Tokenizer

MODEL_HELP = "the folder of a run, of one of its checkpoints, or of a GPT-2 model"


def load_model(path: str) -> tuple[GPT, Tokenizer]:
    """(model, tokenizer) of a run's folder or a GPT-2 folder."""
    model, tokenizer = gpt2.load_model(path)
    if isinstance(tokenizer, IdTokenizer):
        note(f"{path} has no tokenizer.json: prompt and text are token ids")
    return model, tokenizer


def note(text: str) -> None:
    """Tell the user something that is not an error, apart from the output."""
    tell(f"note: {text}")


def check_out(
    out: Path, suffixes: Sequence[str], is_ours: Callable[[bytes], bool], form: str, fault: str
) -> None:
    """UserError unless a file may be written there: with one of these suffixes, in place of one of ours only.

    is_ours: whether a file that begins with these bytes is one. form says in words which suffix it must have,
    fault what is wrong with a file that is not ours.
    """
    require(out.suffix.lower() in suffixes, f"--out {out}: {form}")
    require(out.parent.is_dir(), f"--out {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the name of a file")
    if os.path.lexists(out):
        require(_begins(out, is_ours), f"{out} exists and {fault}; give another --out")


def _begins(path, is_ours):
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return is_ours(file.read(1000))
