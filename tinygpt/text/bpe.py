"""Byte-pair encoding (Sennrich et al. 2016) on bytes, as in GPT-2: how merges are learnt and applied.

A text is split into words first, and no token goes over the end of a word. Then every word starts as its
UTF-8 bytes. A merge makes one token of a pair of neighbouring tokens. The merges are applied in the order in
which they were learnt. Learning and applying both keep all words in flat arrays, so that a pair is merged at
all its places by a few array operations.
"""

import functools
import heapq
import re
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator

import numpy as np

Pair = tuple[int, int]  # the ids of two neighbouring tokens

# GPT-2's rule in ASCII: contractions; letters, digits or signs, each with one space before them if there is
# one; other white space.
WORD = re.compile(rb"'(?:[stmd]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
WHITE_SPACE = "\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# What Unicode 15 and 16 added, so that all versions of Python split alike.
NEW_LETTERS = (
    "\u1c89-\u1c8a\ua7cb-\ua7cd\ua7da-\ua7dc\U000105c0-\U000105f3\U00010d4a-\U00010d65"
    "\U00010d6f-\U00010d85\U00010ec2-\U00010ec4\U0001123f-\U00011240\U00011380-\U00011389\U0001138b\U0001138e"
    "\U00011390-\U000113b5\U000113b7\U000113d1\U000113d3\U00011bc0-\U00011be0\U00011f02"
    "\U00011f04-\U00011f10\U00011f12-\U00011f33\U0001342f\U00013441-\U00013446\U00013460-\U000143fa"
    "\U00016100-\U0001611d\U00016d40-\U00016d6c\U00018cff\U0001b132\U0001b155\U0001df25-\U0001df2a"
    "\U0001e030-\U0001e06d\U0001e4d0-\U0001e4eb\U0001e5d0-\U0001e5ed\U0001e5f0\U0002b739"
    "\U0002ebf0-\U0002ee5d\U00031350-\U000323af"
)
NEW_DIGITS = (
    "\U00010d40-\U00010d49\U000116d0-\U000116e3\U00011bf0-\U00011bf9\U00011f50-\U00011f59"
    "\U00016130-\U00016139\U00016d70-\U00016d79\U0001ccf0-\U0001ccf9\U0001d2c0-\U0001d2d3"
    "\U0001e4f0-\U0001e4f9\U0001e5f1-\U0001e5fa"
)


def code_points(text: str) -> np.ndarray:
    """The text's characters as a uint32 array."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@functools.cache
def _ascii_table() -> np.ndarray:
    """uint8 (1,114,112): for every code point an ASCII character, which Python's `re` knows the kind of.

    ASCII stands for itself, the rest is A (a letter), 0 (a digit), a tab (white space) or a dot.
    """
    stand_in = {"L": "A", "N": "0"}  # by the first letter of the Unicode category
    categories = map(unicodedata.category, map(chr, range(sys.maxunicode + 1)))
    kinds = "".join([stand_in.get(category[0], ".") for category in categories])
    table = np.frombuffer(kinds.encode(), np.uint8).copy()
    for ranges, character in ((NEW_LETTERS, "A"), (NEW_DIGITS, "0"), (WHITE_SPACE, "\t")):
        for first, last in re.findall(r"(.)(?:-(.))?", ranges, re.DOTALL):
            table[ord(first) : ord(last or first) + 1] = ord(character)
    table[:128] = np.arange(128)
    return table


def split_words(text: str) -> Iterator[str]:
    """Yield the words of a text; joined, they are the text."""
    for word in WORD.finditer(_ascii_table()[code_points(text)].tobytes()):
        yield text[word.start() : word.end()]


END, GONE = -1, -2  # in place of a token: between two words, and where the second token of a merged pair was
END_OF_DOCUMENT = ""  # a word that stands for the end token


class Words:
    """Many words as linked lists of token ids in flat arrays. Positions are indices into them.

    Two tokens become neighbours at the moment when the younger of them is made (or, if both are bytes, at the
    start), and never later. So a pair's positions can be listed once, in order; later they only disappear.
    """

    def __init__(self, words: Iterable[str], counts: Iterable[int], byte_ids: np.ndarray) -> None:
        """counts: how often each word occurs, or 1; byte_ids (256): the token of each byte."""
        # UTF-8 has no byte 0xff.
        codes = np.frombuffer(b"\xff".join([b"", *(word.encode() for word in words), b""]), np.uint8)
        self.ids = np.where(codes == 0xFF, END, byte_ids[codes]).astype(np.int32)
        self.next, self.previous = np.arange(1, len(codes) + 1), np.arange(-1, len(codes) - 1)
        lengths = np.diff(np.flatnonzero(codes == 0xFF), append=len(codes))
        self.counts = np.repeat([*counts, 0], lengths)

    def pairs(self, starts: np.ndarray, least: int = 1) -> Iterator[tuple[Pair, np.ndarray, int]]:
        """Yield (pair, positions, count) for each different pair at these positions.

        Those that occur less often than `least` are left out.
        """
        a, b = self.ids[starts], self.ids[self.next[starts]]
        inside = (a >= 0) & (b >= 0)
        # A pair is one number here: the first id in the upper 32 bits, the second in the lower ones.
        starts, keys = starts[inside], (a[inside].astype(np.int64) << 32) | b[inside]
        order = np.argsort(keys, kind="stable")
        starts, keys = starts[order], keys[order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))  # where in `starts` each different pair begins
        last = np.append(first[1:], len(keys))  # and ends
        counts = np.add.reduceat(self.counts[starts], first) if len(first) else first
        often = counts >= least
        columns = [column[often].tolist() for column in (keys[first], first, last, counts)]
        for key, i, j, count in zip(*columns, strict=True):
            yield (key >> 32, key & 0xFFFFFFFF), starts[i:j], count

    def unbroken(self, pair: Pair, positions: np.ndarray) -> np.ndarray:
        """Those of the positions where no other merge has taken a token of the pair."""
        return positions[(self.ids[positions] == pair[0]) & (self.ids[self.next[positions]] == pair[1])]

    def merge(self, pair: Pair, positions: np.ndarray, new: int) -> np.ndarray:
        """Make the pair at these positions the token `new`, from left to right.

        Returns where pairs with `new` start.
        """
        p = self.unbroken(pair, positions)
        if pair[0] == pair[1]:
            p = self._every_second(p)
        gone = self.next[p]
        after = self.next[gone]
        self.ids[p], self.ids[gone] = new, GONE
        self.next[p], self.previous[after] = after, p
        before = self.previous[p]
        return np.concatenate([before[self.ids[before] != new], p])

    def _every_second(self, p: np.ndarray) -> np.ndarray:
        """In a run such as `aaaa` only the 1st, 3rd, ... of the overlapping pairs can be merged."""
        index = np.arange(len(p))
        follows = np.zeros(len(p), bool)
        follows[1:] = p[1:] == self.next[p[:-1]]
        run_start = np.maximum.accumulate(np.where(follows, 0, index))
        return p[(index - run_start) % 2 == 0]


def learn(word_counts: dict[str, int], n_merges: int, byte_ids: np.ndarray) -> list[Pair]:
    """Up to n_merges pairs of ids, most frequent first; merge i makes token 256 + i.

    word_counts: how often each word occurs. Of equally frequent pairs the one with the smallest ids comes
    first. Learning ends when no pair occurs twice. A pair's count only falls after the pair is first seen, so
    the heap may hold counts that are too high. A count is corrected when it comes to the top.
    """
    words = Words(word_counts, word_counts.values(), byte_ids)
    merges, heap, where = [], [], {}

    def add(starts):
        for pair, positions, count in words.pairs(starts, least=2):
            where[pair] = positions
            heapq.heappush(heap, (-count, pair))

    add(np.arange(len(words.ids) - 1))
    while heap and len(merges) < n_merges:
        bound, pair = heapq.heappop(heap)
        where[pair] = words.unbroken(pair, where[pair])
        count = int(words.counts[where[pair]].sum())
        if count == -bound:
            add(words.merge(pair, where.pop(pair), 256 + len(merges)))
            merges.append(pair)
        elif count > 1:
            heapq.heappush(heap, (-count, pair))
    return merges


def apply(
    words: Collection[str],
    merges: dict[Pair, tuple[int, int]],
    byte_ids: np.ndarray,
    end: int | None = None,
) -> np.ndarray:
    """The ids of several words, one after the other, as an int32 array.

    merges: {pair: (rank, token)}, where the rank says when the merge was learnt. end: the token for the word
    END_OF_DOCUMENT.
    """
    words = Words(words, [1] * len(words), byte_ids)
    heap, where = [], {}

    def add(starts):
        for pair, positions, _ in words.pairs(starts):
            if pair in merges:
                where[pair] = positions
                heapq.heappush(heap, (*merges[pair], pair))

    add(np.arange(len(words.ids) - 1))
    while heap:
        _, new, pair = heapq.heappop(heap)
        add(words.merge(pair, where[pair], new))
    ids = words.ids
    if end is not None:
        nothing_between = (ids[1:] == END) & (ids[:-1] == END)
        ids[1:][nothing_between] = end
    return ids[ids >= 0]
