"""The records of the operations of a GPT, except for attention."""

import warnings

import hypothesis.strategies as st
import numpy as np
import pytest

import autograd as ag
from autograd import Stream, Tensor, random
from autograd.cuda import ops as gpu_forms
from autograd.ops import nn
from autograd.step import compositions
from tests.operations.checks import close, numbers, off_by_one, on_gpu, refused, same_on_gpu, tensors
from tests.operations.over_shapes import Call, seeds, unary
from tests.operations.record import Bug, Case, Composition, Record, composition

IDS = np.array([[1, 0, 1], [1, 2, 1]])
TARGETS = np.array([[0, 3, -1], [2, 2, 1]])  # -1 is ignored
STREAM = Stream(seed=5, step=2, site=7)


# --- on random shapes -----------------------------------------------------------------------------


@st.composite
def layer_norm_over_shapes(draw):
    n, c = draw(st.integers(0, 4)), draw(st.integers(2, 6))
    return Call(ag.layer_norm, tensors((n, 2, c), (c,), (c,), seed=draw(seeds)))


@st.composite
def cross_entropy_over_shapes(draw):
    n, v, seed = draw(st.integers(1, 6)), draw(st.integers(1, 5)), draw(seeds)
    targets = np.random.default_rng(seed).integers(0, v, n)
    return Call(lambda x: ag.cross_entropy(x, targets), tensors((n, v), seed=seed))


@st.composite
def embedding_over_shapes(draw):
    n, v, seed = draw(st.integers(1, 6)), draw(st.integers(1, 5)), draw(seeds)
    ids = np.random.default_rng(seed).integers(0, v, n)
    return Call(lambda w: ag.embedding(w, ids), tensors((v, 3), seed=seed))


# --- with options ---------------------------------------------------------------------------------


def dropout(x):
    return ag.dropout(x, 0.4, STREAM)


def residual_linear(x, h, weight, bias=None):
    return ag.residual_linear(x, h, weight, bias, p=0.4, stream=STREAM)


def cross_entropy(x):
    return ag.cross_entropy(x, TARGETS, ignore_index=-1)


def linear_cross_entropy(x, w, b):
    return ag.linear_cross_entropy(x, w, b, TARGETS, ignore_index=-1)


# --- from primitives ------------------------------------------------------------------------------

MANY_TARGETS = np.random.default_rng(0).integers(0, 7, (3, 200))
MANY_TARGETS[0, ::3] = -1


def tied_head(w, b):
    return w.T, None


def separate_head(w, b):
    return w.reshape(5, 7), b


def head_and_loss(head, logits_at_once):
    """linear_cross_entropy compared with its composition, for w (7, 5) and b (7)."""

    def with_head(loss):
        return lambda x, w, b: loss(x, *head(w, b), MANY_TARGETS, ignore_index=-1) * 3.0 + b.sum()

    def in_chunks(*inputs, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn, "LOGITS_AT_ONCE", logits_at_once)
            return ag.linear_cross_entropy(*inputs, **options)

    composed = with_head(compositions.linear_cross_entropy)
    return Composition(with_head(in_chunks), composed, [(3, 200, 5), (7, 5), (7,)])


# --- under everyday use ---------------------------------------------------------------------------


def far_rows():
    """(5, 768) in float32: two constant rows, two with noise far from 0, and one that is not far."""
    noise = numbers(5, 768)
    scale, mean = [[0], [0], [1], [1 / 64], [1]], [[100.1], [-16000.3], [16000.3], [-700], [2]]
    return (noise * scale + mean).astype(np.float32)


def results_of(function, *inputs):
    """[result, gradients ...] as arrays."""
    out = function(*inputs)
    out.backward(numbers(*out.shape, seed=1))
    return [out.numpy(), *(x.grad for x in inputs)]


def in_both_dtypes(function, *arrays):
    """Pairs of results: in float32, and in float64 of the same values."""
    return zip(
        *(
            results_of(function, *(Tensor(x.astype(dtype), requires_grad=True) for x in arrays))
            for dtype in (np.float32, np.float64)
        ),
        strict=True,
    )


def layer_norm_far_from_0():
    x = far_rows()
    for found, expected in in_both_dtypes(ag.layer_norm, x, numbers(768, seed=2), numbers(768, seed=3)):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6 * np.abs(expected).max())
    constant = ag.layer_norm(Tensor(x[:2]), np.ones(768), np.zeros(768)).data
    np.testing.assert_allclose(constant, 0, atol=1e-6)
    near = [ag.layer_norm(Tensor(rows), np.ones(768)).data[4] for rows in (x, x[[4, 4, 4, 4, 4]])]
    np.testing.assert_array_equal(*near)  # a row does not notice the others


