import functools
from collections import Counter

import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.tokens import check, pieces_of
from workbook.tokens import count_pairs as right_count_pairs
from workbook.tokens import decode as right_decode
from workbook.tokens import encode as right_encode
from workbook.tokens import learn as right_learn
from workbook.tokens import merge as right_merge

catalogue = Catalogue(check)
wrong, wrong_ones = catalogue.wrong, catalogue.wrong_ones


# --- count_pairs ----------------------------------------------------------------------------------


@wrong("Each word counts once")
def count_pairs(words):
    counts = Counter()
    for ids in words:
        counts.update(zip(ids, ids[1:], strict=False))
    return counts


@wrong("which overlap")
def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        i = 0
        while i < len(ids) - 1:
            counts[ids[i], ids[i + 1]] += n
            i += 2 if ids[i : i + 3] == (ids[i],) * 3 else 1
    return counts


@wrong("two different pairs")
def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        for pair in zip(ids, ids[1:], strict=False):
            counts[tuple(sorted(pair))] += n
    return counts


@wrong("swapped")
def count_pairs(words):
    return {(b, a): n for (a, b), n in right_count_pairs(words).items()}


@wrong("two places at a time")
def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        for pair in zip(ids[::2], ids[1::2], strict=False):
            counts[pair] += n
    return counts


@wrong("`range` stops before its end")
def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        for i in range(len(ids) - 2):
            counts[ids[i], ids[i + 1]] += n
    return counts


@wrong("counted only once there")
def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        for pair in set(zip(ids, ids[1:], strict=False)):
            counts[pair] += n
    return counts


@wrong("from the end of one word")
def count_pairs(words):
    ids = [i for word, n in words.items() for i in word * n]
    return Counter(zip(ids, ids[1:], strict=False))


@wrong("n has no effect")
def count_pairs(words):
    ids = sum(words, ())
    return Counter(zip(ids, ids[1:], strict=False))


@wrong("only the last word counts")
def count_pairs(words):
    counts = {}
    for ids, n in words.items():
        pairs = list(zip(ids, ids[1:], strict=False))
        for pair in pairs:
            counts[pair] = n * pairs.count(pair)
    return counts


@wrong("You set where you should add")
def count_pairs(words):
    counts = {}
    for ids, n in words.items():
        for pair in zip(ids, ids[1:], strict=False):
            counts[pair] = n
    return counts


@wrong("no neighbours")
def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        for a, b in zip(ids, np.roll(ids, -1).tolist(), strict=True):
            counts[a, b] += n
    return counts


@wrong("The first pair of each word is missing")
def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        for i in range(2, len(ids)):
            counts[ids[i - 1], ids[i]] += n
    return counts


@wrong("2 things at once")
def count_pairs(words):
    """Sorted, and without n."""
    counts = Counter()
    for ids in words:
        counts.update((min(pair), max(pair)) for pair in zip(ids, ids[1:], strict=False))
    return counts


@wrong("A pair is a tuple of two ids, but one of your keys is 5")
def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        for i in ids:
            counts[i] += n
    return counts


@wrong("This is a list")
def count_pairs(words):
    return right_count_pairs(words).most_common()


@wrong("Is a `return` missing")
def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        for pair in zip(ids, ids[1:], strict=False):
            counts[pair] += n


@wrong("stops with KeyError in `counts[pair] += n`: (5, 6)")
def count_pairs(words):
    counts = {}
    for ids, n in words.items():
        for pair in zip(ids, ids[1:], strict=False):
            counts[pair] += n
    return counts


@wrong("stops with IndexError")
def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        for i in range(len(ids)):
            counts[ids[i], ids[i + 1]] += n
    return counts


@wrong("(5, 6): yours 4, should be 2")
def count_pairs(words):
    return {pair: 2 * n for pair, n in right_count_pairs(words).items()}


@wrong("changes its input in place")
def count_pairs(words):
    counts = right_count_pairs(words)
    words.clear()
    return counts


@wrong("(1, 2): yours 9, should be 3")
def count_pairs(words):
    """n twice: the pairs of a word that occurs n times, each n times."""
    counts = Counter()
    for ids, n in words.items():
        for _ in range(n):
            for pair in zip(ids, ids[1:], strict=False):
                counts[pair] += n
    return counts


