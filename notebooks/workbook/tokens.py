"""Notebook 10: bytes to tokens."""

import copy
import dataclasses
import sys
from collections import Counter

import numpy as np

from tinygpt.text import bpe
from workbook.checking import Checks, Exercise, Wrong, as_list, crash, several, with_pairs
from workbook.describing import argument_names
from workbook.pictures import BLUE, GOLD, GREEN, GREY, RED, Picture, panels

check = Checks()


# --- exercises whose results are ids and texts ----------------------------------------------------


MANY_STEPS = 300_000  # far more lines than any right answer runs on these inputs


def exact_exercise(reference, cases, mistakes, read, **hooks):
    """An Exercise whose results must be equal: an id or a text is never nearly right.

    read: from what an answer returned, to something that `==` can compare; Wrong if it is of another kind.
    """
    truths = [read(reference(*case)) for case in cases]
    theirs = {}  # what the mistakes make of the cases, once it was needed

    def known(results, error):
        """The diagnosis of the mistake that gives the same results, and ends in the same error if in any."""
        for text, mistake in mistakes.items():
            if text not in theirs:
                theirs[text] = _results(mistake, cases, read)
            their_results, their_error = theirs[text]
            if results == their_results and repr(error) == repr(their_error):
                return several(*as_list(text))
        return ""

    def inspect(answer):
        results, error = _results(lambda *case: _within_limits(answer, case), cases, read)
        if results == truths:
            return
        if diagnosis := known(results, error):
            raise Wrong(diagnosis)
        wrong = [i for i, yours in enumerate(results) if yours != truths[i]]
        if wrong:
            some_right = len(wrong) < len(results)
            i = wrong[0]
            raise Wrong(_side_by_side(reference, cases[i], results[i], truths[i], some_right))
        raise error if isinstance(error, Wrong) else Wrong(crash(answer, error))

    return Exercise(reference, mistakes=mistakes, inspect=inspect, **hooks)


def in_turn(*exercises):
    """One exercise of several with the same reference: an answer must pass the first before the second."""

    def inspect(answer):
        for exercise in exercises:
            exercise.inspect(answer)

    mistakes = {text: wrong for exercise in exercises for text, wrong in exercise.mistakes.items()}
    return dataclasses.replace(exercises[0], mistakes=mistakes, inspect=inspect)


def _results(function, cases, read):
    """(what it makes of the cases, error): fewer results if an error stopped it, otherwise None."""
    results = []
    for case in cases:
        try:
            results.append(_result(function, case, read))
        except Exception as error:
            return results, error
    return results, None


def _result(function, case, read):
    given = copy.deepcopy(case)
    result = function(*given)
    if result is None:
        raise Wrong("It returns None. Is a `return` missing, or does one of the lines end in `...`?")
    if given != case:
        raise Wrong("It changes its input in place. Others still need it: work on a new one, or on a copy.")
    return read(result)


def _within_limits(function, arguments):
    """The result; Wrong if the function does not come to an end."""
    steps = 0

    def count(frame, event, argument):
        nonlocal steps
        steps += 1
        if steps > MANY_STEPS:
            raise Wrong(
                f"It does not come to an end: a loop is still running after {MANY_STEPS:,} steps. "
                "What must change from one round to the next? Does it change in every branch?"
            )
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        return function(*arguments)
    finally:
        sys.settrace(before)


def _side_by_side(reference, case, yours, true, some_right):
    """A wrong case in full, as far as it fits on a line or two."""
    names = argument_names(reference, case)
    given = ", ".join(f"{name} = {short(value)}" for name, value in zip(names, case, strict=True))
    where = "Other inputs come out right, but not this one:" if some_right else "With"
    return f"No typical mistake. {where} {given}\n{_difference(yours, true)}"


def _difference(yours, true):
    if not isinstance(true, dict):
        return f"yours:     {short(yours)}\nshould be: {short(true)}"
    wrong = [key for key in {**true, **yours} if yours.get(key) != true.get(key)]
    lines = [
        f"{key}: yours {yours.get(key, 'is missing')}, should be {true.get(key, 'left out')}"
        for key in wrong[:4]
    ]
    return "\n".join(lines)


def short(value):
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:150]} ..."


def as_ids(answer):
    """A list of ids, from any sequence of them."""
    if isinstance(answer, str | dict | set | frozenset) or not hasattr(answer, "__iter__"):
        raise Wrong(f"Return a list of ids. This is a {type(answer).__name__}.")
    if iter(answer) is answer:
        raise Wrong(
            "It returns an iterator, which can be gone through only once. Return a list: `list(...)`."
        )
    ids = answer.tolist() if isinstance(answer, np.ndarray) else list(answer)
    for i in ids:
        if isinstance(i, bool | np.bool_) or not isinstance(i, int | np.integer):
            raise Wrong(f"Each id is one integer, but your list holds {short(i)}, a {type(i).__name__}.")
    return [int(i) for i in ids]


def is_pair(key):
    return isinstance(key, tuple) and len(key) == 2 and all(isinstance(i, int | np.integer) for i in key)


