"""How a text is split into a part to train on and one to validate, and how batches are drawn."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from autograd import Stream
from autograd.backend import array_module, move
from tinygpt.config import UserError
from tinygpt.parallel.ranks import ALONE, Ranks
from tinygpt.text.tokenizer import Tokenizer


def sha256_of(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def checksum(documents: Sequence[str]) -> str:
    """The SHA-256 of a text: of its only document, or of the checksums of several, one after the other."""
    each = [sha256_of(document.encode()) for document in documents]
    return each[0] if len(each) == 1 else sha256_of("".join(each).encode())


def split(text: str) -> tuple[str, str]:
    """The first 90 % of a text's characters, to train on, and the rest, to validate."""
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


def split_documents(documents: Sequence[str]) -> tuple[list[str], list[str]]:
    """Whole documents to train on, and others with about a tenth of all characters, to validate.

    From the shortest to the longest, a document is for validation if that brings the share nearest to a tenth
    of what has come so far. So both parts have short and long ones. If they are few, or one is much longer
    than the others, this may choose too little; then the shortest ones are added.
    """
    lengths = [len(document) for document in documents]
    total, seen, size, chosen = sum(lengths), 0, 0, set()
    order = sorted(range(len(documents)), key=lambda i: (lengths[i], -i))
    for i in order:
        seen += lengths[i]
        if 10 * size + 5 * lengths[i] <= seen:
            chosen.add(i)
            size += lengths[i]
    for i in order:
        if 20 * size >= total or 2 * len(chosen) >= len(documents):
            break
        if i not in chosen:
            chosen.add(i)
            size += lengths[i]
    train = [document for i, document in enumerate(documents) if i not in chosen]
    return train, [documents[i] for i in sorted(chosen)]


@dataclass(frozen=True)
class Part:
    """A part of a text: some of its documents, or a piece of the only one."""

    documents: list[str]
    with_ends: bool  # each document is followed by an end token
    offset: int = 0  # how many characters of the text come before this piece

    def encode(self, tokenizer: Tokenizer) -> np.ndarray:
        """Its ids. UserError says where the text has something that has none."""
        if self.with_ends:
            return tokenizer.encode_documents(self.documents)
        return tokenizer.encode(self.documents[0], self.offset)

    @property
    def bytes(self) -> int:
        """How many bytes of UTF-8 it has. The end tokens have none."""
        return sum(len(document.encode()) for document in self.documents)


class Parts:
    """The parts of a text, `train`, `val` and `all`.

    Of a single document the first 90 % of the characters are to train on. Several documents stay whole.
    """

    def __init__(self, documents: str | Sequence[str]) -> None:
        documents = [documents] if isinstance(documents, str) else documents
        self.several = len(documents) > 1
        if self.several:
            train, val = split_documents(documents)
            offset = 0
        else:
            train, val = ([piece] for piece in split(documents[0]))
            offset = len(train[0])
        self.all = Part(documents, self.several)
        self.train, self.val = Part(train, self.several), Part(val, self.several, offset)

    def report(self) -> str:
        """How much of several documents went where; "" for a single one."""
        if not self.several:
            return ""
        counts = [
            f"{len(part.documents):,} with {part.bytes:,} bytes {purpose}"
            for part, purpose in ((self.train, "to train"), (self.val, "to validate"))
        ]
        return f"documents: {counts[0]}, {counts[1]}"


class Dataset:
    """The two parts of a text, to train on and to validate, as token ids.

    Each part is encoded by itself, so that all tokenizers are judged on the same text.
    """

    def __init__(
        self, documents: str | Sequence[str], tokenizer: Tokenizer, block_size: int, ranks: Ranks = ALONE
    ) -> None:
        self.ranks = ranks
        self.block_size = block_size
        parts = Parts(documents)
        self.sha256 = checksum(parts.all.documents)
        self.report = parts.report()
        dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
        self.train = parts.train.encode(tokenizer).astype(dtype)
        self.val = parts.val.encode(tokenizer).astype(dtype)
        self.bytes = {"train": parts.train.bytes, "val": parts.val.bytes}
        longest = min(len(self.train), len(self.val)) - 1
        if longest < block_size:
            raise UserError(
                f"the text has {len(self.train) + len(self.val)} tokens, {len(self.train)} to train and "
                f"{len(self.val)} to validate: too short for a context of {block_size}; the longest possible "
                f"is {max(longest, 0)} (--block-size)"
            )

    def bits_per_byte(self, split: str, loss: float) -> float:
        """A mean loss of a split in nats per token, as bits per byte of its UTF-8.

        This number compares tokenizers and languages. The end of a document costs bits too, but has no bytes.
        """
        return loss * len(getattr(self, split)) / (math.log(2) * self.bytes[split])

    def to(self, device: str) -> Self:
        """Keep the ids on a device, where batches are then drawn; returns the dataset."""
        self.train, self.val = move(self.train, device), move(self.val, device)
        return self

    def batch(self, split: str, rows: int, stream: Stream) -> tuple[np.ndarray, np.ndarray]:
        """This rank's part of a batch of so many rows: inputs and targets (rows / ranks, block_size), int64.

        A row is a window at a random place; its targets are one token ahead. Row i of the batch depends on
        the stream and on i alone, so all ranks together draw what a single one would.
        """
        ids = getattr(self, split)
        xp = array_module(ids)
        rows = self.ranks.share(rows)
        stream = stream.at(row=stream.row + self.ranks.rank * rows)
        starts = xp.asarray(stream.integers(rows, len(ids) - self.block_size))
        # (rows, 1) + (block_size + 1) -> (rows, block_size + 1)
        windows = ids[starts[:, None] + xp.arange(self.block_size + 1)].astype(np.int64)
        return windows[:, :-1], windows[:, 1:]