# --- merge ----------------------------------------------------------------------------------------


@wrong("go on two places, not one")
def merge(ids, pair, new):
    merged = []
    for i in range(len(ids)):
        merged.append(new if tuple(ids[i : i + 2]) == pair else ids[i])
    return merged


@wrong("in reverse order is merged, too")
def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids):
        if sorted(ids[i : i + 2]) == sorted(pair):
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def walk(here, put=lambda new: [new], yes=2, no=1, end=lambda ids, i: list(ids[i:])):
    def merge(ids, pair, new):
        merged, i = [], 0
        while i < len(ids) - 1:
            if here(ids[i], ids[i + 1], *pair):
                merged.extend(put(new))
                i += yes
            else:
                merged.extend(ids[i : i + no])
                i += no
        return merged + end(ids, i)

    return merge


both = lambda x, y, a, b: x == a and y == b
wrong_ones(
    "merge",
    {
        "Both must be: `and`": walk(lambda x, y, a, b: x == a or y == b),
        "if the first of the two ids is right": walk(lambda x, y, a, b: x == a),
        "if the second of the two ids is right": walk(lambda x, y, a, b: y == b),
        "Two ids become two new ones": walk(both, lambda new: [new, new]),
        "The pair disappears": walk(both, lambda new: []),
        "only every second pair": walk(both, no=2),
        "The last id gets lost": walk(both, end=lambda ids, i: []),
        "Only the first place is merged": lambda ids, pair, new: next(
            ([*ids[:i], new, *ids[i + 2 :]] for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair),
            list(ids),
        ),
        "You merge from the right": lambda ids, pair, new: right_merge(ids[::-1], pair[::-1], new)[::-1],
        "Compare ids, not their digits": lambda ids, pair, new: list(
            map(int, " ".join(map(str, ids)).replace(" ".join(map(str, pair)), str(new)).split())
        ),
        "Nothing is merged": lambda ids, pair, new: [*ids],
        "This is a str": lambda ids, pair, new: "".join(map(chr, right_merge(ids, pair, new))),
        "Return a list: `list(...)`": lambda ids, pair, new: iter(right_merge(ids, pair, new)),
        "your list holds (5, 6), a tuple": lambda ids, pair, new: [
            pair if i == new else i for i in right_merge(ids, pair, new)
        ],
        "Keep those that belong to no pair": lambda ids, pair, new: (
            [new] * right_merge(ids, pair, new).count(new)
        ),
        "yours:     [257, 7, 257, 7]\nshould be: [256, 7, 256, 7]": lambda ids, pair, new: right_merge(
            ids, pair, new + 1
        ),
        "Other inputs come out right, but not this one: ids = [97, 97, 97]": lambda ids, pair, new: (
            right_merge(ids, pair, new) if pair[0] != pair[1] else [new for i in ids]
        ),
    },
)


@wrong("The last pair is not looked at")
def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids):
        if i < len(ids) - 2 and (ids[i], ids[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@wrong("Nothing is merged")
def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids):
        if list(ids[i : i + 2]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@wrong("does not come to an end")
def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
    return merged


@wrong("in place")
def merge(ids, pair, new):
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i : i + 2] = [new]
        i += 1
    return ids


@wrong("stops with IndexError in `if (ids[i], ids[i + 1]) == pair:`")
def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids):
        if (ids[i], ids[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@wrong("It merges in a tuple of ids, but not in a list")
def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids):
        if ids[i : i + 2] == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@wrong("It merges in a list of ids, but not in a tuple")
def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids):
        here = ids[i : i + 2] == list(pair)
        merged.append(new if here else ids[i])
        i += 1 + here
    return merged


@wrong("The last id is there even if it was merged")
def merge(ids, pair, new):
    merged, skip = [], False
    for two in zip(ids, ids[1:], strict=False):
        if not skip:
            merged.append(new if two == pair else two[0])
        skip = two == pair and not skip
    return [*merged, ids[-1]]


# --- learn ----------------------------------------------------------------------------------------


