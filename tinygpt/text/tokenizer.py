"""Tokenizers: text to integer ids and back. tokenizer_file.py has their files."""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import numpy as np

from tinygpt.config import UserError, require
from tinygpt.text import bpe
from tinygpt.text.bpe import Pair, code_points

WORDS_AT_ONCE = 2**18  # encoded together, so that a large text does not need a multiple of its size in memory


class Tokenizer:
    """What all kinds share: `pieces`, the bytes of each id (UTF-8, perhaps only a part of a character)."""

    pieces: list[bytes]

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, offset: int = 0) -> np.ndarray:
        """The ids of a text as an integer array. UserError says which part of it has no ids.

        offset: how many characters come before `text` where the user sees it, to say where that part is.
        """
        raise NotImplementedError

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of a sequence of ids; bytes that form no character become U+FFFD.

        IndexError for an id outside the vocabulary.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise IndexError(f"token ids must be from 0 to {self.vocab_size - 1}")
        return b"".join([self.pieces[i] for i in ids.tolist()]).decode("utf-8", "replace")


class CharTokenizer(Tokenizer):
    """One token per distinct character (Unicode code point), numbered in sorted order."""

    def __init__(self, chars: Iterable[str]) -> None:
        self.chars = "".join(sorted(set(chars)))
        _refuse_surrogates(self.chars)
        self.pieces = [char.encode() for char in self.chars]
        self._codes = code_points(self.chars)

    def encode(self, text: str, offset: int = 0) -> np.ndarray:
        """As in Tokenizer. UserError names a character that is not in the vocabulary."""
        codes = code_points(text)
        ids = np.searchsorted(self._codes, codes)
        unknown = np.flatnonzero(self._codes[np.minimum(ids, self.vocab_size - 1)] != codes)
        if unknown.size:
            at = int(unknown[0])
            raise UserError(
                f"character {text[at]!r} at position {offset + at} is not in this model's vocabulary of "
                f"{self.vocab_size} characters"
            )
        return ids


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding, as GPT-2's: any text has ids, and they decode to exactly that text."""

    def __init__(self, pieces: list[bytes], merges: Sequence[Pair], special: Iterable[int] = ()) -> None:
        """pieces: the bytes of every id; merges: pairs of ids in the order in which they were learnt.

        special: the ids of tokens, such as <|endoftext|>, that stand for their own text wherever it occurs.
        """
        self.pieces, self.merges, self.special = pieces, merges, tuple(special)
        ids = {piece: i for i, piece in enumerate(pieces) if i not in self.special}
        every_byte = all(bytes([byte]) in ids for byte in range(256))
        require(every_byte, "its vocabulary does not have all 256 bytes")
        self._byte_ids = np.array([ids[bytes([byte])] for byte in range(256)])
        self._merges = {(a, b): (rank, ids[pieces[a] + pieces[b]]) for rank, (a, b) in enumerate(merges)}
        known = set(self._byte_ids.tolist())
        for (a, b), (_, new) in self._merges.items():
            in_order = a in known and b in known and new not in known
            require(in_order, "its merges are not in the order of learning")
            known.add(new)
        # Longest first, so that none is taken for a shorter one that it begins with.
        texts = sorted((pieces[i].decode() for i in self.special), key=len, reverse=True)
        self._special = {text: pieces.index(text.encode()) for text in texts}
        self._special_text = re.compile("(" + "|".join(map(re.escape, texts)) + ")") if texts else None

    @classmethod
    def learn(cls, text: str, vocab_size: int) -> Self:
        """The tokenizer with so many tokens, or with fewer if no more pairs occur twice in the text."""
        require(vocab_size >= 256, f"vocab_size is {vocab_size}; it must be at least 256, one for each byte")
        _refuse_surrogates(text)
        characters = byte_characters()
        order = sorted(range(256), key=lambda byte: characters[byte])  # GPT-2's numbering
        pieces = [bytes([byte]) for byte in order]
        merges = bpe.learn(Counter(bpe.split_words(text)), vocab_size - 256, np.argsort(order))
        for a, b in merges:
            pieces.append(pieces[a] + pieces[b])
        return cls(pieces, merges)

    def encode(self, text: str, offset: int = 0) -> np.ndarray:
        """As in Tokenizer. UserError for half a surrogate pair, which no file of text contains."""
        _refuse_surrogates(text, offset)
        parts = self._special_text.split(text) if self._special_text else [text]  # text, special, text, ...
        arrays = [ids for part in parts for ids in self._encode_part(part)]
        return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)

    def _encode_part(self, text: str) -> Iterator[np.ndarray]:
        if text in self._special:
            yield np.array([self._special[text]], np.int32)
            return
        words = bpe.split_words(text)
        while batch := list(itertools.islice(words, WORDS_AT_ONCE)):
            yield bpe.apply(batch, self._merges, self._byte_ids)


class IdTokenizer(Tokenizer):
    """For a model that came without its tokenizer: its texts are the numbers of the tokens."""

    def __init__(self, vocab_size: int) -> None:
        self.pieces = [f" {i}".encode() for i in range(vocab_size)]

    def encode(self, text: str, offset: int = 0) -> np.ndarray:
        """The ids that a text such as "318 262" names. UserError for anything else."""
        wrong = [word for word in text.split() if not (word.isdecimal() and int(word) < self.vocab_size)]
        if wrong:
            raise UserError(
                f"{wrong[0]!r:.80} is not a token id from 0 to {self.vocab_size - 1}; the model has no "
                "tokenizer"
            )
        return np.array([int(word) for word in text.split()], np.int64)


@functools.cache
def byte_characters() -> list[str]:
    """GPT-2's visible character for each of the 256 bytes.

    It is the byte's own character if that can be seen. Spaces, control characters and the like get one from
    U+0100 on.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(others)) for byte in range(256)]


def _refuse_surrogates(text: str, offset: int = 0) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        raise UserError(
            f"character {text[at]!r} at position {offset + at} is half of a surrogate pair, not text"
        ) from None
