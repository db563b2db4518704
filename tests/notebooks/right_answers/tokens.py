import itertools
from collections import Counter, defaultdict

import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.tokens import check
from workbook.tokens import count_pairs as right_count_pairs
from workbook.tokens import merge as right_merge

catalogue = Catalogue(check)
right, right_ones = catalogue.right, catalogue.right_ones


@right
def count_pairs(words):
    counts = {}
    for ids in words:
        for i in range(len(ids) - 1):
            pair = ids[i], ids[i + 1]
            counts[pair] = counts.get(pair, 0) + words[ids]
    return counts


@right
def count_pairs(words):
    counts = defaultdict(int)
    for word, how_often in words.items():
        left = None
        for right in word:
            if left is not None:
                counts[left, right] += how_often
            left = right
    return counts


@right
def count_pairs(words):
    """Every occurrence by itself."""
    return Counter(pair for ids, n in words.items() for pair in list(itertools.pairwise(ids)) * n)


@right
def count_pairs(words):
    """NumPy, with a zero for each pair that could be."""
    ids = sorted({i for word in words for i in word})
    table = np.zeros((len(ids), len(ids)), int)
    for word, n in words.items():
        place = np.searchsorted(ids, word)
        np.add.at(table, (place[:-1], place[1:]), n)
    return {(a, b): table[i, j] for i, a in enumerate(ids) for j, b in enumerate(ids)}


@right
def merge(ids, pair, new):
    merged = []
    for i in ids:
        if merged and (merged[-1], i) == pair:
            merged[-1] = new
        else:
            merged.append(i)
    return merged


@right
def merge(ids, pair, new):
    """On a copy of its own, in place."""
    ids, i = list(ids), 0
    while i < len(ids) - 1:
        if ids[i] == pair[0] and ids[i + 1] == pair[1]:
            ids[i : i + 2] = [new]
        i += 1
    return ids


@right
def merge(ids, pair, new):
    """Each id as a character."""
    text = "".join(map(chr, ids)).replace(chr(pair[0]) + chr(pair[1]), chr(new))
    return [ord(character) for character in text]


@right
def merge(ids, pair, new):
    """By recursion, and a tuple."""
    if len(ids) < 2:
        return tuple(ids)
    if (ids[0], ids[1]) == pair:
        return (new, *merge_again(ids[2:], pair, new))
    return (ids[0], *merge_again(ids[1:], pair, new))


merge_again = merge


@right
def merge(ids, pair, new):
    result, places = [], iter(range(len(ids)))
    for i in places:
        if i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            result += [new]
            next(places)
        else:
            result += [ids[i]]
    return np.array(result)


@right
def learn(words, n_merges):
    merges = {}
    while len(merges) < n_merges:
        counts = sorted((-n, pair) for pair, n in right_count_pairs(words).items())
        if not counts or counts[0][0] > -2:
            return merges
        new = 256 + len(merges)
        merges[counts[0][1]] = new
        words = {tuple(right_merge(ids, counts[0][1], new)): words[ids] for ids in words}
    return merges


@right
def learn(words, n_merges):
    """Words and their counts in two lists, and ties by the order of the sorted pairs."""
    sequences, n = [list(ids) for ids in words], list(words.values())
    merges = {}
    for i in range(n_merges):
        counts = Counter()
        for ids, times in zip(sequences, n, strict=True):
            for a, b in itertools.pairwise(ids):
                counts[a, b] += times
        best = max(sorted(counts), key=counts.get, default=(0, 0))
        if counts[best] <= 1:
            break
        sequences = [right_merge(ids, best, 256 + i) for ids in sequences]
        merges[best] = 256 + i
    return merges


@right
def learn(words, n_merges):
    """By recursion on the number of merges, and ids of NumPy."""

    def go_on(words, new):
        counts = right_count_pairs(words)
        often = max(counts.values(), default=0)
        if often < 2 or new == 256 + n_merges:
            return {}
        best = min(pair for pair in counts if counts[pair] == often)
        return {best: np.int64(new)} | go_on(
            {(*right_merge(w, best, new),): n for w, n in words.items()}, new + 1
        )

    return go_on(words, 256)


@right
def encode(ids, merges):
    """All merges in their order, whether they are there or not."""
    for pair, new in merges.items():
        ids = right_merge(ids, pair, new)
    return list(ids)


@right
def encode(ids, merges):
    ids = list(ids)
    while len(ids) > 1:
        pair = min(zip(ids, ids[1:], strict=False), key=lambda pair: merges.get(pair, float("inf")))
        if pair not in merges:
            break
        ids = right_merge(ids, pair, merges[pair])
    return ids


@right
def encode(ids, merges):
    """One place at a time, the leftmost of the first merge."""
    ids = list(ids)
    while True:
        new, i = min(
            ((merges[pair], i) for i, pair in enumerate(itertools.pairwise(ids)) if pair in merges),
            default=(None, None),
        )
        if new is None:
            return np.array(ids)
        ids[i : i + 2] = [new]


@right
def encode(ids, merges):
    """By the ids that the pairs would become."""
    possible = {merges[pair]: pair for pair in itertools.pairwise(ids) if pair in merges}
    if not possible:
        return tuple(ids)
    new = min(possible)
    return encode_again(right_merge(ids, possible[new], new), merges)


encode_again = encode


@right
def decode(ids, merges):
    """From the token down to the bytes."""
    parts = {new: pair for pair, new in merges.items()}

    def bytes_of(i):
        return bytes([i]) if i < 256 else b"".join(map(bytes_of, parts[i]))

    return b"".join(map(bytes_of, ids)).decode(errors="replace")


@right
def decode(ids, merges):
    """Undoes the merges, the last first."""
    ids = list(ids)
    for (a, b), new in reversed(merges.items()):
        ids = [j for i in ids for j in ((a, b) if i == new else (i,))]
    return str(bytes(ids), "utf-8", "replace")


@right
def decode(ids, merges):
    pieces = [bytes([byte]) for byte in range(256)]
    for a, b in merges:
        pieces.append(pieces[a] + pieces[b])
    joined = bytearray()
    for i in ids:
        joined.extend(pieces[i])
    return joined.decode("utf8", "replace")


right_ones(
    "bits_per_byte",
    lambda surprises, text: np.log2(np.exp(surprises)).sum() / len(text.encode("utf-8")),
    lambda surprises, text: surprises.mean() * len(surprises) / (np.log(2) * len(bytes(text, "utf-8"))),
    lambda surprises, text: sum(surprises) / len(text.encode()) / 0.6931471805599453,
    lambda surprises, text: -np.sum(np.log2(np.exp(-surprises))) / len([*text.encode()]),
)
