"""Sampling: with and without the cache, and on known distributions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import Stream, no_grad
from autograd.recording import is_recording
from tests.support.models import sharp_model
from tinygpt.config import ARCHITECTURES, UserError
from tinygpt.generate import (
    GrowingTexts,
    TextStream,
    choose_token,
    generate,
    generate_rows,
    probabilities,
    prompt_ids,
)
from tinygpt.model import KeyValueCache
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer, IdTokenizer


@no_grad()
def without_cache(model, ids, n_tokens):
    """Logits and ids, computed from the whole window each time. The cache must give the same."""
    ids, logits = list(ids), []
    for step in range(n_tokens):
        logits.append(model(np.array([ids[-model.config.block_size :]])).data[0, -1])
        ids.append(choose_token(logits[-1], 1.0, 0, Stream(0, step, 60_002)))
    return logits, ids


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("prompt", [1, 7, 16, 40])
def test_the_cache_changes_nothing(architecture, prompt):
    """Also beyond a full context, where the window slides."""
    model = sharp_model(architecture)
    start = np.random.default_rng(prompt).integers(0, 23, prompt).tolist()
    expected, ids = without_cache(model, start, 40)
    assert list(generate(model, start, 40)) == ids[prompt:]
    texts = GrowingTexts(model, [np.array([token]) for token in start])
    for want, token in zip(expected, ids[prompt:], strict=True):
        np.testing.assert_allclose(texts.next_logits()[0], want, atol=1e-5)
        texts.append(np.array([token]))


@pytest.mark.parametrize("when_full", ["exact", "halve"])
def test_rows_do_not_depend_on_each_other(when_full):
    """Several samples at once, past the end of the context: each is the same among fewer, and all differ."""
    model, options = sharp_model(), dict(temperature=1.5, seed=3, when_full=when_full)
    # (tokens, rows) -> (rows, tokens)
    four = np.array(list(generate_rows(model, [1, 2], 40, rows=4, **options))).T
    two = np.array(list(generate_rows(model, [1, 2], 40, rows=2, **options))).T
    np.testing.assert_array_equal(four[:2], two)
    np.testing.assert_array_equal(four[0], list(generate(model, [1, 2], 40, **options)))
    assert len({tuple(row) for row in four}) == 4
    columns = [np.full(4, 1), np.full(4, 2), *np.random.default_rng(0).integers(0, 23, (30, 4))]
    texts = GrowingTexts(model, columns[:2], when_full)
    for column in columns[2:]:
        logits = texts.next_logits()
        if when_full == "exact":
            window = np.stack(texts.columns[-16:], 1)
            np.testing.assert_allclose(logits, model(window).data[:, -1], atol=1e-5)
        texts.append(column)


def test_sampling_records_nothing():
    """No tape grows while a sample is read slowly, and the reader's own recording goes on."""
    model, recording = sharp_model(), []
    head, model.head = model.head, lambda x: recording.append(is_recording()) or head(x)
    tokens = generate(model, [1], 3)
    next(tokens)
    assert recording == [False] and is_recording()
    with no_grad():
        next(tokens)
        assert not is_recording()


def test_halving_is_exact_until_the_context_is_full_and_goes_on_after():
    model = sharp_model()
    exact, halved = (list(generate(model, [1], 60, when_full=when)) for when in ("exact", "halve"))
    assert exact[:16] == halved[:16] and len(halved) == 60
    with pytest.raises(UserError, match="exact, halve"):
        next(generate(model, [1], 1, when_full="never"))


def test_halving_reads_between_half_and_all_of_the_context():
    """The logits are those of a window of the last n tokens, with n from half of the context to all of it."""
    model = sharp_model()
    texts, lengths = GrowingTexts(model, [np.array([1])], "halve"), []
    for step in range(50):
        logits = texts.next_logits()
        longest = min(len(texts.columns), 16)
        windows = {n: np.stack(texts.columns[-n:], 1) for n in range(1, longest + 1)}
        fits = [
            n for n, window in windows.items() if np.allclose(model(window).data[:, -1], logits, atol=1e-5)
        ]
        assert len(fits) == 1
        lengths += fits
        texts.append(np.array([choose_token(logits[0], 1.0, 0, Stream(1, step))]))
    assert lengths[:16] == list(range(1, 17)) and set(lengths[16:]) == set(range(9, 17))


def test_the_cache_takes_text_in_pieces():
    model = sharp_model()
    ids = np.random.default_rng(0).integers(0, 23, (2, 12))
    with no_grad():
        expected = model.transformer(ids, None).data
        cache = KeyValueCache(model, rows=2)
        parts = [
            model.transformer.extend(ids[:, a:b], cache).data for a, b in itertools.pairwise((0, 5, 6, 12))
        ]
    np.testing.assert_allclose(np.concatenate(parts, 1), expected[:, [4, 5, 11]], atol=1e-5)


def frequencies(logits, n=20_000, **options):
    options = dict(temperature=1.0, top_k=0) | options
    drawn = [choose_token(np.array(logits), stream=Stream(3, step), **options) for step in range(n)]
    return np.bincount(drawn, minlength=len(logits)) / n