HEADS = {  # forms of the loss: functions of x (N, C), a weight, a bias and targets
    "fused": lambda x, w, b, *targets: ag.linear_cross_entropy(x, w, b, *targets),
    "composed": lambda x, w, b, *targets: ag.cross_entropy(ag.linear(x, w, b), *targets),
}


def with_every_target_ignored(head):
    """The loss is NaN, as the mean of nothing; the gradients are 0, and there is no warning."""
    for n in (3, 0):
        inputs = tensors((n, 4), (4, 5), (5,))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            loss = head(*inputs, np.full(n, 2), 2)
            loss.backward()
        assert not warned and np.isnan(loss.data) and loss.dtype == np.float64
        assert not any(x.grad.any() for x in inputs)  # NaN counts as any


def cross_entropy_with_every_target_ignored():
    with_every_target_ignored(HEADS["composed"])


def linear_cross_entropy_with_every_target_ignored():
    with_every_target_ignored(HEADS["fused"])


def impossible_classes():
    """A bias of -inf rules a class out. Targets that are ignored may be of any class."""
    x, w, b = numbers(3, 4), numbers(4, 5), np.array([-np.inf, 0, 0, -np.inf, 0])
    results = [
        results_of(
            lambda *inputs, head=head: head(*inputs, [1, 0, 4], 0),
            *(Tensor(a, requires_grad=True, dtype=np.float64) for a in (x, w, b)),
        )
        for head in HEADS.values()
    ]
    for fused, composed in zip(*results, strict=True):
        assert np.isfinite(fused).all()
        np.testing.assert_allclose(fused, composed, rtol=1e-12)
    assert all(head(x, w, b, [0, 2, 4]).item() == np.inf for head in HEADS.values())


def losses_of_certain_predictions():
    """Small beside the logits, so that these must not be rounded away."""
    logits = np.array([[20.0, 0.0], [1e4, 1e4 - 8]], np.float32)
    expected = np.log1p(np.exp([-20.0, -8.0])).mean()
    for head in HEADS.values():
        loss = head(Tensor(np.eye(2, dtype=np.float32)), logits, None, [0, 0])
        np.testing.assert_allclose(float(loss), expected, rtol=1e-4)
    found = -ag.log_softmax(Tensor(logits)).data[:, 0].mean()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def targets_of_another_shape_are_refused():
    x, w = tensors((4, 3), (3, 5))
    for targets in ([2], 2, [[0, 1], [2, 3]], [], np.zeros((4, 1), int)):
        shape = f"targets of shape {np.shape(targets)} do not fit an input of shape"
        refused(ValueError, f"{shape} (4, 5): wanted (4,)", ag.cross_entropy, x @ w, targets)
        refused(ValueError, f"{shape} (4, 3): wanted (4,)", ag.linear_cross_entropy, x, w, None, targets)
    refused(ValueError, "wanted logits (..., V)", ag.cross_entropy, 3.0, 2)
    refused(TypeError, "needs targets", ag.linear_cross_entropy, x, w)
    for ignored in (-1.0, "-1"):
        refused(TypeError, "it must be an integer", ag.cross_entropy, x, [0] * 4, ignored)


def ids_of_every_kind():
    (w,) = tensors((5, 3))
    expected = w.data[[[1, 4], [0, 1]]]
    for ids in ([[1, 4], [0, 1]], ((1, 4), (0, 1)), *(np.array([[1, 4], [0, 1]], t) for t in "bBhHiIlL")):
        np.testing.assert_array_equal(ag.embedding(w, ids).data, expected)
    assert ag.embedding(w, []).shape == (0, 3) and ag.embedding(w, 3).shape == (3,)
    wrong = ([True], [1.0], np.zeros(2), ["1"], [None], np.zeros(0), Tensor([1.0]))
    for ids in wrong:
        refused(TypeError, "", ag.embedding, w, ids)
    refused(ValueError, "some lists are longer", ag.embedding, w, [[1], [1, 2]])
    for ids in ([5], [-1], [2**63], np.array([200], np.uint8)):
        refused(IndexError, "there are 5, from 0 to 4", ag.embedding, w, ids)
    refused(ValueError, "wanted a weight (V, C), got shape (15,)", ag.embedding, w.reshape(15), [0])


