"""The records of attention: the operation, and its form for sampling."""

import warnings

import hypothesis.strategies as st
import numpy as np
import pytest

import autograd as ag
from autograd import Stream
from autograd.cuda import ops as gpu_forms
from autograd.ops import attention
from autograd.ops.attention import attend_to_cache
from tests.operations.checks import close, numbers, off_by_one, refused, same_on_gpu, tensors
from tests.operations.nn import results_of
from tests.operations.over_shapes import Call, seeds
from tests.operations.record import Bug, Case, Record, composition

DROPOUT = dict(dropout=0.4, stream=Stream(seed=5, step=2, site=7))
FAR_STREAM = Stream(3, step=4, site=5, row=6)


def attention_with(n_head, **options):
    return lambda qkv: ag.causal_attention(qkv, n_head, **options)


@st.composite
def attention_over_shapes(draw):
    b, t, heads, d = (draw(st.integers(1, most)) for most in (3, 9, 3, 3))
    seed, p = draw(seeds), draw(st.sampled_from([0.0, 0.25]))
    function = attention_with(heads, dropout=p, stream=Stream(seed))
    return Call(function, tensors((b, t, 3 * heads * d), seed=seed))


# --- from primitives ------------------------------------------------------------------------------


def of_length(T, **options):
    """Both forms of attention over T positions."""
    return composition(ag.causal_attention, [(2, T, 12)], seed=T, n_head=2, **options)


# --- under everyday use ---------------------------------------------------------------------------


def everything_is_dropped():
    (qkv,) = tensors((2, 4, 12))
    results = results_of(attention_with(2, dropout=1.0, stream=Stream(3)), qkv)
    assert not any(array.any() for array in results)  # NaN counts as any


def huge_scores():
    """Every query takes one key. A bound of the scores in float32 would overflow, with a warning."""
    (qkv,) = tensors((1, 3, 6))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for size in (1e3, 3e18, 1e19):
            single, double = (
                ag.causal_attention((qkv * size).astype(dtype), 1, scale=1e-3) / size
                for dtype in (np.float32, np.float64)
            )
            np.testing.assert_allclose(single.data, double.data, rtol=1e-4, atol=1e-6)
    assert not warned


def impossible_heads_are_refused():
    (qkv,) = tensors((2, 4, 12))
    for n_head in (0, -1, 3, 8):
        message = f"wanted (B, T, 3C) with C divisible by {n_head} heads, got (2, 4, 12)"
        refused(ValueError, message, ag.causal_attention, qkv, n_head)
    refused(ValueError, "got (4, 12)", ag.causal_attention, qkv[0], 2)
    refused(TypeError, "n_head is 2.0; it must be an integer", ag.causal_attention, qkv, 2.0)
    refused(TypeError, "draws from a Stream", ag.causal_attention, qkv, 2, dropout=0.5)
    refused(ValueError, "must be a number from 0 to 1", ag.causal_attention, qkv, 2, dropout=1.5)
    refused(ValueError, "it is rounded", ag.causal_attention, qkv, 2, dropout=1e-3, stream=Stream(3))


# --- for sampling ---------------------------------------------------------------------------------


def attention_to_a_cache_equals_that_over_everything():
    """Position after position, or several at once, as over the whole sequence."""
    (qkv,) = tensors((2, 9, 12))
    keys, values = np.zeros((2, 2, 2, 9, 2))  # (B, H, T, D) each
    expected = ag.causal_attention(qkv, 2).data
    other = ag.causal_attention(qkv, 2, scale=0.9).data
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        new = qkv.data[:, start:stop]
        found = attend_to_cache(new, 2, keys, values, start)
        np.testing.assert_allclose(found, expected[:, start:stop], rtol=1e-12, atol=1e-12)
        found = attend_to_cache(new, 2, keys, values, start, scale=0.9)
        np.testing.assert_allclose(found, other[:, start:stop], rtol=1e-12, atol=1e-12)


# --- the kernels ----------------------------------------------------------------------------------