def as_pairs(what):
    """A `read` for dictionaries {pair: what}; what is a number."""
    wanted = f"Return a dictionary {{pair: {what}}}."

    def read(answer):
        if not isinstance(answer, dict):
            raise Wrong(f"{wanted} This is a {type(answer).__name__}.")
        for key, value in answer.items():
            if not is_pair(key):
                raise Wrong(f"{wanted} A pair is a tuple of two ids, but one of your keys is {short(key)}.")
            if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
                raise Wrong(f"{wanted} The value is one integer, but for {key} it is {short(value)}.")
        return {(int(a), int(b)): int(value) for (a, b), value in answer.items()}

    return read


def as_counts(answer):
    """Pairs that are counted 0 times may be left out."""
    return {pair: n for pair, n in as_pairs("how often")(answer).items() if n}


def as_text(answer):
    if isinstance(answer, bytes | bytearray):
        raise Wrong("These are still bytes. Make a text of them: `.decode('utf-8', errors='replace')`.")
    if not isinstance(answer, str):
        raise Wrong(f"Return a text. This is a {type(answer).__name__}.")
    return str(answer)


# --- count_pairs ----------------------------------------------------------------------------------


def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        for pair in zip(ids, ids[1:], strict=False):
            counts[pair] += n
    return counts


def _count(places=lambda ids: range(len(ids) - 1), weight=lambda n: n, pair=lambda a, b: (a, b)):
    """`count_pairs` that looks at other places, lets a word count otherwise, or has other keys."""

    def wrong(words):
        counts = Counter()
        for ids, n in words.items():
            for i in places(ids):
                counts[pair(ids[i], ids[i + 1])] += weight(n)
        return counts

    return wrong


def _no_overlap(ids):
    """The places of pairs, but after two equal pairs in a row (aaa) not the second."""
    places = []
    for i in range(len(ids) - 1):
        if not (places and places[-1] == i - 1 and ids[i - 1] == ids[i] == ids[i + 1]):
            places.append(i)
    return places


def _first_places(ids):
    pairs = list(zip(ids, ids[1:], strict=False))
    return [pairs.index(pair) for pair in dict.fromkeys(pairs)]


def _across(words):
    counts, together = Counter(), [i for ids, n in words.items() for i in ids * n]
    counts.update(zip(together, together[1:], strict=False))
    return counts


def _across_once(words):
    together = [i for ids in words for i in ids]
    return Counter(zip(together, together[1:], strict=False))


def _last_word_wins(words):
    counts = {}
    for ids, n in words.items():
        counts |= count_pairs({ids: n})
    return counts


def _overwritten(words):
    return {pair: n for ids, n in words.items() for pair in zip(ids, ids[1:], strict=False)}


def _in_a_ring(words):
    counts = count_pairs(words)
    for ids, n in words.items():
        counts[ids[-1], ids[0]] += n
    return counts


check.add(
    "count_pairs",
    exact_exercise(
        count_pairs,
        [
            ({(5, 6, 7, 5, 6): 1},),
            ({(97, 97, 97, 97): 1},),
            ({(1, 2, 1): 3, (2, 1, 4): 2, (9,): 5},),
            ({(4, 300, 4, 300, 300, 300): 2, (300, 4): 7, (8, 8, 8): 1},),
        ],
        with_pairs(
            _count,
            {
                "Each word counts once, however often it occurs. Add its n, not 1.": {"weight": lambda n: 1},
                "In (97, 97, 97, 97) the pair (97, 97) stands at three places, which overlap. "
                "Count all of them.": {"places": _no_overlap},
                "The order matters: (1, 2) and (2, 1) are two different pairs.": {
                    "pair": lambda a, b: (min(a, b), max(a, b))
                },
                "The two ids of each pair are swapped: the left one comes first.": {
                    "pair": lambda a, b: (b, a)
                },
                "You go on two places at a time. A pair can begin at every place.": {
                    "places": lambda ids: range(0, len(ids) - 1, 2)
                },
                "The last pair of each word is missing: the last place where one begins is len(ids) - 2, "
                "and `range` stops before its end.": {"places": lambda ids: range(len(ids) - 2)},
                "The first pair of each word is missing: it begins at place 0.": {
                    "places": lambda ids: range(1, len(ids) - 1)
                },
                "A pair that stands twice in a word is counted only once there. (Has a set swallowed it?)": {
                    "places": _first_places
                },
            },
        )
        | {
            "Pairs also reach from the end of one word to the beginning of the next. "
            "Take each word by itself.": _across,
            "Pairs reach from one word into the next, and n has no effect. "
            "Take each word by itself; each of its pairs counts n times.": _across_once,
            "If a pair is in several words, only the last word counts. Add up over the words.": (
                _last_word_wins
            ),
            "You set where you should add: each place where a pair stands adds n.": _overwritten,
            "The last id and the first are no neighbours. (np.roll makes a ring of the word.)": _in_a_ring,
        },
        as_counts,
    ),
)


# --- merge ----------------------------------------------------------------------------------------


def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def _merge(
    is_here=lambda a, b, pair: (a, b) == pair, put=lambda new: [new], step=2, miss=1, stop=0, at_end=True
):
    """`merge` with another condition, another replacement, other steps, or another end.

    stop: so many ids before the last place of a pair it no longer looks; at_end: whether the last id is kept.
    """

    def wrong(ids, pair, new):
        merged, i = [], 0
        while i < len(ids) - 1 - stop:
            if is_here(ids[i], ids[i + 1], pair):
                merged += put(new)
                i += step
            else:
                merged += ids[i : i + miss]
                i += miss
        return merged + list(ids[i:]) * at_end

    return wrong