def refilled_buffers():
    """Ids and targets belong to the caller again when the call returns."""
    x, w = tensors((3, 4), (4, 5))
    for function in (
        lambda ids: ag.embedding(x, ids).sum(),
        lambda ids: ag.cross_entropy(x, ids),
        lambda ids: ag.linear_cross_entropy(x, w, None, ids),
    ):
        gradients = []
        for later in ([0, 1, 2], [0, 0, 0]):
            ids, x.grad = np.array([0, 1, 2]), None
            loss = function(ids)
            ids[:] = later
            loss.backward()
            gradients.append(x.grad)
        np.testing.assert_array_equal(*gradients)


def rates_of_dropout():
    (x,) = tensors((8, 40))
    assert not any(a.any() for a in results_of(lambda x: ag.dropout(x, 1, STREAM), x))
    assert ag.dropout(x, 0.0, None).data is x.data
    assert 0 < (ag.dropout(x, 1 / 256, STREAM).data == 0).sum() < 10
    for p in (-0.1, 1.1, np.nan, "0.5", None, True):
        refused(ValueError, "must be a number from 0 to 1", ag.dropout, x, p, STREAM)
    for p in (1e-9, 0.0019, 0.9981):
        refused(ValueError, "must be 0, 1, or above 1/512 and below 511/512", ag.dropout, x, p, STREAM)
    refused(TypeError, "dropout draws from a Stream", ag.dropout, x, 0.5, None)


def shapes_that_do_not_fit_a_residual_are_refused():
    x, h, w, b = tensors((2, 3, 4), (2, 3, 5), (5, 4), (4,))
    for wrong in ((x[0], h, w, b), (x, h[0], w), (x[:, :, :1], h, w), (x[:1], h, w)):
        refused(ValueError, "does not fit the product, which is", ag.residual_linear, *wrong)
    for wrong in ((x, h, w.T), (x, h, w, b[:1]), (x, h, b)):
        refused(ValueError, "does not fit weight", ag.residual_linear, *wrong)
    refused(TypeError, "draws from a Stream", ag.residual_linear, x, h, w, b, 0.5)
    refused(ValueError, "must be a number from 0 to 1", ag.residual_linear, x, h, w, b, 1.5)


def shapes_that_do_not_fit_a_layer_norm_are_refused():
    x, weight = tensors((2, 3), (3,))
    for wrong in ((x, weight[:1]), (x, 1.0), (x, weight, weight[:2]), (x, weight, 0.0), (x.sum(), weight)):
        refused(ValueError, "wanted (..., C), (C,) and (C,)", ag.layer_norm, *wrong)


# --- the kernels ----------------------------------------------------------------------------------


def layer_norm_kernels(cupy):
    for n, c in ((1, 1), (3, 5), (7, 384), (300, 33)):
        x = numbers(n, c) * 3 + 5
        same_on_gpu(cupy, ag.layer_norm, x, numbers(c, seed=2), numbers(c, seed=3), rtol=2e-4)
        same_on_gpu(cupy, ag.layer_norm, x[None], numbers(c, seed=2), rtol=2e-4)
    same_on_gpu(cupy, ag.layer_norm, far_rows(), numbers(768, seed=2), numbers(768, seed=3))
    parameters = numbers(8, seed=2), numbers(8, seed=3)
    same_on_gpu(cupy, ag.layer_norm, numbers(3, 8), *parameters, place=off_by_one)
    same_on_gpu(cupy, norm_and_others, numbers(3, 8), *parameters)

    trained_alone(cupy, ag.layer_norm, numbers(130, 5), numbers(5, seed=2), numbers(5, seed=3))


def trained_alone(cupy, function, *arrays):
    """The gradient of each input alone, where the others need none; and beside gradients that are there."""
    expected = [Tensor(on_gpu(cupy, x), requires_grad=True) for x in arrays]
    function(*expected).backward(cupy.asarray(numbers(*arrays[0].shape, seed=1)))
    for i in range(len(arrays)):
        inputs = [Tensor(on_gpu(cupy, x), requires_grad=i == j) for j, x in enumerate(arrays)]
        others = [Tensor(on_gpu(cupy, x), requires_grad=True) for x in arrays]
        others[i].grad = cupy.asarray(np.zeros(arrays[i].shape, np.float32))
        for each in (inputs, others):
            function(*each).backward(cupy.asarray(numbers(*arrays[0].shape, seed=1)))
            close(each[i].grad, expected[i].grad.get())
        for other, right in zip(others, expected, strict=True):
            close(other.grad, right.grad.get())


def norm_and_others(x, weight, bias):
    """A layer norm of a result with two other users: one comes before it on the way back, one after it."""
    x = x * 3.0
    y = x * x
    return ag.layer_norm(x, weight, bias) + x + y