def learner(choose=None, least=2, start=256, rounds=0, n=lambda n: n, again=True):
    choose = choose or (lambda counts: min(counts, key=lambda pair: (-counts[pair], *pair), default=None))

    def learn(words, n_merges):
        merges, counts = {}, right_count_pairs(words)
        for new in range(start, start + n_merges + rounds):
            pair = choose(counts)
            if pair is None or counts[pair] < least:
                break
            merges[pair] = new
            if again:
                words = {tuple(right_merge(ids, pair, new)): n(words[ids]) for ids in words}
                counts = right_count_pairs(words)
        return merges

    return learn


wrong_ones(
    "learn",
    {
        "you take the one that came first": learner(lambda counts: max(counts, key=counts.get, default=None)),
        "the one with the largest ids": learner(
            lambda counts: max(counts, key=lambda pair: (counts[pair], *pair), default=None)
        ),
        "then the largest second id": learner(
            lambda counts: max(counts, key=lambda pair: (counts[pair], -pair[0], pair[1]), default=None)
        ),
        "you compare only the first ids": learner(
            lambda counts: max(counts, key=lambda pair: (counts[pair], -pair[0]), default=None)
        ),
        "you compare the second ids first": learner(
            lambda counts: max(counts, key=lambda pair: (counts[pair], -pair[1], -pair[0]), default=None)
        ),
        "You merge the *rarest*": learner(
            lambda counts: min(counts, key=lambda pair: (counts[pair], *pair), default=None), least=0
        ),
        "until no pair is left": learner(least=1),
        "It stops too early": learner(least=3),
        "The new ids begin at 257": learner(start=257),
        "The new ids begin at 0": learner(start=0),
        "One merge too many": learner(rounds=1),
        "One merge too few": learner(rounds=-1),
        "Hand its n on": learner(n=lambda n: 1),
        "the same pair wins every time": learner(again=False),
        "This is a list": lambda words, n_merges: list(right_learn(words, n_merges)),
        "A pair is a tuple of two ids, but one of your keys is 256": lambda words, n_merges: {
            new: pair for pair, new in right_learn(words, n_merges).items()
        },
        "The value is one integer, but for (97, 98) it is b'ab'": lambda words, n_merges: {
            pair: pieces_of(right_learn(words, n_merges))[new]
            for pair, new in right_learn(words, n_merges).items()
        },
        "(97, 98): yours 3, should be 256": lambda words, n_merges: {
            pair: right_count_pairs(words)[pair] for pair in right_learn(words, n_merges)
        },
        "(256, 116): yours is missing, should be 257": lambda words, n_merges: dict(
            list(right_learn(words, n_merges).items())[:1]
        ),
    },
)


@wrong("count again after each")
def learn(words, n_merges):
    counts = right_count_pairs(words)
    best = sorted(counts, key=lambda pair: (-counts[pair], pair))
    return {pair: 256 + i for i, pair in enumerate(best[:n_merges]) if counts[pair] > 1}


@wrong("You always count each word once")
def learn(words, n_merges):
    sequences, merges = [list(ids) for ids in words], {}
    for i in range(n_merges):
        counts = Counter(pair for ids in sequences for pair in zip(ids, ids[1:], strict=False))
        if not counts or max(counts.values()) < 2:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        sequences = [right_merge(ids, best, 256 + i) for ids in sequences]
        merges[best] = 256 + i
    return merges


@wrong("changes its input in place")
def learn(words, n_merges):
    merges = {}
    for new in range(256, 256 + n_merges):
        counts = right_count_pairs(words)
        if max(counts.values(), default=0) < 2:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        for ids in list(words):
            words[tuple(right_merge(ids, best, new))] = words.pop(ids)
        merges[best] = new
    return merges


@wrong("there is nothing to choose from")
def learn(words, n_merges):
    """No pair is left, and max has nothing to choose from."""
    merges = {}
    for new in range(256, 256 + n_merges):
        counts = right_count_pairs(words)
        best = max(counts, key=lambda pair: (counts[pair], -pair[0], -pair[1]))
        if counts[best] < 2:
            break
        words = {tuple(right_merge(ids, best, new)): n for ids, n in words.items()}
        merges[best] = new
    return merges


