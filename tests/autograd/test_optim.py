"""AdamW, clipping and schedules."""

import copy
import pickle

import numpy as np
import pytest

import autograd as ag
from autograd import AdamW, Tensor
from tests.operations import checks_of, optim
from tests.operations.optim import parameters
from tests.operations.tape import leaf


@pytest.mark.parametrize("check", checks_of(optim).values(), ids=checks_of(optim))
def test_the_optimizer(check):
    check()


def test_zero_grad_and_views_of_the_flat_arrays():
    params = parameters()
    optimizer = AdamW(params)
    optimizer.flatten()
    (params[0] * params[0]).sum().backward()
    assert optimizer.groups[0]["grad"].any() and np.shares_memory(params[0].grad, optimizer.groups[0]["grad"])
    optimizer.zero_grad()
    assert not any(p.grad.any() for p in params)


def test_flat_arrays_are_made_once():
    """Whoever shares them, such as the replicas of Workers, goes on sharing them."""
    w, unused = leaf([1.0]), leaf([2.0])
    optimizer = AdamW([w, unused])
    square_loss(w)
    optimizer.step()  # so that they count different steps
    optimizer.flatten()
    before = optimizer.gradient, w.data
    optimizer.flatten()
    assert optimizer.gradient is before[0] and w.data is before[1]
    w.data = w.data.copy()
    optimizer.flatten()
    assert np.shares_memory(w.data, optimizer.groups[0]["data"])


def test_adamw_minimises():
    x = Tensor([5.0, -3.0], requires_grad=True)
    optimizer = AdamW([x], lr=0.1, weight_decay=0.0)
    for _ in range(300):
        optimizer.zero_grad()
        ((x - 1.0) ** 2).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(x.data, 1, atol=1e-3)


# --- however the parameters are used meanwhile ----------------------------------------------------

AFTER_30_STEPS = -0.0339675  # of w = 1 on the loss w², lr 0.1, no decay: what PyTorch gets too


def square_loss(w):
    (w * w).sum().backward()


def zero_by_none(w, optimizer):
    w.grad = None
    square_loss(w)


def zero_by_method(w, optimizer):
    optimizer.zero_grad()
    square_loss(w)


def replace_the_gradient(w, optimizer):
    w.grad = None
    square_loss(w)
    w.grad = np.clip(w.grad, -100, 100)


def gradient_as_a_tensor(w, optimizer):
    w.grad = None
    square_loss(w)
    w.grad = Tensor(w.grad)


def gradient_as_a_list_of_integers_added_to(w, optimizer):
    w.grad = [0]
    square_loss(w)


def replace_the_values(w, optimizer):
    w.data = w.data.copy()
    zero_by_none(w, optimizer)


def gradcheck_in_between(w, optimizer):
    zero_by_none(w, optimizer)
    ag.gradcheck(lambda w: w * w, w)


USES = [
    zero_by_none,
    zero_by_method,
    replace_the_gradient,
    gradient_as_a_tensor,
    gradient_as_a_list_of_integers_added_to,
    replace_the_values,
    gradcheck_in_between,
]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("use", USES)
def test_training_goes_on_however_the_parameter_is_used(use, flat):
    w = leaf([1.0])
    optimizer = AdamW([w], lr=0.1, weight_decay=0.0)
    if flat:
        optimizer.flatten()
    for _ in range(30):
        use(w, optimizer)
        optimizer.step()
    assert float(w) == pytest.approx(AFTER_30_STEPS, abs=5e-6)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_of_parameters_and_optimizer_trains_by_itself(again, flat):
    w = leaf([1.0])
    optimizer = AdamW([w], lr=0.1, weight_decay=0.0)
    if flat:
        optimizer.flatten()
    for _ in range(10):
        zero_by_method(w, optimizer)
        optimizer.step()
    before = float(w)
    twin, its_optimizer = again((w, optimizer))
    for _ in range(20):
        zero_by_method(twin, its_optimizer)
        its_optimizer.step()
    assert float(twin) == pytest.approx(AFTER_30_STEPS, abs=5e-6) and float(w) == before
    for _ in range(20):
        zero_by_method(w, optimizer)
        optimizer.step()
    assert float(w) == float(twin)


@pytest.mark.parametrize("flat", [False, True])
def test_two_optimizers_of_the_same_parameter(flat):
    """Their steps add up: with the first frozen by lr = 0, the second trains as if it were alone."""
    w = leaf([1.0])
    optimizers = [AdamW([w], lr=lr, weight_decay=0.0) for lr in (0.0, 0.1)]
    if flat:
        for optimizer in optimizers:
            optimizer.flatten()
    for _ in range(30):
        zero_by_none(w, optimizers[0])
        for optimizer in optimizers:
            optimizer.step()
    assert float(w) == pytest.approx(AFTER_30_STEPS, abs=5e-6)


def test_values_put_in_place_of_others_are_updated_themselves():
    """As in PyTorch: an array that became p.data is the one that trains, and a made optimizer moves none."""
    array = np.array([1.0])
    w = leaf([5.0])
    optimizer = AdamW([w], lr=0.1, weight_decay=0.0)
    assert w.grad is None
    w.data = array
    square_loss(w)
    optimizer.step()
    assert w.data is array and array[0] == pytest.approx(0.9)