def attention_kernels(cupy):
    for T, n_head, D, p in (
        (1, 1, 1, 0.0),
        (5, 2, 3, 0.3),
        (33, 3, 4, 0.0),
        (40, 1, 8, 0.25),
        (64, 2, 2, 0.2),
        (37, 1, 2, 0.9),
        (9, 1, 2, 0.002),  # of the rates above 0 the one nearest to it
        (9, 1, 2, 1.0),
    ):
        run = attention_with(n_head, dropout=p, stream=Stream(3, step=2, site=5, row=1))
        same_on_gpu(cupy, run, numbers(2, T, 3 * n_head * D))
    same_on_gpu(cupy, attention_with(1), numbers(2, 9, 12), place=off_by_one)


def attention_kernels_in_blocks(cupy):
    """Of 32 queries; the last block has fewer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_forms, "GPU_SCORES_AT_ONCE", 1)
        for T, n_head, D, p in ((67, 2, 3, 0.3), (100, 1, 4, 0.25), (64, 1, 1, 0.0)):
            run = attention_with(n_head, dropout=p, stream=Stream(3, step=2, site=5, row=1))
            same_on_gpu(cupy, run, numbers(2, T, 3 * n_head * D))


def attention_kernels_over_many_keys(cupy):
    """More keys than the 1,024 for which the lanes of a warp draw at once."""
    qkv = numbers(1, 1060, 3)
    qkv[0, 100, :2] = 30  # a score of 900: the exponential needs the row's maximum taken off
    same_on_gpu(cupy, attention_with(1, dropout=0.2, stream=Stream(3)), qkv, rtol=2e-4)


def attention_kernels_with_a_past(cupy):
    B, H, D, T = 2, 3, 4, 9
    for start, t, last_only in ((0, 5, False), (5, 1, False), (3, 4, True)):
        past, qkv = numbers(2, B, H, T, D, seed=5), numbers(B, t, 3 * H * D)
        keys, values = past.astype(np.float64)
        expected = attend_to_cache(qkv.astype(np.float64), H, keys, values, start, last_only)
        on_device = [cupy.asarray(x) for x in past]
        close(attend_to_cache(cupy.asarray(qkv), H, *on_device, start, last_only), expected)
        close(on_device[0], keys)


RECORDS = [
    Record(
        ag.causal_attention,
        cases={
            "causal_attention": Case(attention_with(2), [(2, 4, 12)]),
            "causal_attention_blocks": Case(attention_with(1), [(1, 150, 6)]),
            "causal_attention_dropout": Case(attention_with(2, **DROPOUT), [(2, 4, 12)]),
            "causal_attention_steep": Case(attention_with(1, scale=60.0), [(1, 4, 6)]),
        },
        over_shapes=attention_over_shapes(),
        composed={
            f"attention over {T} positions, scale {scale}": of_length(T, scale=scale)
            for T in (1, 5, 64, 129, 300)
            for scale in (None, 0.3, 40.0)
        }
        | {
            f"attention with dropout over {T} positions": of_length(T, dropout=0.3, stream=FAR_STREAM)
            for T in (5, 200)
        },
        bugs=[
            Bug(
                "attention: the keys' gradient without the scale",
                right="(q[:, :, start:stop] * scale)",
                wrong="q[:, :, start:stop]",
            ),
            Bug("attention: softmax's normalisation held constant", "ds -= delta", "pass"),
            Bug(
                "attention: dropout forgotten in the pullback",
                right="_dropped(dy @ v_t[..., :stop], kept)",
                wrong="dy @ v_t[..., :stop]",
                caught_by="causal_attention_dropout",
            ),
            Bug(
                "attention: only the last block's queries reach the keys",
                right="dk_sum[:, :, :stop] += ",
                wrong="dk_sum[:, :, :stop] = ",
                caught_by="causal_attention_blocks",
            ),
            Bug(
                "attention: a query sees the key after it",
                right="-xp.inf, dtype), 1)",
                wrong="-xp.inf, dtype), 2)",
                caught_by="attention over 5 positions, scale None",
                inside=attention._future,
            ),
            Bug(
                "attention: scores are divided by D, not by its root",
                right="(C // n_head) ** -0.5",
                wrong="(C // n_head) ** -1.0",
                caught_by="attention over 5 positions, scale None",
            ),
        ],
        checks=[everything_is_dropped, huge_scores, impossible_heads_are_refused],
        kernel_checks=[attention_kernels, attention_kernels_in_blocks, attention_kernels_over_many_keys],
        kernel_bugs=[
            Bug("heads and positions change places", "* H + h) * T + t) * D", "* T + t) * H + h) * D"),
            Bug("keys are scaled as well as queries", "part_number == 0 ?", "part_number <= 1 ?"),
            Bug("a query sees the key after it", "query + 1};", "query + 2};"),
            Bug("a query does not see itself", "query + 1};", "query};"),
            Bug(
                "the row's maximum is not taken off",
                right="expf(part(x, i) - sum.largest) * factor",
                wrong="expf(part(x, i)) * factor",
                caught_by="attention_kernels_over_many_keys",
            ),
            Bug("the weights' derivative without delta", "* scale - delta)", "* scale)"),
            Bug("delta of a warp's first lane alone", "    delta = warp_sum(delta);\n", "    "),
            Bug(
                "delta from another position",
                right="row.b * block.T + row.query) * block.H",
                wrong="row.b * block.T + row.query - block.first) * block.H",
                caught_by="attention_kernels_in_blocks",
            ),
            Bug(
                "a block's rows are kept where those of the first belong",
                right="softmax[row.head * block.T + row.query] = ",
                wrong="softmax[row.head * block.T + row.query - block.first] = ",
                caught_by="attention_kernels_in_blocks",
            ),
            Bug(
                "dropout's mask is that of the first block",
                right="block.H * block.T + query) * block.T",
                wrong="block.H * block.T + query - block.first) * block.T",
                caught_by="attention_kernels_in_blocks",
            ),
            Bug("the rows of a warp draw the same bits", "        index += lane / lanes;\n", ""),
            Bug(
                "four weights in a row are dropped by one bit",
                right="j + i < row.length && keep >> i & 1;",
                wrong="j + i < row.length && keep & 1;",
                caught_by="attention_kernels_in_blocks",
            ),
            Bug(
                "of four keys all are seen if the first is",
                right="float weight = j + i < row.length ?",
                wrong="float weight = j < row.length ?",
                caught_by="attention_kernels_in_blocks",
            ),
            Bug(
                "only the first 1,024 keys draw",
                right="row.start / 32 + first_group + lane % lanes",
                wrong="row.start / 32 + lane % lanes",
                caught_by="attention_kernels_over_many_keys",
            ),
        ],
    ),
    Record(
        attention.check_attention,
        bugs=[
            Bug(
                "attention: no heads are found out by a division",
                right="n_head < 1 or ",
                wrong="",
                caught_by="impossible_heads_are_refused",
            ),
            Bug(
                "attention: dropout is not checked",
                right="check_dropout(dropout, stream)",
                wrong="pass",
                caught_by="impossible_heads_are_refused",
            ),
        ],
    ),
    Record(
        attention._score_bound,
        bugs=[
            Bug(
                "attention: the bound of the scores overflows",
                right="longest_q * longest_k",
                wrong="np.float32(longest_q**2) * np.float32(longest_k**2)",
                caught_by="huge_scores",
            ),
        ],
    ),
    Record(
        attention.attend,
        checks=[attention_to_a_cache_equals_that_over_everything],
        bugs=[
            Bug(
                "attention to a cache: the past is forgotten",
                right="past = k.shape[2] - q.shape[2]",
                wrong="past = 0",
                inside=attention._attend_in_blocks,
            ),
        ],
        kernel_checks=[attention_kernels_with_a_past],
        kernel_bugs=[
            Bug("the past is forgotten", "query = block.first + index % block.t", "query = index % block.t")
        ],
    ),
]