@wrong("stops with TypeError")
def learn(words, n_merges):
    best = max(right_count_pairs(words))
    return {best: 256} if {right_merge(ids, best, 256): n for ids, n in words.items()} else {}


@wrong("does not come to an end")
def learn(words, n_merges):
    merges = {}
    while len(merges) < n_merges:
        best = min(right_count_pairs(words), key=lambda pair: (-right_count_pairs(words)[pair], pair))
        merges[best] = 256 + len(merges)
    return merges


@wrong("you take the one that came first")
def learn(words, n_merges):
    """It would also stop with an error where no pair is left; one thing after the other."""
    merges = {}
    for new in range(256, 256 + n_merges):
        best, often = Counter(right_count_pairs(words)).most_common(1)[0]
        if often < 2:
            break
        words = {tuple(right_merge(ids, best, new)): n for ids, n in words.items()}
        merges[best] = new
    return merges


# --- encode ---------------------------------------------------------------------------------------


@wrong("You take the longest token that fits")
def encode(ids, merges):
    tokens, pieces, text = [], pieces_of(merges), bytes(ids)
    while text:
        fits = [i for i in pieces if text.startswith(pieces[i])]
        tokens.append(max(fits, key=lambda i: len(pieces[i])))
        text = text.removeprefix(pieces[tokens[-1]])
    return tokens


def repeated(choose):
    def encode(ids, merges):
        ids = list(ids)
        while known := [pair for pair in zip(ids, ids[1:], strict=False) if pair in merges]:
            pair = choose(known, merges)
            ids = right_merge(ids, pair, merges[pair])
        return ids

    return encode


wrong_ones(
    "encode",
    {
        "the *latest*": repeated(lambda known, merges: max(known, key=lambda pair: merges[pair])),
        "the leftmost pair": repeated(lambda known, merges: known[0]),
        "the rightmost pair": repeated(lambda known, merges: known[-1]),
        "the pair with the smallest ids": repeated(lambda known, merges: min(known)),
        "most frequent in this word": repeated(lambda known, merges: Counter(known).most_common(1)[0][0]),
        "Nothing is merged": lambda ids, merges: [*ids],
        "from the last to the first": lambda ids, merges: functools.reduce(
            lambda ids, pair: right_merge(ids, pair, merges[pair]), reversed(merges), ids
        ),
        "This is a str": lambda ids, merges: str(right_encode(ids, merges)),
        "your list holds b'abc', a bytes": lambda ids, merges: [
            pieces_of(merges)[i] for i in right_encode(ids, merges)
        ],
        "stops with KeyError": lambda ids, merges: [merges[tuple(ids)]],
        "No typical mistake": lambda ids, merges: right_encode(ids, merges)[::-1],
        "should be: [": lambda ids, merges: right_encode(ids[:6], merges),
    },
)


@wrong("You go once from left to right")
def encode(ids, merges):
    tokens, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) in merges:
            tokens.append(merges[ids[i], ids[i + 1]])
            i += 2
        else:
            tokens.append(ids[i])
            i += 1
    return tokens


@wrong("furthest to the left")
def encode(ids, merges):
    tokens = []
    for i in ids:
        tokens.append(i)
        while len(tokens) > 1 and (tokens[-2], tokens[-1]) in merges:
            tokens[-2:] = [merges[tokens[-2], tokens[-1]]]
    return tokens


@wrong("It stops after one merge")
def encode(ids, merges):
    known = [pair for pair in zip(ids, ids[1:], strict=False) if pair in merges]
    if not known:
        return ids
    first = min(known, key=merges.get)
    return right_merge(ids, first, merges[first])


@wrong("`min` has nothing to choose from")
def encode(ids, merges):
    while True:
        first = min((pair for pair in zip(ids, ids[1:], strict=False) if pair in merges), key=merges.get)
        ids = right_merge(ids, first, merges[first])


@wrong("does not come to an end")
def encode(ids, merges):
    tokens = list(ids)
    while True:
        known = [pair for pair in zip(ids, ids[1:], strict=False) if pair in merges]
        if not known:
            return tokens
        first = min(known, key=merges.get)
        tokens = right_merge(tokens, first, merges[first])


