"""Tokenizers: text to integer ids and back. Their file, tokenizer.json, is Hugging Face's format."""

import functools
import itertools
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np

from tinygpt.config import UserError
from tinygpt.text import bpe
from tinygpt.text.bpe import code_points
from tinygpt.text.data import split

WORDS_AT_ONCE = 2**18  # encoded together, so that a large text does not need a multiple of its size in memory


class Tokenizer:
    """What both kinds share: `pieces`, the bytes (UTF-8, perhaps of part of a character) that each id stands
    for.
    """

    @property
    def vocab_size(self):
        return len(self.pieces)

    def decode(self, ids):
        """The text of a sequence of ids; bytes that form no character become U+FFFD.

        IndexError outside the vocabulary.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise IndexError(f"token ids must be from 0 to {self.vocab_size - 1}")
        return b"".join([self.pieces[i] for i in ids.tolist()]).decode("utf-8", "replace")


class CharTokenizer(Tokenizer):
    """One token per distinct character (Unicode code point), numbered in sorted order."""

    def __init__(self, chars):
        self.chars = "".join(sorted(set(chars)))
        refuse_surrogates(self.chars)
        self.pieces = [char.encode() for char in self.chars]
        self._codes = code_points(self.chars)

    def encode(self, text, offset=0):
        """The ids of a text as an integer array. UserError names a character that is not in the vocabulary.

        offset: how many characters come before `text` where the user sees it, to say where that character is.
        """
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

    def to_json(self):
        model = {
            "type": "WordLevel",
            "vocab": {char: i for i, char in enumerate(self.chars)},
            "unk_token": "",
        }
        every_character = {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        }
        return _to_json(model, every_character, {"type": "Fuse"})

    @classmethod
    def from_model(cls, value):
        """The tokenizer of a tokenizer.json that is read already."""
        tokenizer = cls(value["model"]["vocab"])
        ours = json.loads(tokenizer.to_json())
        same = all(
            value[key] == ours[key] for key in ("model", "pre_tokenizer", "normalizer", "added_tokens")
        )
        _require(tokenizer.pieces and same, "its words are not single characters in sorted order")
        return tokenizer


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding, as GPT-2's: any text has ids, and decoding gives back exactly that text."""

    def __init__(self, pieces, merges, special=()):
        """pieces: the bytes of every id; merges: pairs of ids in the order in which they were learnt.

        special: ids of tokens that stand for themselves wherever their text occurs, such as <|endoftext|>.
        """
        self.pieces, self.merges, self.special = pieces, merges, tuple(special)
        ids = {piece: i for i, piece in enumerate(pieces) if i not in self.special}
        _require(
            all(bytes([byte]) in ids for byte in range(256)), "its vocabulary does not have all 256 bytes"
        )
        self._byte_ids = np.array([ids[bytes([byte])] for byte in range(256)])
        self._merges = {(a, b): (rank, ids[pieces[a] + pieces[b]]) for rank, (a, b) in enumerate(merges)}
        known = set(self._byte_ids.tolist())
        for (a, b), (_, new) in self._merges.items():
            _require(
                a in known and b in known and new not in known, "its merges are not in the order of learning"
            )
            known.add(new)
        # the longest one first
        texts = sorted((pieces[i].decode() for i in self.special), key=len, reverse=True)
        self._special = {text: pieces.index(text.encode()) for text in texts}
        self._special_text = re.compile("(" + "|".join(map(re.escape, texts)) + ")") if texts else None

    @classmethod
    def learn(cls, text, vocab_size):
        """The tokenizer with so many tokens, or fewer if the text has no more pairs that occur twice."""
        _require(vocab_size >= 256, f"vocab_size is {vocab_size}; it must be at least 256, one for each byte")
        refuse_surrogates(text)
        characters = byte_characters()
        order = sorted(range(256), key=lambda byte: characters[byte])  # GPT-2's numbering
        pieces = [bytes([byte]) for byte in order]
        merges = bpe.learn(Counter(bpe.split_words(text)), vocab_size - 256, np.argsort(order))
        for a, b in merges:
            pieces.append(pieces[a] + pieces[b])
        return cls(pieces, merges)

    def encode(self, text, offset=0):
        """The ids of a text as an int32 array.

        UserError for half a surrogate pair, which no file of text contains.
        """
        refuse_surrogates(text, offset)
        parts = self._special_text.split(text) if self._special_text else [text]  # text, special, text, ...
        ids = [ids for part in parts for ids in self._encode_part(part)]
        return np.concatenate(ids) if ids else np.zeros(0, np.int32)

    def _encode_part(self, text):
        if text in self._special:
            yield np.array([self._special[text]], np.int32)
            return
        words = bpe.split_words(text)
        while batch := list(itertools.islice(words, WORDS_AT_ONCE)):
            yield bpe.apply(batch, self._merges, self._byte_ids)

    def names(self):
        """Every token as Hugging Face writes it, with a visible character for each byte."""
        characters = byte_characters()
        shown = ["".join(characters[byte] for byte in piece) for piece in self.pieces]
        return [piece.decode() if i in self.special else shown[i] for i, piece in enumerate(self.pieces)]

    def to_json(self):
        names = self.names()
        model = dict(
            type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None
        )
        model |= dict(fuse_unk=False, byte_fallback=False)
        model |= dict(vocab={name: i for i, name in enumerate(names)}, merges=self.merge_lines())
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added = [{"id": i, "content": names[i], **flags, "special": True} for i in self.special]
        return _to_json(model, BYTE_LEVEL, BYTE_LEVEL, added)

    def merge_lines(self):
        names = self.names()
        return [f"{names[a]} {names[b]}" for a, b in self.merges]

    @classmethod
    def from_model(cls, value):
        """The tokenizer of a tokenizer.json that is read already, if it is one that works as GPT-2's does."""
        model, added = value["model"], value.get("added_tokens") or []
        for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
            _require(not model.get(key), f"its {key} is {model.get(key)!r}")
        _require(value.get("normalizer") is None, "it has a normalizer")
        splitter, last = value.get("pre_tokenizer") or {}, value.get("post_processor") or BYTE_LEVEL
        adds_nothing = last["type"] == "ByteLevel" or (
            last["type"] == "TemplateProcessing" and not last["special_tokens"]
        )
        wanted = (
            splitter.get("type") == "ByteLevel"
            and not splitter["add_prefix_space"]
            and splitter.get("use_regex", True)
        )
        _require(wanted, "its text is not split as GPT-2's is")
        _require(adds_nothing, "it adds tokens to the text")
        for token in added:
            plain = token["content"] and not (
                token.get("single_word") or token.get("lstrip") or token.get("rstrip")
            )
            _require(plain, f"its token {token['content']!r} reaches beyond its text")
        merges = [
            tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]
        ]
        return cls.from_names(model["vocab"], merges, {token["content"]: token["id"] for token in added})

    @classmethod
    def from_names(cls, vocab, merges, special):
        """vocab and special: dict of token, as Hugging Face writes it, to id; merges: pairs of tokens."""
        every = vocab | special
        _require(sorted(every.values()) == list(range(len(every))), "its ids are not 0, 1, 2, ...")
        to_byte = {character: byte for byte, character in enumerate(byte_characters())}
        pieces = [b""] * len(every)
        for name, i in every.items():
            pieces[i] = (
                name.encode() if name in special else bytes([to_byte[character] for character in name])
            )
        return cls(pieces, [(vocab[a], vocab[b]) for a, b in merges], special.values())


