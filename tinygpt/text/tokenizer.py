"""Tokenizers: text to integer ids and back. tokenizer_file.py has their files."""

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import numpy as np

from tinygpt.config import UserError, require
from tinygpt.text import bpe
from tinygpt.text.added_tokens import AddedToken, split
from tinygpt.text.bpe import Pair, code_points

END_OF_TEXT = "<|endoftext|>"  # GPT-2's name for the token between two documents
WORDS_AT_ONCE = 2**18  # encoded together, so that a large text does not need a multiple of its size in memory


class Tokenizer:
    """What all kinds share: `pieces`, the bytes of each id (UTF-8, perhaps only a part of a character).

    added: tokens such as <|endoftext|>, each of which stands for its own text. end_ids: the ids after which a
    text ends.
    """

    pieces: list[bytes]
    added: tuple[AddedToken, ...] = ()
    end_ids: tuple[int, ...] = ()

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, offset: int = 0) -> np.ndarray:
        """The ids of a text as an integer array. UserError says which part of it has no ids.

        The text of an added token becomes that token. offset: how many characters come before `text` where
        the user sees it, to say where that part is.
        """
        raise NotImplementedError

    def encode_documents(self, documents: Sequence[str]) -> np.ndarray:
        """The ids of several documents, one after the other, each with an end token after it.

        A tokenizer that has no end token puts nothing between them. In characters and byte-pair encoding the
        name of a special token is ordinary text here, so no document can end early. UserError says which
        document has no ids.
        """
        arrays = [np.zeros(0, np.int64)]
        for document in documents:
            with naming(document):
                arrays += [self.encode(document), np.array(self.end_ids[:1], np.int64)]
        return np.concatenate(arrays)

    def decode(self, ids: Sequence[int] | np.ndarray, show_end: bool = False) -> str:
        """The text of a sequence of ids; bytes that form no character become U+FFFD.

        show_end: write the end tokens by their names; else they are left out. IndexError for an id outside
        the vocabulary.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise IndexError(f"token ids must be from 0 to {self.vocab_size - 1}")
        if not show_end:
            # An ordinary token, such as a line break, can be an end too; it stays.
            ids = ids[~np.isin(ids, [token.id for token in self.added if token.id in self.end_ids])]
        return b"".join([self.pieces[i] for i in ids.tolist()]).decode("utf-8", "replace")

    def _take_added(self, added: Iterable[AddedToken]) -> None:
        """Set `added`, and `end_ids` to <|endoftext|> if it is one of them."""
        self.added = tuple(added)
        self.end_ids = ends_by_name(self.added)

    def _added_in_documents(self) -> list[AddedToken]:
        """The added tokens that are looked for in a document, which no text within it can end."""
        return [token for token in self.added if token.id not in self.end_ids]


class CharTokenizer(Tokenizer):
    """One token per distinct character (Unicode code point), numbered in sorted order."""

    def __init__(self, chars: Iterable[str], end: bool = False, added: Sequence[AddedToken] = ()) -> None:
        """end: whether the last id is an end token, for texts of several documents.

        added: more tokens, numbered after the characters.
        """
        self.chars = "".join(sorted(set(chars)))
        _refuse_surrogates(self.chars)
        self.pieces = [char.encode() for char in self.chars]
        self._codes = code_points(self.chars)
        if end:
            added = [AddedToken(len(self.chars), END_OF_TEXT)]
        self.pieces += [token.content.encode() for token in added if token.id >= len(self.chars)]
        self._take_added(added)

    def encode(self, text: str, offset: int = 0) -> np.ndarray:
        """As in Tokenizer. UserError names a character that is not in the vocabulary."""
        return self._encode_all(text, self.added, offset)

    def encode_documents(self, documents: Sequence[str]) -> np.ndarray:
        added, end = self._added_in_documents(), self.end_ids[:1]
        if not added:
            with contextlib.suppress(UserError):  # else once more, to say in which document
                ids = self._encode_part("".join(documents))
                return np.insert(ids, np.cumsum([len(d) for d in documents]), *end) if end else ids
        arrays = [np.zeros(0, np.int64)]
        for document in documents:
            with naming(document):
                arrays += [self._encode_all(document, added), np.array(end, np.int64)]
        return np.concatenate(arrays)

    def _encode_all(self, text: str, added: Sequence[AddedToken], offset: int = 0) -> np.ndarray:
        arrays = [np.zeros(0, np.int64)]
        for part, token in split(text, added):
            arrays.append(self._encode_part(part, offset) if token is None else np.array([token]))
            offset += len(part)
        return np.concatenate(arrays)

    def _encode_part(self, text: str, offset: int = 0) -> np.ndarray:
        codes = code_points(text)
        ids = np.searchsorted(self._codes, codes)
        unknown = np.flatnonzero(self._codes[np.minimum(ids, len(self.chars) - 1)] != codes)
        if unknown.size:
            at = int(unknown[0])
            raise UserError(
                f"character {text[at]!r} at position {offset + at} is not in this model's vocabulary of "
                f"{len(self.chars)} characters"
            )
        return ids


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding, as GPT-2's: any text has ids, and they decode to exactly that text."""

    def __init__(
        self, pieces: list[bytes], merges: Sequence[Pair], added: Sequence[AddedToken | int] = ()
    ) -> None:
        """pieces: the bytes of every id; merges: pairs of ids in the order in which they were learnt.

        added: tokens, such as <|endoftext|>, that stand for their own text. An id is enough for one whose
        piece is its text.
        """
        self.pieces, self.merges = pieces, merges
        self._take_added(AddedToken(t, pieces[t].decode()) if isinstance(t, int) else t for t in added)
        # Ordinary tokens come first: an added token may have the bytes of one of them.
        added_ids = {token.id for token in self.added}
        ids = {}
        for i in sorted(range(len(pieces)), key=added_ids.__contains__):
            ids.setdefault(pieces[i], i)
        every_byte = all(bytes([byte]) in ids for byte in range(256))
        require(every_byte, "its vocabulary does not have all 256 bytes")
        self._byte_ids = np.array([ids[bytes([byte])] for byte in range(256)])
        self._merges = {(a, b): (rank, ids[pieces[a] + pieces[b]]) for rank, (a, b) in enumerate(merges)}
        known = set(self._byte_ids.tolist())
        for (a, b), (_, new) in self._merges.items():
            in_order = a in known and b in known and new not in known
            require(in_order, "its merges are not in the order of learning")
            known.add(new)

    @classmethod
    def learn(cls, documents: str | Sequence[str], vocab_size: int, end: bool = False) -> Self:
        """The tokenizer with so many tokens, or with fewer if no more pairs occur twice in the documents.

        end: whether the last id is an end token, for texts of several documents. No token reaches over the
        end of a document.
        """
        documents = [documents] if isinstance(documents, str) else documents
        first = 257 if end else 256
        wanted = "one for each byte" + (" and one for the end of a document" if end else "")
        require(vocab_size >= first, f"vocab_size is {vocab_size}; it must be at least {first}, {wanted}")
        counts = Counter()
        for document in documents:
            _refuse_surrogates(document)
            counts.update(bpe.split_words(document))
        characters = byte_characters()
        order = sorted(range(256), key=lambda byte: characters[byte])  # GPT-2's numbering
        pieces = [bytes([byte]) for byte in order]
        merges = bpe.learn(counts, vocab_size - first, np.argsort(order))
        for a, b in merges:
            pieces.append(pieces[a] + pieces[b])
        if end:
            pieces.append(END_OF_TEXT.encode())
        return cls(pieces, merges, [len(pieces) - 1] if end else [])

    def encode(self, text: str, offset: int = 0) -> np.ndarray:
        """As in Tokenizer. UserError for half a surrogate pair, which no file of text contains."""
        _refuse_surrogates(text, offset)
        return self._encode_all(text, self.added)

    def encode_documents(self, documents: Sequence[str]) -> np.ndarray:
        if added := self._added_in_documents():
            end, arrays = np.array(self.end_ids[:1], np.int32), []
            for document in documents:
                with naming(document):
                    _refuse_surrogates(document)
                arrays += [self._encode_all(document, added), end]
        else:
            arrays = self._encode_words(self._words_and_ends(documents))
        return np.concatenate([np.zeros(0, np.int32), *arrays])

    def _encode_all(self, text: str, added: Sequence[AddedToken]) -> np.ndarray:
        arrays = [np.zeros(0, np.int32)]
        for part, token in split(text, added):
            if token is None:
                arrays.extend(self._encode_words(bpe.split_words(part)))
            else:
                arrays.append(np.array([token], np.int32))
        return np.concatenate(arrays)

    def _words_and_ends(self, documents: Sequence[str]) -> Iterator[str]:
        for document in documents:
            with naming(document):
                _refuse_surrogates(document)
            yield from bpe.split_words(document)
            if self.end_ids:
                yield bpe.END_OF_DOCUMENT

    def _encode_words(self, words: Iterator[str]) -> Iterator[np.ndarray]:
        end = self.end_ids[0] if self.end_ids else None
        while batch := list(itertools.islice(words, WORDS_AT_ONCE)):
            yield bpe.apply(batch, self._merges, self._byte_ids, end)


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


def ends_by_name(added: Iterable[AddedToken]) -> tuple[int, ...]:
    """The ids of the added tokens that are called <|endoftext|>."""
    return tuple(token.id for token in added if token.content == END_OF_TEXT)


@functools.cache
def byte_characters() -> list[str]:
    """GPT-2's visible character for each of the 256 bytes.

    It is the byte's own character if that can be seen. Spaces, control characters and the like get one from
    U+0100 on.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(others)) for byte in range(256)]


@contextlib.contextmanager
def naming(document: str) -> Iterator[None]:
    """Add to a UserError in which document of several it is, by how that begins."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; it is in the document that begins with {document[:30]!r}") from None


def _refuse_surrogates(text: str, offset: int = 0) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        raise UserError(
            f"character {text[at]!r} at position {offset + at} is half of a surrogate pair, not text"
        ) from None
