"""detect_anomaly: an infinity that somebody put there is no anomaly; one that an operation made is."""

import math
import threading

import numpy as np
import pytest

import autograd as ag
from autograd import AnomalyError, Tensor, detect_anomaly, tape

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

INF = math.inf


def leaf(*values):
    return Tensor(np.array(values), requires_grad=True)


FUTURE = np.array([[False, True, True], [False, False, True], [False, False, False]])
MINUS_INFINITY_ABOVE = np.triu(np.full((3, 3), -INF), 1)

INTENDED = {
    "masked_fill": lambda x: ag.softmax(ag.masked_fill(x, FUTURE, -INF)),
    "masked_fill, by name": lambda x: ag.softmax(ag.masked_fill(x, mask=FUTURE, value=-INF)),
    "masked_fill of NumPy's": lambda x: ag.softmax(ag.masked_fill(x, FUTURE, np.float32(-np.inf))),
    "where with a number": lambda x: ag.log_softmax(ag.where(FUTURE, -INF, x)).max(),
    "where with a Tensor": lambda x: ag.softmax(ag.where(FUTURE, Tensor(-INF, dtype=np.float64), x)),
    "a mask that is added": lambda x: ag.softmax(x + MINUS_INFINITY_ABOVE),
    "added from the left": lambda x: ag.softmax(MINUS_INFINITY_ABOVE + x),
    "subtracted": lambda x: ag.softmax(x - -MINUS_INFINITY_ABOVE),
    "logsumexp": lambda x: ag.logsumexp(ag.masked_fill(x, FUTURE, -INF), axis=1),
    "max": lambda x: ag.max(ag.masked_fill(x, FUTURE, -INF), axis=0),
    "concatenated": lambda x: ag.softmax(ag.concatenate([x, np.full((3, 1), -INF)], axis=1)),
    "moved": lambda x: ag.softmax(ag.masked_fill(x, FUTURE, -INF).reshape(3, 3).T.T[:]),
    "clip without an upper limit": lambda x: ag.clip(x, 0.0, INF),
    "a mask in a checkpoint": lambda x: ag.softmax(
        ag.checkpoint(lambda x: ag.masked_fill(x, FUTURE, -INF), x * 1.0)
    ),
    "cross entropy": lambda x: ag.cross_entropy(ag.masked_fill(x, FUTURE, -INF), np.arange(3)),
}


@pytest.mark.parametrize("name", INTENDED)
def test_an_infinity_that_was_given_is_no_anomaly(name):
    x = leaf(*np.arange(9.0)).reshape(3, 3)
    with detect_anomaly():
        INTENDED[name](x).sum().backward()


MADE = {
    "the result of log holds infinity": lambda: ag.log(leaf(0.0, 1.0)),
    "the result of exp holds infinity": lambda: ag.exp(leaf(1e5)),
    "the result of divide holds infinity": lambda: 1 / leaf(0.0),
    "the result of divide holds NaN": lambda: leaf(0.0) / leaf(0.0),
    "the result of subtract holds NaN": lambda: leaf(INF) - leaf(INF),
    "the result of softmax holds NaN": lambda: ag.softmax(leaf(-INF, -INF)),
    "the result of multiply holds NaN: its input 1 held it before": lambda: leaf(1.0) * leaf(np.nan),
    "the result of where holds NaN: its input 2 held it before": lambda: ag.where(
        [True, False], leaf(1, 2), np.nan
    ),
    "the gradient of input 0 of sqrt holds infinity": lambda: ag.sqrt(leaf(0.0)).sum().backward(),
    "the gradient of input 0 of multiply holds NaN": lambda: (leaf(1.0) * 2.0).backward([np.nan]),
    "the gradient of input 0 of multiply holds infinity": lambda: (leaf(1.0) * 2.0).backward([INF]),
}


@pytest.mark.parametrize("message", MADE)
def test_what_an_operation_made_is_one(message):
    with pytest.raises(AnomalyError, match=f"^{message}$"), detect_anomaly():
        MADE[message]()
    assert tape.watch is None


def test_blocks_within_blocks():
    with detect_anomaly(lambda: "outer: ") as _:
        with pytest.raises(AnomalyError, match="^inner: "), detect_anomaly(lambda: "inner: "):
            ag.log(leaf(0.0))
        with pytest.raises(AnomalyError, match="^outer: "):
            ag.log(leaf(0.0))
    ag.log(leaf(0.0))
    block = detect_anomaly()
    with block, block:
        pass
    assert tape.watch is None


def test_a_gradient_is_named_by_where_its_operation_was_recorded():
    places = iter(["first: ", "second: "])
    with pytest.raises(AnomalyError, match="^first: the gradient of input 0 of sqrt"):  # noqa: SIM117
        with detect_anomaly(lambda: next(places)):
            ag.sqrt(leaf(0.0)).sum().backward()


def test_blocks_of_two_threads_end_in_any_order():
    entered, left = threading.Event(), threading.Event()

    def other():
        with detect_anomaly():
            entered.set()
            assert left.wait(10)
            with pytest.raises(AnomalyError):
                ag.log(leaf(0.0))
            seen.append(True)

    seen = []
    thread = threading.Thread(target=other)
    with detect_anomaly():
        thread.start()
        assert entered.wait(10)
    left.set()
    thread.join()
    assert seen and tape.watch is None
    ag.log(leaf(0.0))


def test_where_must_be_a_function():
    with pytest.raises(TypeError, match="where must be a function"):
        detect_anomaly("the head")
