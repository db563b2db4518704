"""The HTML of a page: the frame, the style and the scripts in this folder, filled with a model."""

import base64
import dataclasses
import html
from pathlib import Path
from typing import Any

from autograd.webpage import as_data, fill, policy
from tinygpt.config import UserError, require
from tinygpt.generate import generate, prompt_ids
from tinygpt.model import GPT
from tinygpt.page.weights import KINDS, bytes_needed, encode, rows_of
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer, Tokenizer
from tinygpt.version import __version__

HERE = Path(__file__).parent
MARK = b'<meta name="generator" content="tinygpt page">'
LARGEST = 200_000_000  # bytes of a page; a browser's text may have 500 million characters
FIRST_TEXT = "I LOVE YOU."


def is_page(start: bytes) -> bool:
    """Whether a file that begins with these bytes, 200 or more, is a page of ours."""
    return MARK in start[:200]


def page_of(model: GPT, tokenizer: Tokenizer, name: str, weights: str = "int16") -> str:
    """The text of a page. name: what stands above it; weights: one of KINDS.

    UserError for a model that is too large, and for a tokenizer that the page cannot have.
    """
    check_size(model, weights)
    arrays = rows_of(model)
    config = model.config
    facts = {
        "text": first_text(model, tokenizer),
        "config": dataclasses.asdict(config),
        "weights": weights,
        "tensors": [[key, *array.shape] for key, array in arrays.items()],
        "tokenizer": tokenizer_facts(tokenizer),
    }
    stored = b"".join(encode(array, weights) for array in arrays.values())
    scripts = {key: _file(f"{key}.js") for key in ("worker", "page")}
    scripts["model"] = _file("tokenizer.js") + _file("model.js").removeprefix('"use strict";\n')
    style = _file("page.css")
    shape = f"{config.n_layer} blocks, {config.n_head} heads, {config.n_embd} channels, "
    shape += f"{config.vocab_size:,} tokens"
    return fill(
        _file("page.html"),
        policy=policy(style, scripts["model"], scripts["page"]) + "; worker-src blob:",
        style=style,
        name=html.escape(name),
        parameters=f"{model.num_parameters():,}",
        shape=shape,
        block_size=f"{config.block_size:,}",
        version=__version__,
        weights=weights,
        precision=f" ({KINDS[weights][1]})",
        facts=as_data(facts),
        base64=base64.b64encode(stored).decode(),
        **scripts,
    )


def check_size(model: GPT, weights: str) -> None:
    """UserError if a page with such weights would be larger than LARGEST."""

    def size(kind):
        return bytes_needed(model, kind) * 4 // 3

    if size(weights) <= LARGEST:
        return
    fitting = [kind for kind in ("int16", "int8") if size(kind) <= LARGEST]
    hint = f"; --weights {fitting[0]} gives {size(fitting[0]) / 1e6:,.0f} MB" if fitting else ""
    raise UserError(
        f"the model has {model.num_parameters():,} parameters: as {weights} the page would have "
        f"{size(weights) / 1e6:,.0f} MB, and a browser can hardly take more than {LARGEST / 1e6:.0f} MB{hint}"
    )


def tokenizer_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """What tokenizer.js needs. UserError for a tokenizer that it cannot be."""
    if not isinstance(tokenizer, (CharTokenizer, BPETokenizer)):
        raise UserError("a page needs a tokenizer of characters or byte pairs, and this model has none")
    for token in tokenizer.added:
        for flag in ("single_word", "lstrip", "rstrip"):
            require(
                not getattr(token, flag),
                f"the token {token.content!r:.80} of this tokenizer is {flag}, which a page cannot do",
            )
    longest_first = sorted(tokenizer.added, key=lambda token: -len(token.content))
    return {
        "pieces": [piece.decode("latin-1") for piece in tokenizer.pieces],
        "merges": tokenizer.merges if isinstance(tokenizer, BPETokenizer) else None,
        "added": [
            [[token.content, token.id] for token in longest_first if token.normalized == normalized]
            for normalized in (False, True)
        ],
        "end_ids": tokenizer.end_ids,
        "start_id": int(prompt_ids(tokenizer, "")[0]),
    }


def first_text(model: GPT, tokenizer: Tokenizer) -> str:
    """A text that the tokenizer has tokens for; if not FIRST_TEXT, then some that the model writes."""
    try:
        tokenizer.encode(FIRST_TEXT)
        return FIRST_TEXT
    except UserError:
        start = prompt_ids(tokenizer, "")
        ids = generate(model, start, 20, tokenizer.end_ids, temperature=0.8, vocab_size=tokenizer.vocab_size)
        return tokenizer.decode(list(ids)).strip()


def _file(name):
    return (HERE / name).read_text(encoding="utf-8")