def test_tokens_follow_the_softmax():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    np.testing.assert_allclose(frequencies(np.log(p)), p, atol=0.012)
    np.testing.assert_allclose(frequencies(np.log(p), temperature=0.5), p**2 / (p**2).sum(), atol=0.012)
    np.testing.assert_allclose(frequencies(np.log(p), top_k=2), [0.625, 0.375, 0, 0], atol=0.012)
    np.testing.assert_allclose(frequencies(np.log(p), temperature=0), [1, 0, 0, 0])
    np.testing.assert_allclose(frequencies(np.log(p), top_k=1, temperature=3.0), [1, 0, 0, 0])
    assert np.isfinite(frequencies([1000.0, -1000.0], n=10)).all()


@pytest.mark.filterwarnings("error")
def test_options_compose_on_a_known_distribution():
    """Each option alone, then together: temperature first, then top-k, then top-p of what is left."""
    p = np.array([0.1, 0.4, 0.05, 0.25, 0.2])

    def shaped(**options):
        return probabilities(np.log(p) + 7, **options)

    np.testing.assert_allclose(shaped(), p)
    np.testing.assert_allclose(shaped(temperature=0.5), p**2 / (p**2).sum())
    np.testing.assert_allclose(shaped(top_k=2), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0])
    np.testing.assert_allclose(shaped(top_k=9), p)
    np.testing.assert_allclose(shaped(top_p=0.6), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0])
    np.testing.assert_allclose(shaped(top_p=0.66), [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85])
    np.testing.assert_allclose(shaped(top_p=1e-9), [0, 1, 0, 0, 0])
    # 0.4 is 0.62 of what two tokens have
    np.testing.assert_allclose(shaped(top_k=2, top_p=0.6), [0, 1, 0, 0, 0])
    # 0.04, 0.60, 0.01, 0.23, 0.13: with 0.9 three tokens, without the temperature four
    squared = p**2 / (p**2).sum()
    kept = np.where(squared > 0.1, squared, 0)
    np.testing.assert_allclose(shaped(temperature=0.5, top_p=0.9), kept / kept.sum())
    np.testing.assert_allclose(
        shaped(temperature=0.5, top_p=0.9, top_k=2), [0, 0.64 / 0.89, 0, 0.25 / 0.89, 0], atol=1e-12
    )
    np.testing.assert_allclose(
        frequencies(np.log(p), top_p=0.66, top_k=4), shaped(top_p=0.66, top_k=4), atol=0.012
    )
    for tiny in (1e-300, 1e-310, 5e-324):  # with the last two a division overflows
        np.testing.assert_array_equal(shaped(temperature=tiny), [0, 1, 0, 0, 0])
        np.testing.assert_array_equal(shaped(temperature=tiny, top_k=2, top_p=0.5), [0, 1, 0, 0, 0])
    for huge in (1e300, np.inf):
        np.testing.assert_allclose(shaped(temperature=huge), [0.2] * 5)
    np.testing.assert_allclose(probabilities(np.zeros(4), top_k=2), [0.25] * 4)  # equals stay together
    np.testing.assert_allclose(probabilities(np.zeros(4), top_p=0.5), [0.5, 0.5, 0, 0])


logits = st.lists(st.floats(-20, 20), min_size=1, max_size=30).map(np.array)


@given(logits, st.floats(0.05, 5), st.integers(0, 40), st.floats(0.01, 1))
@settings(max_examples=200)
def test_what_holds_for_any_distribution(logits, temperature, top_k, top_p):
    p = probabilities(logits, temperature, top_k, top_p)
    full = probabilities(logits, temperature)
    kept = p > 0
    assert p.sum() == pytest.approx(1) and full[kept].max() == full.max()
    np.testing.assert_allclose(p[kept], full[kept] / full[kept].sum(), rtol=1e-9)  # nothing else is changed
    if not kept.all() and full.min() > 0:
        assert full[~kept].max() <= full[kept].min()
    token = choose_token(logits, temperature, top_k, Stream(1), top_p)
    assert kept[token]


def test_tokens_beyond_the_tokenizer_are_left_out():
    model = sharp_model()
    tokens = list(generate(model, [1], 200, temperature=9.0, vocab_size=5))
    assert set(tokens) == set(range(5)) and max(generate(model, [1], 200, temperature=9.0)) > 5


@pytest.mark.parametrize("when_full", ["exact", "halve"])
def test_a_text_may_grow_without_end(when_full):
    """Only what the model can see is kept, of a long prompt too."""
    model = sharp_model()
    texts = GrowingTexts(model, [np.array([1])] * 100, when_full)
    for _ in range(60):
        texts.next_logits()
        assert len(texts.columns) <= model.config.block_size == 16
        texts.append(np.array([2]))
    assert len(list(generate(model, np.ones(100, int), 3))) == 3


def test_predictions_that_are_not_numbers():
    with pytest.raises(UserError, match="not numbers"):
        choose_token(np.array([0.0, np.nan]), 1.0, 0, Stream(0))


def test_seeds():
    model = sharp_model()
    a, b, c = (list(generate(model, [1], 20, seed=seed)) for seed in (1, 1, 2))
    assert a == b != c