class IdTokenizer(Tokenizer):
    """For a model that came without its tokenizer: its texts are the numbers of the tokens."""

    def __init__(self, vocab_size):
        self.pieces = [f" {i}".encode() for i in range(vocab_size)]

    def encode(self, text, offset=0):
        """The ids that a text such as "318 262" names. UserError for anything else."""
        wrong = [word for word in text.split() if not (word.isdecimal() and int(word) < self.vocab_size)]
        if wrong:
            raise UserError(
                f"{wrong[0]!r:.80} is not a token id from 0 to {self.vocab_size - 1}; the model has no "
                "tokenizer"
            )
        return np.array([int(word) for word in text.split()], np.int64)


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@functools.cache
def byte_characters():
    """GPT-2's visible characters for the 256 bytes: themselves, or for control characters and the like those
    from U+0100.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(others)) for byte in range(256)]


def refuse_surrogates(text, offset=0):
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        raise UserError(
            f"character {text[at]!r} at position {offset + at} is half of a surrogate pair, not text"
        ) from None


def choose_tokenizer(name, vocab_size, text):
    """The tokenizer for a corpus: "char", "bpe" (learnt from the part to train on), or one from a file or
    folder.
    """
    if name == "char":
        return CharTokenizer(text)
    if name == "bpe":
        return BPETokenizer.learn(split(text)[0], vocab_size)
    return load_tokenizer(name)


def has_tokenizer(folder):
    """Whether `load_tokenizer` will find one there."""
    folder = Path(folder)
    return (folder / "tokenizer.json").exists() or (
        (folder / "vocab.json").exists() and (folder / "merges.txt").exists()
    )


def load_tokenizer(path):
    """The tokenizer in a tokenizer.json, or in a folder with one or with GPT-2's vocab.json and merges.txt."""
    path = Path(path)
    old_files = path / "vocab.json", path / "merges.txt"
    try:
        if has_tokenizer(path) and not (path / "tokenizer.json").exists():
            path = old_files[0]
            return _understood(_from_old_files, *old_files)
        path = path / "tokenizer.json" if path.is_dir() else path
        return _understood(_from_json, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; a tokenizer is char, bpe, or a tokenizer.json"
        ) from None
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be used: {error}") from None


def from_json(text):
    """The tokenizer that a tokenizer.json describes.

    UserError if it is not one, or one that works in another way.
    """
    return _understood(_from_json, text)


def _understood(read, *content):
    """read(*content); whatever goes wrong there is the content's fault."""
    try:
        return read(*content)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise UserError("it describes neither characters nor byte-level BPE, or is damaged") from None


def _from_json(text):
    value = json.loads(text)
    kinds = {"WordLevel": CharTokenizer, "BPE": BPETokenizer}
    return kinds[value["model"].get("type", "BPE")].from_model(value)  # GPT-2's own file names no type


def _from_old_files(vocab, merges):
    """GPT-2's first format: a JSON object of tokens, and merges in lines after one with a version."""
    vocab = json.loads(vocab.read_text(encoding="utf-8"))
    lines = [
        line
        for line in merges.read_text(encoding="utf-8").split("\n")
        if line and not line.startswith("#version")
    ]
    special = {name: vocab[name] for name in ("<|endoftext|>",) if name in vocab}
    return BPETokenizer.from_names(vocab, [tuple(line.split(" ")) for line in lines], special)


def _to_json(model, pre_tokenizer, decoder, added=()):
    parts = dict(version="1.0", truncation=None, padding=None, added_tokens=list(added), normalizer=None)
    parts |= dict(pre_tokenizer=pre_tokenizer, post_processor=None, decoder=decoder, model=model)
    return json.dumps(parts, ensure_ascii=False, indent=1)


def _require(ok, reason):
    if not ok:
        raise UserError(reason)
