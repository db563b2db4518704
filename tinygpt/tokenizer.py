"""Tokenizers: text to integer ids and back."""

import json

import numpy as np

from tinygpt.config import UserError


class CharTokenizer:
    """One token per distinct character (Unicode code point), numbered in sorted order."""

    def __init__(self, chars):
        self.chars = "".join(sorted(set(chars)))
        self._codes = _code_points(self.chars)

    @property
    def vocab_size(self):
        return len(self.chars)

    def encode(self, text):
        """The ids of a text as an integer array. UserError names a character that is not in the vocabulary."""
        codes = _code_points(text)
        ids = np.searchsorted(self._codes, codes)
        unknown = np.flatnonzero(self._codes[np.minimum(ids, self.vocab_size - 1)] != codes)
        if unknown.size:
            at = int(unknown[0])
            raise UserError(
                f"character {text[at]!r} at position {at} is not in this model's vocabulary of {self.vocab_size} characters"
            )
        return ids

    def decode(self, ids):
        """The text of a sequence of ids. IndexError outside the vocabulary."""
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise IndexError(f"token ids must be from 0 to {self.vocab_size - 1}")
        return "".join(self.chars[i] for i in ids)

    def to_json(self):
        return json.dumps({"type": "characters", "characters": self.chars}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text):
        """The tokenizer that `to_json` described. UserError if it is not one."""
        try:
            value = json.loads(text)
            if value["type"] == "characters" and isinstance(value["characters"], str) and value["characters"]:
                return cls(value["characters"])
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise UserError("tokenizer.json does not describe a character tokenizer")


def _code_points(text):
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