def residual_linear_kernels(cupy):
    sizes = (
        ((), 3, 8),
        ((1,), 1, 1),
        ((2, 35), 3, 36),
        ((2, 70), 2, 33),
        ((3, 2), 4, 1100),
        ((2, 3, 5), 1, 8),
    )
    for shape, K, M in sizes:
        for p in (0.0, 0.3, 1.0):
            run = lambda *tensors, p=p: ag.residual_linear(*tensors, p=p, stream=STREAM)
            arrays = numbers(*shape, M), numbers(*shape, K), numbers(K, M)
            same_on_gpu(cupy, run, *arrays, numbers(M))
            same_on_gpu(cupy, run, *arrays)
    run = lambda *tensors: ag.residual_linear(*tensors, p=0.3, stream=STREAM)
    arrays = numbers(2, 35, 8), numbers(2, 35, 4), numbers(4, 8), numbers(8)
    same_on_gpu(cupy, run, *arrays, place=off_by_one)
    trained_alone(cupy, run, *arrays)


def dropout_kernel(cupy):
    stream = Stream(2**63 + 5, step=7, site=3, row=11)
    for shape in ((3, 5, 7), (2, 32), (1, 1), (40, 33), (3, 2, 999)):
        for p in (0.2, 0.99, 1.0):
            same_on_gpu(cupy, lambda x, p=p: ag.dropout(x, p, stream), numbers(*shape))
    same_on_gpu(cupy, lambda x: ag.dropout(x.sum(), 0.5, stream), numbers(3))