def _merge_first(ids, pair, new):
    for i in range(len(ids) - 1):
        if tuple(ids[i : i + 2]) == pair:
            return [*ids[:i], new, *ids[i + 2 :]]
    return list(ids)


def _merge_last_first(ids, pair, new):
    return merge(list(ids)[::-1], pair[::-1], new)[::-1]


def _merge_in_text(ids, pair, new):
    text = " ".join(map(str, ids)).replace(f"{pair[0]} {pair[1]}", str(new))
    return [int(i) for i in text.split()]


def _last_kept(ids, pair, new):
    merged = merge(ids, pair, new)
    return [*merged, ids[-1]] if merged[-1] == new and ids[-1] != new else merged


def _only_merged(ids, pair, new):
    return [i for i in merge(ids, pair, new) if i == new]


check.add(
    "merge",
    exact_exercise(
        merge,
        [
            ([5, 6, 7, 5, 6, 7], (5, 6), 256),
            ([7, 5, 6], (5, 6), 256),
            ([6, 5, 5, 6, 6], (5, 6), 256),
            ([97, 97, 97], (97, 97), 300),
            ([97, 97, 97, 97, 98, 97, 97], (97, 97), 300),
            ([11, 2, 1, 22, 1, 2, 33], (1, 2), 9),
            ([8], (8, 8), 256),
            ((5, 6, 256, 5, 256, 6, 5), (256, 5), 257),
        ],
        with_pairs(
            _merge,
            {
                "The second id of the pair is still there after the new one. "
                "Behind a pair, go on two places, not one. (In a `for` loop, `i += 1` does not change "
                "the next round. Take `while`.)": {"step": 1},
                "The pair in reverse order is merged, too. Only a left and b right is the pair (a, b).": {
                    "is_here": lambda a, b, pair: (a, b) in (pair, pair[::-1])
                },
                "It is enough for you if one of the two ids is right. Both must be: `and`.": {
                    "is_here": lambda a, b, pair: a == pair[0] or b == pair[1]
                },
                "It is enough for you if the first of the two ids is right. Look at the second as well.": {
                    "is_here": lambda a, b, pair: a == pair[0]
                },
                "It is enough for you if the second of the two ids is right. Look at the first as well.": {
                    "is_here": lambda a, b, pair: b == pair[1]
                },
                "Two ids become two new ones, so nothing gets shorter. A pair becomes one new id.": {
                    "put": lambda new: [new, new]
                },
                "The pair disappears. Put the new id in its place.": {"put": lambda new: []},
                "Where there is no pair, you go on two places, so you see only every second pair.": {
                    "miss": 2
                },
                "The last pair is not looked at: `range(len(ids) - 2)` or the like stops too early.": {
                    "stop": 1
                },
                "The last id gets lost if it belongs to no pair. Nothing begins there, but keep it.": {
                    "at_end": False
                },
            },
        )
        | {
            "Only the first place is merged. Go on behind it.": _merge_first,
            "You merge from the right. In 97 97 97 the *left* two are the pair.": _merge_last_first,
            "The text `11 2` contains the text `1 2`. Compare ids, not their digits.": _merge_in_text,
            "Nothing is merged: the ids come back as they were. Is your condition ever true? "
            "(A list never equals a tuple.)": lambda ids, pair, new: list(ids),
            "It merges in a tuple of ids, but not in a list: a slice of a list is a list, and never equals a "
            "tuple. `tuple(ids[i : i + 2]) == pair`": lambda ids, pair, new: (
                merge(ids, pair, new) if isinstance(ids, tuple) else list(ids)
            ),
            "It merges in a list of ids, but not in a tuple, as the words of the exercises have them. "
            "`tuple(ids[i : i + 2]) == pair` is right for both.": lambda ids, pair, new: (
                merge(ids, pair, new) if isinstance(ids, list) else list(ids)
            ),
            "Only the new ids are there. Keep those that belong to no pair.": _only_merged,
            "The last id is there even if it was merged with the one before. "
            "Keep it only if it belongs to no pair.": _last_kept,
        },
        as_ids,
    ),
)


# --- learn ----------------------------------------------------------------------------------------


def learn(words, n_merges):
    texts = {bytes(ids).decode(): n for ids, n in words.items()}
    return {pair: 256 + i for i, pair in enumerate(bpe.learn(texts, n_merges, np.arange(256)))}


def by_rule(counts):
    """The pair that the rule chooses, or None."""
    return min(counts, key=lambda pair: (-counts[pair], pair), default=None)


def _learn(
    choose=by_rule,
    least=2,
    first=256,
    more=0,
    count=count_pairs,
    join=lambda ids, pair, new: merge(ids, pair, new),
    weight=lambda n: n,
):
    """`learn` with another choice, another end, other ids, or another way to count or to merge."""

    def wrong(words, n_merges):
        merges = {}
        for new in range(first, first + n_merges + more):
            counts = count(words)
            best = choose(counts)
            if best is None or counts[best] < least:
                break
            words = {tuple(join(ids, best, new)): weight(n) for ids, n in words.items()}
            merges[best] = new
        return merges

    return wrong