def test_arrays_that_are_not_contiguous():
    draw = np.random.default_rng(0)
    values, gradients = draw.standard_normal((300, 150)), draw.standard_normal((300, 150))
    plain, twisted = leaf(values), leaf(values)
    twisted.data = np.asfortranarray(values)
    plain.grad, twisted.grad = gradients, np.broadcast_to(gradients[:, None], (300, 1, 150))[:, 0]
    for w in (plain, twisted):
        AdamW([w], lr=0.1).step()
    np.testing.assert_array_equal(plain.data, twisted.data)


def test_a_gradient_that_is_there_already_counts():
    for flat in (False, True):
        w = leaf([1.0])
        square_loss(w)
        optimizer = AdamW([w], lr=0.1, weight_decay=0.0)
        if flat:
            optimizer.flatten()
        assert w.grad.tolist() == [2]
        optimizer.step()
        assert float(w) == pytest.approx(0.9)


def test_a_parameter_that_the_loss_did_not_use_is_skipped():
    """No decay, and its first update later is its step 1, as in PyTorch."""
    used, unused = leaf([1.0]), leaf([1.0])
    optimizer = AdamW([used, unused], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        square_loss(used)
        optimizer.step()
    assert float(unused) == 1 and optimizer.groups[0]["steps"] == [3, 0] and optimizer.steps == 3
    optimizer.zero_grad()
    square_loss(unused)
    optimizer.step()
    assert float(unused) == pytest.approx(1 - 0.1 * 0.5 - 0.1)
    frozen = Tensor([1.0])
    AdamW([frozen], weight_decay=0.5).step()
    assert float(frozen) == 1


def test_flat_arrays_treat_an_unused_parameter_as_one_with_gradient_zero():
    used, unused = leaf([1.0]), leaf([1.0])
    optimizer = AdamW([used, unused], lr=0.1, weight_decay=0.5)
    optimizer.flatten()
    optimizer.zero_grad()
    square_loss(used)
    optimizer.step()
    assert float(unused) == 0.95


REFUSED = {
    "not a leaf": (lambda: AdamW([leaf([1.0]) * 2]), ValueError, "leaves.*multiply.*detach"),
    "a bare Tensor": (lambda: AdamW(leaf([1.0])), TypeError, r"AdamW\(\[x\]\)"),
    "one group without a list": (lambda: AdamW({"params": [leaf([1.0])]}), TypeError, "not a dict"),
    "an array": (lambda: AdamW([np.ones(2)]), TypeError, "trains Tensors, not a ndarray"),
    "named parameters": (lambda: AdamW([("w", leaf([1.0]))]), TypeError, "not a tuple"),
    "groups and Tensors": (lambda: AdamW([{"params": [leaf(1.0)]}, leaf(1.0)]), TypeError, "groups alone"),
    "a group without parameters": (lambda: AdamW([{"lr": 1.0}]), TypeError, '"params"'),
    "a misspelt setting": (lambda: AdamW([{"params": [leaf(1.0)], "wd": 0.1}]), TypeError, "'wd'"),
    "two dtypes": (lambda: AdamW([leaf([1.0]), Tensor([1.0])]), TypeError, "float32.*float64"),
    "a parameter twice": (lambda: AdamW([x := leaf([1.0]), x]), ValueError, "twice"),
    "nothing": (lambda: AdamW([]), ValueError, "no parameters"),
    "a negative rate": (lambda: AdamW([leaf([1.0])], lr=-0.1), ValueError, "lr is -0.1"),
    "beta 1": (lambda: AdamW([leaf([1.0])], betas=(0.9, 1.0)), ValueError, "betas"),
    "three betas": (lambda: AdamW([leaf([1.0])], betas=(0.9, 0.9, 0.9)), ValueError, "betas"),
    "negative decay": (lambda: AdamW([leaf([1.0])], weight_decay=-1), ValueError, "weight_decay"),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_trained_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_what_no_longer_fits_at_a_step_is_refused():
    for data, grad, message in (
        (np.ones(2), np.ones(2), "has become"),
        (np.ones(1, np.float32), np.ones(1), "has become"),
        (np.ones(1), np.ones(2), r"shape \(2,\)"),
    ):
        w = leaf([1.0])
        optimizer = AdamW([w])
        w.data, w.grad = data, grad
        with pytest.raises(ValueError, match=message):
            optimizer.step()


def test_settings_as_numpy_numbers_do_not_promote():
    w = Tensor([1.0], requires_grad=True)
    optimizer = AdamW({"params": w}.values(), lr=np.float64(0.1), eps=np.float64(1e-8))
    square_loss(w)
    optimizer.step()
    optimizer.clip_grad_norm(np.float64(0.5))
    assert w.dtype == w.grad.dtype == np.float32


def test_clipping_takes_one_tensor_an_iterator_and_no_gradients():
    w = leaf([3.0, 4.0])
    assert float(ag.clip_grad_norm(w, 1.0)) == 0
    w.grad = [3, 4]
    assert float(ag.clip_grad_norm(iter([w]), 1.0)) == 5
    np.testing.assert_allclose(w.grad, [0.6, 0.8], rtol=1e-6)


def test_schedules():
    assert ag.constant(0.1)(0) == ag.constant(0.1)(999) == 0.1
    lr = ag.warmup_cosine(1.0, 10, 110, 0.1)
    assert lr(0) == 0.1 and lr(9) == 1.0 and lr(10) == 1.0
    assert lr(60) == pytest.approx(0.55) and lr(110) == pytest.approx(0.1) == lr(500)
    assert all(lr(i) > lr(i + 1) for i in range(10, 110))