# --- tokens to text -------------------------------------------------------------------------------

BYTES = BPETokenizer.learn("", 256)  # a token for each byte
EVERY = CharTokenizer("abcxyz \n中文字")


def streamed(tokenizer, ids, stops=()):
    """What a TextStream gives out for each token, and at the end."""
    stream = TextStream(tokenizer, stops)
    return [stream.feed(i) for i in ids] + [stream.finish()], stream.stopped


def test_half_a_character_is_never_shown():
    text = "a中é😀b"
    parts, _ = streamed(BYTES, BYTES.encode(text))
    assert parts == ["a", "", "", "中", "", "é", "", "", "", "😀", "b", ""]
    parts, _ = streamed(BYTES, BYTES.encode(text)[1:5])  # begins whole, ends broken
    assert parts == ["", "", "中", "", "\ufffd"]


@given(st.lists(st.integers(0, 255), max_size=40))
def test_streaming_shows_what_decoding_does(ids):
    parts, stopped = streamed(BYTES, ids)
    assert "".join(parts) == BYTES.decode(ids) and not stopped


def test_nothing_from_a_stop_text_on_is_shown():
    assert streamed(EVERY, EVERY.encode("abcabx"), ["abx"]) == (["", "", "abc", "", "", "", ""], True)
    assert streamed(EVERY, EVERY.encode("ab"), ["abx"]) == (["", "", "ab"], False)
    assert streamed(EVERY, EVERY.encode("aab中z"), ["中", "ab"]) == (["", "a", "", "", "", ""], True)
    assert streamed(BYTES, BYTES.encode("字中z"), ["中"]) == (["", "", "字", "", "", "", "", ""], True)


@given(st.text("ab中", max_size=30), st.lists(st.text("ab中", min_size=1, max_size=4), max_size=3))
@settings(max_examples=300)
def test_stopping_equals_cutting(text, stops):
    """What is shown ends just before the stop text that is complete first, and nothing is shown too early."""
    parts, stopped = streamed(BYTES, BYTES.encode(text), stops)
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    if not ends:
        assert "".join(parts) == text and not stopped
    else:
        longest = max(len(stop) for stop in stops if text[: ends[0]].endswith(stop))
        assert "".join(parts) == text[: ends[0] - longest] and stopped


def test_where_a_text_starts_without_a_prompt():
    assert prompt_ids(EVERY, "") == EVERY.encode("\n") and prompt_ids(CharTokenizer("ab"), "") == [0]
    assert prompt_ids(BYTES, "") == BYTES.encode("\n") and prompt_ids(IdTokenizer(9), " \n") == [0]
    assert prompt_ids(BPETokenizer([*BYTES.pieces, b"<|endoftext|>"], [], (256,)), "") == [256]
    assert prompt_ids(ENDING, "") == [22]
    assert prompt_ids(BYTES, "ab").tolist() == BYTES.encode("ab").tolist()


# --- the end of a text ----------------------------------------------------------------------------

ENDING = CharTokenizer("abcdefghijklmnopqrst \n", end=True)  # its id 22 ends a text


def test_a_text_ends_before_an_end_token():
    model, lengths = sharp_model(), set()
    for seed in range(8):
        options = dict(temperature=2.0, seed=seed)
        whole = list(generate(model, [1], 40, **options))
        for end_ids in ((22,), (3, 7), ()):
            end = min((whole.index(i) for i in end_ids if i in whole), default=40)
            assert list(generate(model, [1], 40, end_ids=end_ids, **options)) == whole[:end]
            lengths.add(end)
    assert len(lengths) > 5 and 40 in lengths


def test_nothing_is_computed_after_the_end():
    model, heads = sharp_model(), []
    [*_, last] = whole = list(generate(model, [1], 10, seed=5))
    head, model.head = model.head, lambda x: heads.append(1) or head(x)
    ended = list(generate(model, [1], 10**9, seed=5, end_ids=[last]))
    assert ended == whole[: whole.index(last)] and len(heads) == len(ended) + 1


def test_an_end_token_ends_what_is_shown():
    """It is not shown itself, and what was held back before it is: it is no start of a stop text any more."""

    def shown(ids, stops=(), end_ids=(22,)):
        stream = TextStream(ENDING, stops, end_ids)
        return [stream.feed(i) for i in ids] + [stream.finish()], stream.stopped

    a, b, c = 2, 3, 4
    assert ENDING.decode([a, b, c]) == "abc"
    assert shown([a, 22, b]) == (["a", "", "", ""], True)
    assert shown([a, b, 22, c], ["abc"]) == (["", "", "ab", "", ""], True)
    assert shown([a, b, c, 22], ["abc"]) == (["", "", "", "", ""], True)
    assert shown([22]) == (["", ""], True)
    assert shown([a, 22, b], end_ids=()) == (["a", "<|endoftext|>", "b", ""], False)
    half = BPETokenizer([*BYTES.pieces, b"<|endoftext|>"], [], (256,))
    stream = TextStream(half, end_ids=half.end_ids)
    assert [stream.feed(i) for i in (*half.encode("é")[:1], 256)] == ["", "\ufffd"]