def _learn_from_first_counts(words, n_merges):
    counts = count_pairs(words)
    best = sorted((pair for pair in counts if counts[pair] > 1), key=lambda pair: (-counts[pair], pair))
    return {pair: 256 + i for i, pair in enumerate(best[:n_merges])}


def _learn_without_updating(words, n_merges):
    return {by_rule(count_pairs(words)): 255 + n_merges}


def word_ids(text):
    """{ids: how often} for the words of a text; each keeps the blank before it."""
    return {tuple(word.encode()): n for word, n in Counter(bpe.split_words(text)).items()}


READING = ({tuple("读书读书写书".encode()): 3, tuple(b"aaaa"): 2}, 8)
LEARNING = [
    ({tuple(b"abcab abd"): 1}, 1),
    ({tuple(b"low"): 5, tuple(b"lower"): 2, tuple(b"newest"): 6, tuple(b"widest"): 3}, 4),
    ({tuple(b"xyxz"): 2, tuple(b"ab"): 4, tuple(b"aab"): 1}, 10),
    ({tuple(b"cz"): 3, tuple(b"ay"): 3, tuple(b"bx"): 3, tuple(b"ax"): 3}, 2),
    (word_ids("the red hen and the ten men went; then the men went to the den again"), 12),
    READING,
]

NOTHING_LEFT = {
    "If each word is one token, no pair is left: there is nothing to choose from. Stop there, too.": _learn(
        lambda counts: max(counts, key=lambda pair: (counts[pair], -pair[0], -pair[1]))
    )
}

check.add(
    "learn",
    in_turn(
        exact_exercise(
            learn,
            LEARNING,
            with_pairs(
                _learn,
                {
                    "Several pairs may be equally frequent. Of those, the rule is to take the smallest ids; "
                    "you take the one that came first. "
                    "(`max(counts, key=lambda pair: (counts[pair], -pair[0], -pair[1]))`)": {
                        "choose": lambda counts: max(counts, key=counts.get, default=None)
                    },
                    "Of equally frequent pairs you take the one with the largest ids. Take the smallest.": {
                        "choose": lambda counts: max(
                            counts, key=lambda pair: (counts[pair], pair), default=None
                        )
                    },
                    "Of equally frequent pairs you take the smallest first id, but then the largest second "
                    "id. Take the smallest of both.": {
                        "choose": lambda counts: max(
                            counts, key=lambda pair: (counts[pair], -pair[0], pair[1]), default=None
                        )
                    },
                    "Of equally frequent pairs you compare only the first ids. If they are equal, too, "
                    "take the smallest second id.": {
                        "choose": lambda counts: max(
                            counts, key=lambda pair: (counts[pair], -pair[0]), default=None
                        )
                    },
                    "Of equally frequent pairs you compare the second ids first. Compare the first ids, "
                    "and then the second.": {
                        "choose": lambda counts: max(
                            counts, key=lambda pair: (counts[pair], -pair[1], -pair[0]), default=None
                        )
                    },
                    "You merge the *rarest* pair. Take the most frequent.": {
                        "choose": lambda counts: min(
                            counts, key=lambda pair: (counts[pair], pair), default=None
                        )
                    },
                    "It goes on until no pair is left. A pair that occurs once saves nothing: "
                    "stop when the best pair has fewer than 2.": {"least": 1},
                    "It stops too early: a pair that occurs twice is still merged.": {"least": 3},
                    "The new ids begin at 257. The bytes have 0 to 255, so the first new id is 256.": {
                        "first": 257
                    },
                    "The new ids begin at 255, but that is a byte. The first new id is 256.": {"first": 255},
                    "The new ids begin at 0, but those are bytes. The first new id is 256.": {"first": 0},
                    "One merge too many: there should be n_merges.": {"more": 1},
                    "One merge too few: there should be n_merges.": {"more": -1},
                    "From the second round on, every word counts once. Hand its n on to the merged word.": {
                        "weight": lambda n: 1
                    },
                    "You always count each word once, however often it occurs.": {
                        "count": lambda words: count_pairs(dict.fromkeys(words, 1))
                    },
                },
            )
            | {
                "All pairs come from the first count. Each merge makes new pairs, and breaks old ones: "
                "count again after each.": _learn_from_first_counts,
                "The words stay as they were, so the same pair wins every time. "
                "Merge it in all words, then count again.": _learn_without_updating,
            },
            as_pairs("new id"),
        ),
        exact_exercise(learn, [({tuple(b"ab"): 3}, 5)], NOTHING_LEFT, as_pairs("new id")),
    ),
)


# --- encode ---------------------------------------------------------------------------------------


def encode(ids, merges):
    ids = list(ids)
    while True:
        known = [pair for pair in zip(ids, ids[1:], strict=False) if pair in merges]
        if not known:
            return ids
        first = min(known, key=merges.get)
        ids = merge(ids, first, merges[first])


def _encode(choose=lambda known, merges: min(known, key=merges.get), join=merge, rounds=None):
    """`encode` that chooses another of the pairs that are there, merges otherwise, or stops early."""

    def wrong(ids, merges):
        ids, n = list(ids), 0
        while n != rounds:
            known = [pair for pair in zip(ids, ids[1:], strict=False) if pair in merges]
            if not known:
                break
            pair = choose(known, merges)
            ids, n = join(ids, pair, merges[pair]), n + 1
        return ids

    return wrong