def cross_entropy_kernels(cupy):
    for n, V in ((1, 1), (7, 3), (300, 65), (5, 1500), (3, 1027)):
        targets = np.random.default_rng(0).integers(0, V, n)
        targets[n // 2 :: 3] = -1
        targets[0] = V - 1
        same_on_gpu(cupy, lambda x, t=targets: ag.cross_entropy(x, t, ignore_index=-1), numbers(n, V) * 30)
        all_count = abs(targets) % V
        same_on_gpu(cupy, lambda x, t=all_count: ag.cross_entropy(x, t), numbers(n, V) * 30)
    x, w, b = (Tensor(on_gpu(cupy, numbers(*shape)), requires_grad=True) for shape in ((3, 4), (4, 5), (5,)))
    for head in HEADS.values():  # nothing counts: the mean of nothing
        loss = head(x, w, b, [2, 2, 2], 2)
        loss.backward()
        assert np.isnan(loss.numpy()) and not any(t.grad.get().any() for t in (x, w, b))
    b.data[:1] = -np.inf  # an impossible class; an ignored target may be of it, another has an infinite loss
    for head in HEADS.values():
        assert np.isfinite(head(x, w, b, [0, 1, 2], 0).numpy())
        assert head(x, w, b, [0, 1, 2]).numpy() == np.inf


def linear_cross_entropy_kernels(cupy):
    targets = np.random.default_rng(0).integers(0, 13, (3, 200))
    targets[1, 5:50] = -1
    with pytest.MonkeyPatch.context() as patch:
        for chunk in (gpu_forms.GPU_LOGITS_AT_ONCE, 1):  # all rows at once; 256 rows at a time
            patch.setattr(gpu_forms, "GPU_LOGITS_AT_ONCE", chunk)
            run = lambda x, w, b=None: ag.linear_cross_entropy(x, w, b, targets, ignore_index=-1)
            same_on_gpu(cupy, run, numbers(3, 200, 6), numbers(6, 13), numbers(13))
            same_on_gpu(cupy, run, numbers(3, 200, 6), numbers(6, 13))


def embedding_kernels(cupy):
    # Ids of 1 to 13 bits; runs of equal ids of many lengths; rows of whole fours and others
    for n, V, C in ((1, 1, 1), (300, 5, 36), (100, 150, 3), (2, 7, 132), (3, 4100, 1)):
        ids = np.random.default_rng(0).integers(0, V, (2, n))
        same_on_gpu(cupy, lambda w, ids=ids: ag.embedding(w, ids), numbers(V, C))
    same_on_gpu(cupy, lambda w: ag.embedding(w, [2, 0, 2]), numbers(3, 4), place=off_by_one)
    w = Tensor(on_gpu(cupy, numbers(3, 5)), requires_grad=True)
    out = ag.embedding(w, cupy.asarray(np.array([2, -1, 3, 2, 7])))  # some of no such rows
    out.backward(cupy.asarray(np.ones((5, 5), np.float32)))
    np.testing.assert_array_equal(w.grad.get(), np.outer([0, 0, 2], np.ones(5)))


RECORDS = [
    Record(
        ag.softmax,
        cases={"softmax": Case(ag.softmax, [(3, 4)])},
        over_shapes=unary(ag.softmax, min_dims=2),
        composed={
            f"softmax over axis {axis}": composition(ag.softmax, [(3, 5)], axis=axis) for axis in (-1, 0)
        },
        bugs=[
            Bug(
                "softmax: only the diagonal of the Jacobian",
                right="dout - (dout * out).sum(axis, keepdims=True)",
                wrong="dout - dout * out",
            ),
        ],
    ),
    Record(
        ag.log_softmax,
        cases={"log_softmax": Case(ag.log_softmax, [(3, 4)])},
        over_shapes=unary(ag.log_softmax, min_dims=2),
        composed={
            f"log_softmax over axis {axis}": composition(ag.log_softmax, [(3, 5)], axis=axis)
            for axis in (-1, 0)
        },
        bugs=[
            Bug(
                "log_softmax: the mean of the gradient is subtracted",
                right="xp.exp(out) * dout.sum(axis, keepdims=True)",
                wrong="dout.mean(axis, keepdims=True)",
            ),
            Bug(
                "log_softmax: digits are lost beside a large maximum",
                right="out = x - x.max(axis, keepdims=True)",
                wrong="out = x",
                caught_by="losses_of_certain_predictions",
            ),
        ],
    ),
    Record(
        ag.layer_norm,
        cases={"layer_norm": Case(ag.layer_norm, [(2, 3, 5), (5,), (5,)])},
        over_shapes=layer_norm_over_shapes(),
        composed={
            "layer_norm from mean and var": composition(ag.layer_norm, [(2, 3, 7), (7,), (7,)]),
            "layer_norm without a bias": composition(ag.layer_norm, [(2, 3, 7), (7,)], eps=0.1),
        },
        bugs=[
            Bug("layer_norm: std detached", "dxhat -= xhat * mean_dxhat_xhat", "pass"),
            Bug("layer_norm: mean detached", "dxhat -= mean_dxhat", "pass"),
            Bug("layer_norm: Bessel's variance", "dxhat *= rstd", "dxhat *= rstd * ((C - 1) / C) ** 0.5"),
            Bug(
                "layer_norm: dweight from x for xhat",
                right="dout.reshape(xhat.shape), xhat)",
                wrong="dout.reshape(xhat.shape), x2)",
            ),
            Bug(
                "layer_norm: eps is added to the standard deviation",
                right="(row_dots(centred, centred) / centred.shape[1] + eps) ** -0.5",
                wrong="1 / ((row_dots(centred, centred) / centred.shape[1]) ** 0.5 + eps)",
                caught_by="layer_norm from mean and var",
                inside=nn.reciprocal_std,
            ),
            Bug(
                "layer_norm: far from 0 the mean is as it was rounded",
                right="far.any()",
                wrong="False",
                caught_by="layer_norm_far_from_0",
            ),
            Bug(
                "layer_norm: far from 0 the standard deviation is that around the rounded mean",
                right="        rstd = reciprocal_std(xhat, eps)\n    xhat",
                wrong="    xhat",
                caught_by="layer_norm_far_from_0",
            ),
            Bug(
                "layer_norm: a far row makes others be rounded otherwise",
                right="xp.where(far, row_sums(xhat) / C, 0)",
                wrong="row_sums(xhat) / C",
                caught_by="layer_norm_far_from_0",
            ),
        ],
        checks=[layer_norm_far_from_0, shapes_that_do_not_fit_a_layer_norm_are_refused],
        kernel_checks=[layer_norm_kernels],
        kernel_bugs=[
            Bug(
                "a layer norm with Bessel's correction",
                right="warp_sum(squares) / C -",
                wrong="warp_sum(squares) / (C - 1) -",
            ),
            Bug(
                "the layer norm's share along xhat stays",
                right=" + normalised(part(value, i), its) * xhat_share",
                wrong="",
            ),
            Bug(
                "dweight without the standard deviation",
                right="part(d, i) * normalised(part(value, i), its);",
                wrong="part(d, i) * (part(value, i) - its.mean - its.rest);",
            ),
            Bug("what other users contribute is left out", "if (plus) add_to(d, load<V>(plus + j));", ""),
            Bug("a norm's weight at an odd place", "fours(C, x, weight, bias, out)", "fours(C, out)"),
            Bug("far from 0 the mean is as it was rounded", "x - its.mean - its.rest", "x - its.mean"),
        ],
    ),
    Record(
        nn.check_layer_norm,
        bugs=[
            Bug(
                "layer_norm: a weight of any shape is broadcast",
                right="any(shape != x[-1:] for shape in shapes)",
                wrong="False",
                caught_by="shapes_that_do_not_fit_a_layer_norm_are_refused",
            ),
        ],
    ),
    Record(
        ag.cross_entropy,
        cases={"cross_entropy": Case(cross_entropy, [(2, 3, 4)])},
        over_shapes=cross_entropy_over_shapes(),
        composed={
            "cross_entropy from log_softmax": composition(
                ag.cross_entropy, [(2, 3, 4)], targets=TARGETS, ignore_index=-1
            ),
        },
        bugs=[
            Bug("cross_entropy: sum instead of mean", "(dout / xp.maximum(count, 1))", "dout"),
            Bug("cross_entropy: mean over ignored tokens too", "xp.maximum(count, 1)", "len(rows)"),
            Bug("cross_entropy: forgets to subtract the target", "grad[rows, targets] -= share", "pass"),
            Bug(
                "cross_entropy: ignored tokens get a gradient",
                right="counted * (dout",
                wrong="xp.ones(len(rows)) * (dout",
            ),
            Bug(
                "cross_entropy: divides by a count of 0",
                right="xp.maximum(count, 1)",
                wrong="count",
                caught_by="cross_entropy_with_every_target_ignored",
            ),
            Bug(
                "cross_entropy: digits are lost beside a large maximum",
                right="xp.log(total)[:, 0] - (logits[rows, targets] - shift[:, 0])",
                wrong="xp.log(total)[:, 0] + shift[:, 0] - logits[rows, targets]",
                caught_by="losses_of_certain_predictions",
            ),
        ],
        checks=[
            cross_entropy_with_every_target_ignored,
            losses_of_certain_predictions,
            targets_of_another_shape_are_refused,
        ],
        kernel_checks=[cross_entropy_kernels],
        kernel_bugs=[
            Bug(
                "the target's logit is read after it was overwritten",
                right="    __syncthreads();  // the target's logit is read before it is overwritten\n",
                wrong="",
            ),
            Bug("ignored targets count in the mean", "count += targets[i] != ignored", "count += 1"),
            Bug("the gradient at the target lacks the - 1", "(j + i == target ? 1.0f : 0.0f)", "0.0f"),
            Bug("the loss without the row's maximum", "(logit - sum.largest)", "logit"),
            Bug("the mean of nothing is 0", "0.0f * targets.share[0]", "0.0f"),
        ],
    ),
    Record(
        nn.check_targets,
        bugs=[
            Bug(
                "targets of another shape are broadcast",
                right="targets.shape != rows.shape[:-1]",
                wrong="False",
                caught_by="targets_of_another_shape_are_refused",
            ),
        ],
    ),
    Record(
        ag.linear_cross_entropy,
        cases={
            "linear_cross_entropy": Case(linear_cross_entropy, [(2, 3, 5), (5, 4), (4,)]),
            "linear_cross_entropy_square": Case(linear_cross_entropy, [(2, 3, 4), (4, 4), (4,)]),
        },
        composed={
            "linear_cross_entropy of a tied head": head_and_loss(tied_head, logits_at_once=2**20),
            "linear_cross_entropy of a tied head in chunks": head_and_loss(tied_head, logits_at_once=1),
            "linear_cross_entropy of a separate head": head_and_loss(separate_head, logits_at_once=2**20),
            "linear_cross_entropy of a separate head in chunks": head_and_loss(
                separate_head, logits_at_once=1
            ),
        },
        bugs=[
            Bug(
                "linear_cross_entropy: forgets the division by the count",
                right=" / xp.maximum(count, 1)",
                wrong="",
                caught_by="linear_cross_entropy of a separate head",  # value and gradients are wrong alike
            ),
            Bug(
                "linear_cross_entropy: ignored tokens count in the mean",
                right="xp.maximum(count, 1)",
                wrong="x.dtype.type(len(counted))",
                caught_by="linear_cross_entropy of a separate head",
            ),
            Bug(
                "linear_cross_entropy: divides by a count of 0",
                right="xp.maximum(count, 1)",
                wrong="count",
                caught_by="linear_cross_entropy_with_every_target_ignored",
            ),
            Bug(
                "linear_cross_entropy: an ignored row's infinite loss times 0",
                right="xp.where(counted[part], xp.log(total)[:, 0] - at_target, 0)",
                wrong="(xp.log(total)[:, 0] - at_target)",
                caught_by="impossible_classes",
            ),
            Bug(
                "linear_cross_entropy: ignored tokens get a gradient",
                right="logits *= share[part, None]",
                wrong="logits *= share.max()",
            ),
            Bug(
                "linear_cross_entropy: target not subtracted",
                right="logits[n, targets[part]] -= share[part]",
                wrong="pass",
            ),
            Bug(
                "linear_cross_entropy: softmax not divided by its sum",
                right="share[part, None] / total",
                wrong="share[part, None]",
            ),
            Bug(
                "linear_cross_entropy: loss without the row's maximum",
                right="at_target = logits[n, targets[part]]",
                wrong="at_target = (x2[part] @ weight)[n, targets[part]]",
            ),
            Bug(
                "linear_cross_entropy: bias gradient averaged",
                right="column_sums(logits)",
                wrong="column_sums(logits) / len(logits)",
            ),
            Bug(
                "linear_cross_entropy: bias gradient of the last chunk alone",
                right="dbias += column_sums(logits)",
                wrong="dbias = column_sums(logits)",
                caught_by="linear_cross_entropy of a separate head in chunks",
            ),
            Bug(
                "linear_cross_entropy: weight gradient transposed",
                right="(dweight_t * dout).T",
                wrong="dweight_t * dout",
                caught_by="linear_cross_entropy_square",  # where no shape gives it away
            ),
            Bug(
                "linear_cross_entropy: the upstream gradient is left out",
                right="(dx * dout).reshape",
                wrong="dx.reshape",
            ),
        ],
        checks=[linear_cross_entropy_with_every_target_ignored, impossible_classes],
        kernel_checks=[linear_cross_entropy_kernels],
        kernel_bugs=[
            Bug("ignored targets get a gradient", "counts ? targets.share[0] : 0.0f;", "targets.share[0];"),
            Bug("rows of logits follow at once", "logits += blockIdx.x * stride", "logits += blockIdx.x * V"),
            Bug("four logits get one bias", "bias[j + i]", "bias[j]"),
            Bug("no bias at the target", "biased(logits[target], bias, target, 1)", "logits[target]"),
        ],
    ),
    Record(
        ag.embedding,
        cases={"embedding": Case(lambda w: ag.embedding(w, IDS), [(3, 2)])},
        over_shapes=embedding_over_shapes(),
        composed={
            "embedding from one-hot rows": composition(ag.embedding, [(4, 3)], ids=IDS),
        },
        bugs=[
            Bug(
                "embedding: repeated id assigned instead of added",
                right="out[sorted_ids[starts]] = np.add.reduceat(rows[order], starts, axis=0)",
                wrong="out[ids] = rows",
                inside=nn.sum_rows_by_id,
            ),
            Bug(
                "embedding: rows are added in the order of before the sort",
                right="np.add.reduceat(rows[order]",
                wrong="np.add.reduceat(rows",
                inside=nn.sum_rows_by_id,
            ),
        ],
        checks=[ids_of_every_kind, refilled_buffers],
        kernel_checks=[embedding_kernels],
        kernel_bugs=[
            Bug(
                "a pass of the sort begins before all keys have moved",
                right="            place_to[at] = its_place[i];\n        }\n        __syncthreads();",
                wrong="            place_to[at] = its_place[i];\n        }",
            ),
            Bug(
                "sums of neighbours are read while they change",
                right=" : 0;\n            __syncthreads();\n            totals",
                wrong=" : 0;\n            totals",
            ),
            Bug(
                "keys are moved while others still need the counts",
                right="            before += count;\n        }\n        __syncthreads();",
                wrong="            before += count;\n        }",
            ),
            Bug(
                "equal digits change places",
                right="mine[i] = before;\n            before += count;",
                wrong="before += count;\n            mine[i] = before - 1;",
            ),
            Bug("a run ends with its stretch", "n < end;", "n < end && n < blockIdx.x * 8 + 8;"),
            Bug(
                "a run is added by every stretch that it touches",
                right="first > 0 && keys",
                wrong="first > blockIdx.x * 8 && keys",
            ),
            Bug("an id that does not exist is added to", "key == no_id || ", ""),
        ],
    ),
    Record(
        nn.check_ids,
        bugs=[
            Bug(
                "ids are kept, and the caller refills them",
                right="ids.astype(np.int64)",
                wrong="ids.astype(np.int64, copy=False)",
                caught_by="refilled_buffers",
            ),
            Bug(
                "ids count from the end, as NumPy's do",
                right="counted.min() < 0 or counted.max() >= n",
                wrong="counted.max() >= n",
                caught_by="ids_of_every_kind",
            ),
        ],
    ),
    Record(
        nn.as_ids,
        bugs=[
            Bug("True is an id", 'not in "iu"', 'not in "iub"', caught_by="ids_of_every_kind"),
            Bug(
                "an empty array of floats holds ids",
                right=' and not hasattr(ids, "dtype")',
                wrong="",
                caught_by="ids_of_every_kind",
            ),
        ],
    ),
    Record(
        random.check_dropout_rate,
        bugs=[
            Bug(
                "dropout: a p that is rounded to 0 is accepted",
                right="round(p * 256) in (0, 256)",
                wrong="False",
                caught_by="rates_of_dropout",
            ),
            Bug("dropout: p is not checked", "not 0 <= p <= 1", "False", caught_by="rates_of_dropout"),
        ],
    ),
    Record(
        ag.dropout,
        cases={"dropout": Case(dropout, [(4, 6)])},
        composed={"dropout from a mask": composition(ag.dropout, [(4, 6)], p=0.4, stream=STREAM)},
        bugs=[
            Bug(
                "dropout: no mask in the pullback",
                right="return masked(x), masked",
                wrong="return masked(x), lambda g: g",
            ),
            Bug(
                "dropout: mask without its scale",
                right="return masked(x), masked",
                wrong="return masked(x), lambda g: g * keep",
            ),
        ],
        checks=[rates_of_dropout],
        kernel_checks=[dropout_kernel],
        kernel_bugs=[
            Bug("what is kept is not scaled up", "part(value, k) * keep_scale", "part(value, k)"),
            Bug("the last, partial group of a row runs into the next", " || element >= per_row", ""),
            Bug("four elements take one bit of dropout", "keep >> k & 1", "keep & 1"),
        ],
    ),
    Record(
        ag.residual_linear,
        cases={
            "residual_linear": Case(ag.residual_linear, [(2, 3, 4), (2, 3, 5), (5, 4), (4,)]),
            "residual_linear_dropout": Case(residual_linear, [(2, 3, 4), (2, 3, 5), (5, 4), (4,)]),
        },
        composed={
            "residual_linear from its parts": composition(
                ag.residual_linear, [(2, 3, 4), (2, 3, 5), (5, 4), (4,)], p=0.4, stream=STREAM
            ),
            "residual_linear without a bias": composition(ag.residual_linear, [(2, 4), (2, 5), (5, 4)]),
        },
        bugs=[
            Bug("residual_linear: the residual is left out", "out += as_rows(x)", "pass"),
            Bug(
                "residual_linear: the residual is dropped too",
                right="        out *= keep\n",
                wrong="        out += as_rows(x)\n        out *= keep\n        out -= as_rows(x)\n",
                caught_by="residual_linear from its parts",
            ),
            Bug(
                "residual_linear: no mask in the pullback",
                right="            dout = dout * keep\n            dout *= scale\n",
                wrong="            pass\n",
                caught_by="residual_linear_dropout",
            ),
            Bug(
                "residual_linear: bias gradient averaged",
                right="column_sums(dpre(dout))",
                wrong="column_sums(dpre(dout)) / len(h2)",
            ),
        ],
        kernel_checks=[residual_linear_kernels],
        kernel_bugs=[
            Bug(
                "what is kept of a branch is not scaled up",
                right="part(value, i) * keep_scale",
                wrong="part(value, i)",
            ),
            Bug("only the first 1,024 channels draw", "start / 32 + group + lane, T", "start / 32 + lane, T"),
            Bug("all rows draw the same bits", "long long start = row % T * C", "long long start = 0"),
            Bug(
                "a warp's later rows take the bits of the first",
                right="row + lane / GROUPS * step",
                wrong="row",
            ),
            Bug("a warp draws but once", "if (turn % AHEAD == 0)", "if (turn == 0)"),
            Bug(
                "columns take the bits of the row's first columns",
                right="group = (later % T * C + begin) / 32",
                wrong="group = later % T * C / 32",
            ),
            Bug("a branch without its bias", "if (bias) add_to(value, load<V>(bias + j));", ""),
        ],
    ),
    Record(
        nn.check_residual_linear,
        checks=[shapes_that_do_not_fit_a_residual_are_refused],
        bugs=[
            Bug("a residual of any shape is broadcast", "if x != wanted:", "if False:"),
        ],
    ),
]
