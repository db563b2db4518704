"""Where a text comes from, how it is split, and how batches are drawn."""

import hashlib
import math
import os
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from autograd import Stream
from autograd.backend import array_module, move
from tinygpt.config import UserError
from tinygpt.parallel.ranks import ALONE, Ranks
from tinygpt.text.tokenizer import Tokenizer

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
STANDARD_LIBRARY_BYTES = 2_000_000  # enough to learn what Python looks like, and quick to encode


def sha256_of(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def load_text(source: str) -> tuple[str, str]:
    """(name, text) of a corpus by name ("shakespeare", "python") or of a UTF-8 file by path.

    A byte order mark is dropped and CRLF line ends become LF. UserError says what is wrong with the source.
    """
    if source == "shakespeare":
        return "shakespeare", _decode(_shakespeare(), "shakespeare")
    if source == "python":
        return "python", _standard_library()
    path = Path(source)
    try:
        return path.stem, _decode(path.read_bytes(), source)
    except OSError as error:
        advice = "give a text file, or one of the names shakespeare, python"
        raise UserError(f"cannot read {source}: {error.strerror}; {advice}") from None


def default_text(say: Callable[[str], object] = print) -> tuple[str, str]:
    """(name, text) when no corpus was asked for: shakespeare, or python if that cannot be downloaded."""
    try:
        return load_text("shakespeare")
    except UserError as error:
        say(f"{error}. Going on with the source of Python's standard library (--data python).")
        return load_text("python")


def decode(raw: bytes, source: str) -> str:
    """The text of UTF-8 bytes, without a byte order mark and with LF for CRLF.

    UserError names the first wrong byte.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{source} is not UTF-8 text: byte {error.start} is {raw[error.start]:#04x}; convert it first"
        ) from None
    return text.replace("\r\n", "\n")


def _decode(raw: bytes, source: str) -> str:
    if not raw.removeprefix(b"\xef\xbb\xbf"):
        raise UserError(f"{source} is empty; give a file with text")
    return decode(raw, source)


def _shakespeare() -> bytes:
    """The bytes of Tiny Shakespeare, downloaded once into $TINYGPT_DATA or data/ and checked."""
    path = Path(os.environ.get("TINYGPT_DATA", "data")) / "tinyshakespeare.txt"
    if path.exists():
        raw = path.read_bytes()
        if sha256_of(raw) != SHAKESPEARE_SHA256:
            path.unlink()
            raise UserError(
                f"{path} was damaged (its checksum differs) and has been deleted; run again to download it"
            )
        return raw
    try:
        with urllib.request.urlopen(SHAKESPEARE_URL, timeout=10) as response:
            raw = response.read()
    except (urllib.error.URLError, OSError) as error:
        raise UserError(f"cannot download {SHAKESPEARE_URL} ({getattr(error, 'reason', error)})") from None
    if sha256_of(raw) != SHAKESPEARE_SHA256:
        raise UserError(
            f"the download from {SHAKESPEARE_URL} has another checksum than Tiny Shakespeare; it was not kept"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(raw)
    part.replace(path)
    return raw


def _standard_library() -> str:
    """The modules of this Python's standard library that are plain ASCII, up to STANDARD_LIBRARY_BYTES."""
    parts, size = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        raw = path.read_bytes()
        if raw.isascii() and size < STANDARD_LIBRARY_BYTES:
            parts.append(raw.decode().replace("\r\n", "\n"))
            size += len(raw)
    if not parts:
        raise UserError("this Python has no source of its standard library; give a text file with --data")
    return "".join(parts)


def split(text: str) -> tuple[str, str]:
    """The first 90 % of a text's characters, to train on, and the rest, to validate."""
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


class Dataset:
    """The two parts of a text, to train on and to validate, as token ids.

    Each part is encoded by itself, so that all tokenizers are judged on the same text.
    """

    def __init__(self, text: str, tokenizer: Tokenizer, block_size: int, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self.sha256 = sha256_of(text.encode())
        self.block_size = block_size
        train, val = split(text)
        dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
        self.train = tokenizer.encode(train).astype(dtype)
        self.val = tokenizer.encode(val, offset=len(train)).astype(dtype)
        self.bytes = {"train": len(train.encode()), "val": len(val.encode())}
        longest = min(len(self.train), len(self.val)) - 1
        if longest < block_size:
            raise UserError(
                f"the text has {len(self.train) + len(self.val)} tokens, {len(self.train)} to train and "
                f"{len(self.val)} to validate: too short for a context of {block_size}; the longest possible "
                f"is {max(longest, 0)} (--block-size)"
            )

    def bits_per_byte(self, split: str, loss: float) -> float:
        """A mean loss of a split in nats per token, as bits per byte of its UTF-8.

        This number compares tokenizers and languages.
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