def pieces_of(merges):
    """{id: its bytes} of a vocabulary."""
    pieces = {i: bytes([i]) for i in range(256)}
    for (a, b), new in merges.items():
        pieces[new] = pieces[a] + pieces[b]
    return pieces


def longest_first(merges):
    """Another way to cut a word, a function of its ids: from the left, always the longest token that fits."""
    token = {piece: i for i, piece in pieces_of(merges).items()}

    def cut(ids):
        text, tokens = bytes(ids), []
        while text:
            length = next(n for n in range(len(text), 0, -1) if text[:n] in token)
            tokens.append(token[text[:length]])
            text = text[length:]
        return tokens

    return cut


def _one_walk(ids, merges):
    """Merges what it can, once from left to right."""
    merged, i = [], 0
    while i < len(ids):
        pair = tuple(ids[i : i + 2])
        merged.append(merges.get(pair, ids[i]))
        i += 2 if pair in merges else 1
    return merged


def _growing(ids, merges):
    """From left to right: each id is merged with the end of what is there already, if it can be."""
    done = []
    for i in ids:
        while done and (done[-1], i) in merges:
            i = merges[done.pop(), i]
        done.append(i)
    return done


def _backwards(ids, merges):
    for pair, new in reversed(merges.items()):
        ids = merge(ids, pair, new)
    return list(ids)


def _min_of_none(ids, merges):
    return [min(())]


def _most_frequent(known, merges):
    return max(known, key=known.count)


# a b c d as 97 98 99 100
CHAIN = {(98, 99): 256, (97, 98): 257, (99, 100): 258, (97, 256): 259, (257, 258): 260}
DOUBLES = {(97, 97): 256, (256, 256): 257, (98, 97): 258, (256, 97): 259}
IN_A_ROW = {(97, 98): 256, (98, 99): 257, (99, 100): 258}
CROSSED = {(120, 121): 256, (99, 100): 257, (256, 257): 258, (97, 98): 259, (121, 99): 260, (259, 258): 261}
LEARNT = learn(*LEARNING[4])

ENCODING = [
    (list(b"abc"), CHAIN),
    (list(b"xyz"), CHAIN),
    (list(b"cdab"), CHAIN),
    (list(b"abcdabd"), CHAIN),
    (list(b"aaaaabaa"), DOUBLES),
    (list(b"abcbcd"), IN_A_ROW),
    (list(b"abxycd"), CROSSED),
    (list(b"xycdxyab"), CROSSED),
    (list(b"xyc"), CROSSED),
    ([104], LEARNT),
    (list(b" then"), LEARNT),
    (list(b" tenth"), LEARNT),
    (list(b"henthe"), LEARNT),
]


class _Watched(dict):
    """Merges that notice when somebody goes through all of them."""

    walked = False

    def _walk(self, walk):
        _Watched.walked = True
        return walk()

    def __iter__(self):
        return self._walk(super().__iter__)

    def items(self):
        return self._walk(super().items)

    def keys(self):
        return self._walk(super().keys)

    def values(self):
        return self._walk(super().values)


def _advise_encoding(answer):
    _Watched.walked = False
    answer(list(b"xyz"), _Watched(CHAIN))
    if _Watched.walked:
        return (
            "it goes through all merges for every word, and GPT-2 has 50,000. Faster: look only at the "
            "pairs that are there, and merge the one with the smallest new id."
        )
    return ""


check.add(
    "encode",
    exact_exercise(
        encode,
        ENCODING,
        with_pairs(
            _encode,
            {
                "You merge the *latest* of the merges that fit. The first learnt comes first: "
                "the smallest new id.": {"choose": lambda known, merges: max(known, key=merges.get)},
                "You take the leftmost pair that can be merged. "
                "Of all that can, take the one that was learnt first, wherever it stands.": {
                    "choose": lambda known, merges: known[0]
                },
                "You take the rightmost pair that can be merged. "
                "Of all that can, take the one that was learnt first, wherever it stands.": {
                    "choose": lambda known, merges: known[-1]
                },
                "You take the pair with the smallest ids. The merge that was learnt first has the smallest "
                "*new* id: `merges[pair]`.": {"choose": lambda known, merges: min(known)},
                "You take the pair that is most frequent in this word. That counts in learning. "
                "Here the order of the merges decides.": {"choose": _most_frequent},
                "It stops after one merge. Repeat until no pair can be merged.": {"rounds": 1},
            },
        )
        | {
            "You take the longest token that fits, from the left. Apply the merges in the order of learning: "
            "that can give other tokens.": lambda ids, merges: longest_first(merges)(ids),
            "You go once from left to right. A merged pair can be part of another pair, and an earlier merge "
            "may come later in the word: repeat, the first learnt first.": _one_walk,
            "You merge what can be merged furthest to the left, again and again. "
            "Of all pairs that can, take the one that was learnt first, wherever it stands.": _growing,
            "You go through the merges from the last to the first. Begin with the first.": _backwards,
            "If no pair can be merged, `min` has nothing to choose from. Then return.": _min_of_none,
            "Nothing is merged: these are the bytes.": lambda ids, merges: list(ids),
        },
        as_ids,
        advise=_advise_encoding,
    ),
)