@wrong("furthest to the left")
def encode(ids, merges):
    ids, i = list(ids), 0
    while i < len(ids) - 1:
        pair = tuple(ids[i : i + 2])
        if pair in merges:
            ids[i : i + 2] = [merges[pair]]
            i = 0
        else:
            i += 1
    return ids


# --- decode ---------------------------------------------------------------------------------------


def decoder(of_pieces):
    return lambda ids, merges: of_pieces([pieces_of(merges)[i] for i in ids])


wrong_ones(
    "decode",
    {
        "You decode each token by itself. One token may be a part of a character only: join": decoder(
            lambda pieces: "".join(piece.decode("utf-8", errors="replace") for piece in pieces)
        ),
        "is then an error": decoder(lambda pieces: "".join(piece.decode() for piece in pieces)),
        "vanishes without a trace": decoder(lambda pieces: b"".join(pieces).decode(errors="ignore")),
        "Half a character is an error here": decoder(lambda pieces: b"".join(pieces).decode()),
        "and ignore what is no whole character": decoder(
            lambda pieces: "".join(piece.decode(errors="ignore") for piece in pieces)
        ),
        "Each byte became a character": decoder(
            lambda pieces: "".join(chr(byte) for piece in pieces for byte in piece)
        ),
        "That is how Python *shows* bytes": decoder(lambda pieces: str(b"".join(pieces))),
        "The tokens stand apart": decoder(lambda pieces: b" ".join(pieces).decode(errors="replace")),
        "ASCII knows 128 characters": decoder(lambda pieces: b"".join(pieces).decode("ascii", "replace")),
        "The text is backwards": decoder(lambda pieces: b"".join(pieces[::-1]).decode(errors="replace")),
        "These are still bytes": decoder(b"".join),
        "This is a list": lambda ids, merges: list(right_decode(ids, merges)),
        "stops with KeyError": lambda ids, merges: "".join({i: chr(i) for i in range(256)}[i] for i in ids),
        "yours:     'HHI!I!HI'\nshould be: 'hhi!i!hi'": lambda ids, merges: right_decode(ids, merges).upper(),
    },
)


@wrong("the halves are swapped")
def decode(ids, merges):
    pieces = [bytes([i]) for i in range(256)]
    for a, b in merges:
        pieces.append(pieces[b] + pieces[a])
    return b"".join(pieces[i] for i in ids).decode(errors="replace")


@wrong("stops with ValueError")
def decode(ids, merges):
    return bytes(ids).decode(errors="replace")


@wrong("Other inputs come out right")
def decode(ids, merges):
    """Blanks at the ends get lost."""
    return right_decode(ids, merges).replace("，", ", ")


# --- bits_per_byte --------------------------------------------------------------------------------


wrong_ones(
    "bits_per_byte",
    {
        "by the number of characters": lambda s, text: s.sum() / np.log(2) / len(text),
        "You take the mean over the tokens": lambda s, text: s.mean() / np.log(2) / len(text.encode()),
        "These are nats": lambda s, text: s.sum() / len(text.encode()),
        "You multiply by ln 2": lambda s, text: s.sum() * np.log(2) / len(text.encode()),
        "They are logarithms already": lambda s, text: np.log2(s.sum()) / len(text.encode()),
        "that plays no part": lambda s, text: s.sum() / np.log(2) / (8 * len(text.encode())),
        "You divide by the number of tokens": lambda s, text: s.mean() / np.log(2),
        "the mean surprise of a token, in nats": lambda s, text: np.mean(s),
        "Divide by its bytes": lambda s, text: s.sum() / np.log(2),
        "It is upside down": lambda s, text: len(text.encode()) * np.log(2) / s.sum(),
        "2 things at once": lambda s, text: s.sum() / len(text),
        "No typical mistake in the result": lambda s, text: s.max() / np.log(2) / len(text.encode()),
        "stops with": lambda s, text: s.sum() / np.log(2) / text,
        "has the shape (3,), but should have () (one number)": lambda s, text: (
            s / np.log(2) / len(text.encode())
        ),
        "has the wrong sign": lambda s, text: -s.sum() / np.log(2) / len(text.encode()),
    },
)
