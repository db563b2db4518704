"""The text that the notebooks learn from."""

import os
from pathlib import Path

from tinygpt.text import corpus

# where train.py, run from the project's folder, keeps it too
FOLDER = Path(__file__).resolve().parents[2] / "data"


def load(say=print):
    """(name, text): Tiny Shakespeare, or without a network the source of Python's standard library."""
    os.environ.setdefault("TINYGPT_DATA", str(FOLDER))
    name, text = corpus.default_text(say)
    if name == "shakespeare":
        say(f"The text: {len(text):,} characters of Shakespeare.")
    else:
        say(
            f"The text: {len(text):,} characters of Python's standard library. "
            "Losses and samples will differ from ours."
        )
    return name, text