# --- decode ---------------------------------------------------------------------------------------


def decode(ids, merges):
    pieces = pieces_of(merges)
    return b"".join(pieces[i] for i in ids).decode("utf-8", errors="replace")


def _decode(
    pieces=pieces_of, text=lambda pieces: b"".join(pieces).decode("utf-8", "replace"), order=lambda ids: ids
):
    """`decode` with other pieces, another way to make a text of them, or another order."""

    def wrong(ids, merges):
        known = pieces(merges)
        return text([known[i] for i in order(ids)])

    return wrong


def _swapped_pieces(merges):
    pieces = pieces_of({})
    for (a, b), new in merges.items():
        pieces[new] = pieces[b] + pieces[a]
    return pieces


def _text_pieces(merges):
    """Pieces as texts, each byte a character: chr(65) is A, but chr(228) is no part of UTF-8."""
    return {i: piece.decode("latin-1").encode() for i, piece in pieces_of(merges).items()}


_each = lambda errors: lambda pieces: "".join(piece.decode("utf-8", errors) for piece in pieces)
_all = lambda errors: lambda pieces: b"".join(pieces).decode("utf-8", errors)
CUT = {(228, 189): 256, (256, 160): 257, (104, 105): 258, (258, 33): 259}  # 你 from two merges; hi!

check.add(
    "decode",
    exact_exercise(
        decode,
        [
            ([104, 259, 105, 33, 258], CUT),
            ([257, 228, 189, 160], CUT),
            ([104, 228, 189, 160], CUT),
            ([258, 256, 33], CUT),
            ([], CUT),
            (encode(list("读书，写书。".encode()), learn(*READING)), learn(*READING)),
        ],
        with_pairs(
            _decode,
            {
                "You decode each token by itself. One token may be a part of a character only: "
                "join the bytes of all tokens first, then decode once.": {"text": _each("replace")},
                "You decode each token by itself. Half a character, which a token may be, is then an error: "
                "join the bytes of all tokens first, then decode once.": {"text": _each("strict")},
                "Half a character vanishes without a trace: you ignore the errors. "
                "`errors='replace'` puts a � there.": {"text": _all("ignore")},
                "Half a character is an error here. A model can stop in the middle of one: "
                "`errors='replace'` puts a � there.": {"text": _all("strict")},
                "You decode each token by itself, and ignore what is no whole character. "
                "Join the bytes of all tokens first.": {"text": _each("ignore")},
                "Each byte became a character of its own. A character of UTF-8 may have up to four bytes: "
                "join the bytes, then `.decode('utf-8', ...)`.": {"pieces": _text_pieces},
                "That is how Python *shows* bytes, with b and quotes. "
                "Make a text of them by `.decode(...)`.": {"text": lambda pieces: str(b"".join(pieces))},
                "The tokens stand apart. Nothing comes between them: a token has its own blank.": {
                    "text": lambda pieces: b" ".join(pieces).decode("utf-8", "replace")
                },
                "ASCII knows 128 characters. These bytes are UTF-8.": {
                    "text": lambda pieces: b"".join(pieces).decode("ascii", "replace")
                },
                "In each piece the halves are swapped: first the bytes of a, then those of b.": {
                    "pieces": _swapped_pieces
                },
                "The text is backwards: keep the order of the ids.": {"order": lambda ids: ids[::-1]},
            },
        ),
        as_text,
    ),
)


# --- bits_per_byte --------------------------------------------------------------------------------


def bits_per_byte(surprises, text):
    return np.sum(surprises) / np.log(2) / len(text.encode())


def _bits(total=np.sum, unit=lambda nats: nats / np.log(2), length=lambda text: len(text.encode())):
    return lambda surprises, text: unit(total(surprises)) / length(text)


check.add(
    "bits_per_byte",
    Exercise(
        bits_per_byte,
        [
            (np.array([0.9, 2.3, 1.1]), "tokens"),
            (np.array([3.0, 0.2, 4.1, 0.7]), "你好 means hello"),
            (np.array([5.5]), "é"),
            (np.array([1.5, 2.5, 0.5, 3.5, 0.25]), "to be, or not"),
        ],
        with_pairs(
            _bits,
            {
                "You divide by the number of characters. 你 has three bytes: `len(text.encode())`.": {
                    "length": len
                },
                "You take the mean over the tokens. Add up all surprises, and divide by the bytes of the "
                "text. Otherwise it matters how the text was cut.": {"total": np.mean},
                "These are nats. One bit is ln 2 nats: divide by `np.log(2)`.": {"unit": lambda nats: nats},
                "You multiply by ln 2. One bit is ln 2 nats, so there are more bits than nats: divide.": {
                    "unit": lambda nats: nats * np.log(2)
                },
                "You take the logarithm of the surprises. They are logarithms already; "
                "to change their base, divide by `np.log(2)`.": {"unit": np.log2},
                "A byte has 8 bits, but that plays no part here: "
                "the question is how many bits the *model* needs for each byte.": {
                    "unit": lambda nats: nats / np.log(2) / 8
                },
            },
        )
        | {
            "You divide by the number of tokens. Divide by the number of bytes of the text: "
            "`len(text.encode())`.": lambda surprises, text: surprises.mean() / np.log(2),
            "That is the mean surprise of a token, in nats. A token can stand for one byte or for ten: "
            "add up, and divide by the bytes.": lambda surprises, text: surprises.mean(),
            "These are all the bits of the text. Divide by its bytes.": lambda surprises, text: (
                surprises.sum() / np.log(2)
            ),
            "It is upside down: bits for each byte, not bytes for each bit.": lambda surprises, text: (
                1 / bits_per_byte(surprises, text)
            ),
        },
    ),
)


