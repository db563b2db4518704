"""Sampling text from a model, token by token, with a cache of keys and values."""

import codecs
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from autograd import Stream, no_grad
from autograd.backend import keep_freed_memory, to_numpy
from tinygpt.config import SAMPLING_SITE, UserError
from tinygpt.model import GPT, KeyValueCache
from tinygpt.text.tokenizer import Tokenizer

WHEN_FULL = ("exact", "halve")


def generate(
    model: GPT,
    ids: Sequence[int] | np.ndarray,
    n_tokens: int,
    end_ids: Collection[int] = (),
    **options: Any,
) -> Iterator[int]:
    """Yield at most n_tokens token ids that continue the ids of a prompt.

    The text ends before the first of end_ids. The options are those of `generate_rows`.
    """
    for (token,) in generate_rows(model, ids, n_tokens, rows=1, **options):
        if token in end_ids:
            return
        yield int(token)


def generate_rows(
    model: GPT,
    ids: Sequence[int] | np.ndarray,
    n_tokens: int,
    rows: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    when_full: str = "exact",
    vocab_size: int | None = None,
) -> Iterator[np.ndarray]:
    """Yield n_tokens arrays (rows): the next token of each of several different texts.

    ids: the tokens of the prompt that all of them continue: at least one; the last block_size count.
    temperature, top_k and top_p shape the `probabilities`. Tokens from vocab_size on, which a model may have
    beyond its tokenizer, are left out. A row's choices depend on the seed and its number alone, not on how
    many rows there are.

    Until the context is full, a token costs one position's work, since the cache holds the rest. Then the
    window slides, and with learned positions every position's keys and values change. when_full="exact"
    computes the whole window again for each token, as the reference does. "halve" drops the older half of the
    context, computes the newer half once, and goes on with the cache: other text, many times faster.
    """
    if when_full not in WHEN_FULL:
        raise UserError(f"when_full {when_full!r}: choose from " + ", ".join(WHEN_FULL))
    keep_freed_memory()
    ids = ids[-model.config.block_size :]
    texts = GrowingTexts(model, [np.full(rows, token) for token in ids], when_full)
    for step in range(n_tokens):
        stream = Stream(seed, step, SAMPLING_SITE)
        choices = [
            choose_token(logits[:vocab_size], temperature, top_k, stream.at(row=row), top_p)
            for row, logits in enumerate(texts.next_logits())
        ]
        column = np.array(choices)
        texts.append(column)
        yield column


class GrowingTexts:
    """Texts of equal length, the rows, that grow by a token each, and the logits of what may come next.

    A column is an array (rows): the token of every row at one position. Those that the model cannot see any
    more are forgotten, so a text may grow without end.
    """

    def __init__(self, model: GPT, columns: Iterable[np.ndarray], when_full: str = "exact") -> None:
        self.model, self.when_full = model, when_full
        self.columns = list(columns)[-model.config.block_size :]
        self._cache = KeyValueCache(model, rows=len(self.columns[0]))  # of the first columns

    def append(self, column: np.ndarray) -> None:
        """Make every text one token longer."""
        self.columns.append(column)

    @no_grad()
    def next_logits(self) -> np.ndarray:
        """The logits (rows, V) of the token after each text."""
        if len(self.columns) > self.model.config.block_size:
            self._start_new_window()
        new = self.columns[self._cache.length :]
        ids = np.stack(new, 1)  # t columns (rows) -> (rows, t)
        hidden = self.model.transformer.extend(ids, self._cache)  # (rows, t) -> (rows, 1, C)
        logits = self.model.head(hidden[:, -1])  # (rows, C) -> (rows, V)
        return to_numpy(logits.data)

    def _start_new_window(self):
        """Forget the oldest columns, as the context is full, and the cache, as all positions change."""
        size = self.model.config.block_size
        if self.when_full == "halve":
            size = size // 2 + 1
        del self.columns[:-size]
        self._cache.length = 0


def probabilities(
    logits: np.ndarray, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> np.ndarray:
    """What a token is drawn from: float64 (V) from logits (V), with a temperature above 0.

    In this order: divide the logits by the temperature; if top_k > 0 keep the k most likely (and their
    equals); keep the smallest set of most likely tokens that together have top_p of what is left.
    """
    with np.errstate(over="ignore"):  # a tiny temperature gives -inf, a chance of 0
        logits = (logits.astype(np.float64) - logits.max()) / temperature
    if 0 < top_k < len(logits):
        logits[logits < np.partition(logits, -top_k)[-top_k]] = -np.inf
    p = np.exp(logits)
    p /= p.sum()
    if top_p < 1:
        order = np.argsort(-p, kind="stable")
        before = np.cumsum(p[order]) - p[order]  # what all likelier tokens have together
        p[order[before >= top_p]] = 0
        p /= p.sum()
    return p


def choose_token(
    logits: np.ndarray, temperature: float, top_k: int, stream: Stream, top_p: float = 1.0
) -> int:
    """One token id drawn from the `probabilities` of logits (V). Temperature 0 takes the most likely one."""
    if not np.isfinite(logits).all():
        raise UserError(
            "the model's predictions are not numbers: its weights are damaged or its training diverged"
        )
    if temperature == 0:
        return int(logits.argmax())
    cumulative = np.cumsum(probabilities(logits, temperature, top_k, top_p))
    return int(np.searchsorted(cumulative, stream.uniform(1)[0] * cumulative[-1], side="right"))


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> Sequence[int] | np.ndarray:
    """The ids of a prompt. An empty prompt becomes one token, with which a new text may begin.

    That is the token after which a text ends if the tokenizer has one, since the next text follows it. Else
    it is a line break, else the first token.
    """
    ids = tokenizer.encode(prompt)
    if len(ids):
        return ids
    if tokenizer.end_ids:
        return [tokenizer.end_ids[0]]
    return [tokenizer.pieces.index(b"\n") if b"\n" in tokenizer.pieces else 0]


class TextStream:
    """Tokens that become text as they come: whole characters only.

    It stops before one of end_ids and before a stop text; after that nothing is shown. What may turn out to
    be the start of a stop text is held back until it is clear.
    """

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str] = (), end_ids: Collection[int] = ()
    ) -> None:
        self.pieces, self.stops, self.end_ids, self.stopped = tokenizer.pieces, stops, end_ids, False
        self._decoder, self._held = codecs.getincrementaldecoder("utf-8")("replace"), ""

    def feed(self, token: int) -> str:
        """The text that a token makes certain, perhaps none."""
        if token in self.end_ids:
            text, self.stopped = self.finish(), True
            return text
        return self._release(self._decoder.decode(self.pieces[token]), final=False)

    def finish(self) -> str:
        """The text that was held back. An unfinished character becomes U+FFFD."""
        return self._release(self._decoder.decode(b"", final=True), final=True)

    def _release(self, text, final):
        """What can be shown of the text held back and this one, which follows it."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in map(text.find, self.stops) if at >= 0]
        self.stopped = bool(found)
        if found:
            end = min(found)
        elif final:
            end = len(text)
        else:
            end = len(text) - self._undecided(text)
        self._held = text[end:]
        return text[:end]

    def _undecided(self, text):
        """How many of the last characters may be the start of a stop text."""
        lengths = (n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
        return max(lengths, default=0)
