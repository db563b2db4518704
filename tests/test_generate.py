"""Sampling: with and without the cache, and on known distributions."""

import itertools

import numpy as np
import pytest

from autograd import Stream, no_grad
from tinygpt.config import ARCHITECTURES, GPTConfig, UserError
from tinygpt.generate import KeyValueCache, choose_token, generate, next_logits
from tinygpt.model import GPT


def sharp_model(architecture="gpt2", **shape):
    """A model whose weights are large enough that its predictions depend on everything it reads."""
    shape = dict(vocab_size=23, block_size=16, n_layer=3, n_head=2, n_embd=32) | shape
    model = GPT(GPTConfig(**shape, **ARCHITECTURES[architecture]), seed=4)
    for p in model.parameters():
        p.data *= 8 if p.ndim == 2 else 1
    return model


@no_grad()
def without_cache(model, ids, n_tokens):
    """Logits and ids, computed from the whole window each time: the definition that the cache must agree with."""
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
    grown = list(start)
    with no_grad():
        for want, logits, token in zip(expected, next_logits(model, grown, "exact"), ids[prompt:], strict=False):
            np.testing.assert_allclose(logits, want, atol=1e-5)
            grown.append(token)


def test_halving_is_exact_until_the_context_is_full_and_goes_on_after():
    model = sharp_model()
    exact, halved = (list(generate(model, [1], 60, when_full=when)) for when in ("exact", "halve"))
    assert exact[:16] == halved[:16] and len(halved) == 60
    with pytest.raises(UserError, match="exact, halve"):
        next(generate(model, [1], 1, when_full="never"))


def test_halving_reads_between_half_and_all_of_the_context():
    """The logits are those of a window of the last n tokens, with n from half of the context to all of it."""
    model, ids = sharp_model(), [1]
    lengths = []
    with no_grad():
        for step, logits in zip(range(50), next_logits(model, ids, "halve"), strict=False):
            fits = [
                n
                for n in range(1, min(len(ids), 16) + 1)
                if np.allclose(model(np.array([ids[-n:]])).data[0, -1], logits, atol=1e-5)
            ]
            assert len(fits) == 1
            lengths += fits
            ids.append(choose_token(logits, 1.0, 0, Stream(1, step)))
    assert lengths[:16] == list(range(1, 17)) and set(lengths[16:]) == set(range(9, 17))


def test_the_cache_takes_text_in_pieces():
    model = sharp_model()
    ids = np.random.default_rng(0).integers(0, 23, (2, 12))
    with no_grad():
        expected = model.transformer(ids, None).data
        cache = KeyValueCache(model, rows=2)
        parts = [model.transformer.extend(ids[:, a:b], cache).data for a, b in itertools.pairwise((0, 5, 6, 12))]
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


def test_predictions_that_are_not_numbers():
    with pytest.raises(UserError, match="not numbers"):
        choose_token(np.array([0.0, np.nan]), 1.0, 0, Stream(0))


def test_seeds():
    model = sharp_model()
    a, b, c = (list(generate(model, [1], 20, seed=seed)) for seed in (1, 1, 2))
    assert a == b != c