# --- whole texts ----------------------------------------------------------------------------------


def encode_all(text, merges, split=bpe.split_words):
    """The ids of a text as an array: what `encode` gives word by word, by the library, and much faster."""
    ranked = {pair: (new, new) for pair, new in merges.items()}
    return bpe.apply(list(split(text)), ranked, np.arange(256))


def encode_words(text, way):
    """The ids of a text as an array; way: from the bytes of a word to its ids."""
    words = list(bpe.split_words(text))
    known = {word: way(list(word.encode())) for word in set(words)}
    return np.array([i for word in words for i in known[word]])


# --- a bigram of tokens ---------------------------------------------------------------------------


def bigram_surprises(train, ids, vocab_size, prior=5.0):
    """How much each id after the first surprises a model that has counted the pairs of `train`, in nats.

    A pair that is new gets a little probability from how often its second token occurs at all: as if each
    token had been seen `prior` times more, with followers as they are on average.
    """
    alone = (np.bincount(train, minlength=vocab_size) + 1.0) / (len(train) + vocab_size)
    keys = lambda ids: ids[:-1].astype(np.int64) * vocab_size + ids[1:]
    pairs, counts = np.unique(keys(train), return_counts=True)
    place = np.minimum(np.searchsorted(pairs, keys(ids)), len(pairs) - 1)
    together = np.where(pairs[place] == keys(ids), counts[place], 0)
    before = np.bincount(train[:-1], minlength=vocab_size)[ids[:-1]]
    return -np.log((together + prior * alone[ids[1:]]) / (before + prior))


# --- pictures -------------------------------------------------------------------------------------


def visible(piece):
    """The bytes of a token as a text to draw: signs for blanks and line breaks, half a character in hex."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return " ".join(f"{byte:02x}" for byte in piece)
    return text.replace(" ", "␣").replace("\n", "↵").replace("$", r"\$")


def _box(axes, x, y, width, text, color, fill="w", size=9, height=0.8):
    axes.bar(x, height, width, y, align="edge", facecolor=fill, edgecolor=color, lw=1)
    style = {"ha": "center", "va": "center_baseline", "family": "monospace", "fontsize": size}
    axes.text(x + width / 2, y + height / 2, text, color="k", **style)


def plot_bytes(text):
    """The characters of a text, below them their bytes; the bits that say which byte of how many it is."""
    figure, axes = panels(width=0.95 * len(text.encode()), height=2.0)
    x = 0
    for character in text:
        encoded = character.encode()
        _box(axes, x + 0.04, 2.1, len(encoded) - 0.08, visible(encoded), BLUE, "#e3eefa", 13)
        for i, byte in enumerate(encoded):
            bits, n = f"{byte:08b}", 2 if i else len(encoded) + 1 if len(encoded) > 1 else 1
            _box(axes, x + i + 0.04, 1.1, 0.92, f"{byte}", GREY, size=10)
            style = {"va": "center", "family": "monospace", "fontsize": 9}
            axes.text(
                x + i + 0.5, 0.6, bits[:n] + " " * (8 - n), color=RED, ha="center", weight="bold", **style
            )
            axes.text(x + i + 0.5, 0.6, " " * n + bits[n:], color="k", ha="center", **style)
        x += len(encoded)
    for y, name in ((2.5, "characters"), (1.5, "bytes"), (0.6, "bits")):
        axes.text(-0.15, y, name, ha="right", va="center", color=GREY)
    axes.set(xlim=(-1.1, x), ylim=(0.2, 3.0))
    axes.axis("off")
    return Picture(figure, f"the {x} bytes of the {len(text)} characters of {text!r}")


def plot_merging(text, merges):
    """The tokens of one text after each of these merges, as wide as their bytes; the newest in colour."""
    ids, pieces, n_bytes = list(text.encode()), pieces_of(merges), len(text.encode())
    figure, axes = panels(width=10, height=0.34 * (len(merges) + 1))
    for row, (pair, new) in enumerate({None: None, **merges}.items()):
        ids, x = merge(ids, pair, new), 0
        for i in ids:
            fill = "#f6dcd9" if i == new else "#e3eefa" if i > 255 else "w"
            width = len(pieces[i])
            _box(axes, x + 0.06, -row, width - 0.12, visible(pieces[i]), RED if i == new else GREY, fill)
            x += width
        label = f"{new}: {visible(pieces[pair[0]])} + {visible(pieces[pair[1]])}" if pair else "bytes"
        style = {"va": "center", "fontsize": 9}
        axes.text(-0.5, -row + 0.4, label, ha="right", color=GREY, **style)
        axes.text(n_bytes + 0.5, -row + 0.4, f"{len(ids)} tokens", color=BLUE, **style)
    axes.set(xlim=(-0.2 * n_bytes, 1.13 * n_bytes), ylim=(-len(merges) - 0.1, 0.9))
    axes.axis("off")
    return Picture(figure, f"from {n_bytes} bytes to {len(ids)} tokens in {len(merges)} merges")


def plot_tree(tokens, merges):
    """Which merges made these tokens: bytes below, each merge with its id above what it joins."""
    pieces, parts = pieces_of(merges), {new: pair for pair, new in merges.items()}
    depth = lambda token: 1 + max(map(depth, parts[token])) if token in parts else 0
    leaves = sum(len(pieces[token]) for token in tokens) + len(tokens) - 1
    height = max(map(depth, tokens))
    figure, axes = panels(width=min(10.0, 0.62 * leaves), height=0.62 * (height + 1))

    def draw(token, x):
        """Draw the tree of a token whose first byte stands at x; returns its place."""
        if token not in parts:
            axes.text(x, 0, visible(pieces[token]), ha="center", va="center", family="monospace", fontsize=12)
            return x, 0
        a, b = parts[token]
        ends = [draw(a, x), draw(b, x + len(pieces[a]))]
        here = (ends[0][0] + ends[1][0]) / 2, depth(token)
        for end in ends:
            axes.plot([here[0], end[0]], [here[1], end[1] + 0.25 * (end[1] == 0)], color=GREY, lw=1, zorder=0)
        box = {"boxstyle": "round,pad=0.25", "fc": "#e3eefa", "ec": BLUE}
        text = f"{visible(pieces[token])}\n{token}"
        style = {"ha": "center", "va": "center", "family": "monospace", "fontsize": 8, "linespacing": 1.1}
        axes.text(*here, text, bbox=box, **style)
        return here

    x = 0
    for token in tokens:
        draw(token, x)
        x += len(pieces[token]) + 1
    axes.set(xlim=(-0.8, leaves - 0.2), ylim=(-0.4, height + 0.45))
    axes.axis("off")
    return Picture(figure, "the merges that made " + ", ".join(repr(pieces[token]) for token in tokens))


def plot_cuts(ways):
    """One word, cut in several ways: {name: pieces in order}."""
    n_bytes = max(sum(map(len, pieces)) for pieces in ways.values())
    figure, axes = panels(width=3.0 + 0.42 * n_bytes, height=0.45 * len(ways))
    for row, (name, pieces) in enumerate(ways.items()):
        x = 0
        for piece in pieces:
            _box(axes, x + 0.05, -row, len(piece) - 0.1, visible(piece), BLUE, "#e3eefa", 11)
            x += len(piece)
        axes.text(-0.3, -row + 0.4, name, ha="right", va="center", color=GREY)
    axes.set(xlim=(-7, n_bytes), ylim=(0.9 - len(ways), 0.9))
    axes.axis("off")
    return Picture(figure, "; ".join(f"{name}: {len(pieces)} tokens" for name, pieces in ways.items()))


def plot_sizes(sizes, bytes_per_token, rare, C, body):
    """What a vocabulary of each size gives and costs.

    bytes_per_token: of the text. rare: the share of the learnt tokens that hardly occur. C: channels; body:
    how many parameters the rest of the model has.
    """
    figure, axes = panels(3, width=10.5, height=3.0)
    axes[0].semilogx(sizes, bytes_per_token, "o-", color=BLUE, base=2)
    axes[0].set(title="gain: bytes in one token", ylim=(0, 1.1 * max(bytes_per_token)))
    axes[1].semilogx(sizes, np.array(sizes) * C / 1e6, "o-", color=RED, base=2)
    axes[1].axhline(body / 1e6, color=GREY, ls="--", lw=0.8)
    axes[1].text(sizes[0], body / 1e6, "all the rest of the model", color=GREY, fontsize=9, va="bottom")
    axes[1].set(title="cost: million numbers in the table", ylim=(0, 1.1 * sizes[-1] * C / 1e6))
    axes[2].semilogx(sizes, 100 * np.array(rare), "o-", color=GOLD, base=2)
    axes[2].set(title="% of new tokens seen < 20 times", ylim=(0, 100))
    for ax in axes:
        ax.set(xlabel="size of the vocabulary", xticks=sizes[::2])
        ax.set_xticklabels([f"{size:,}" for size in sizes[::2]])
        ax.minorticks_off()
    return Picture(figure, "what a larger vocabulary gives and costs")


def plot_two_losses(sizes, per_token, per_byte):
    """The same models, measured by the token and by the byte."""
    figure, axes = panels(2, width=9.5, height=3.0)
    axes[0].semilogx(sizes, per_token, "o-", color=RED, base=2)
    axes[0].set(title="loss in nats per token: ever worse?")
    axes[1].semilogx(sizes, per_byte, "o-", color=GREEN, base=2)
    best = int(np.argmin(per_byte))
    axes[1].plot(sizes[best], per_byte[best], "o", ms=12, mfc="none", mec=GREEN)
    axes[1].annotate("best", (sizes[best], per_byte[best]), (0, 12), textcoords="offset points", ha="center")
    axes[1].set(title="bits per byte: better, up to a point")
    for ax in axes:
        ax.set(xlabel="size of the vocabulary", xticks=sizes[::2])
        ax.set_xticklabels([f"{size:,}" for size in sizes[::2]])
        ax.minorticks_off()
    return Picture(figure, "loss per token and bits per byte of bigrams")
