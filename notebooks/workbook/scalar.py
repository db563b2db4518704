"""Notebook 2: a scalar engine without NumPy. (Only what draws and compares uses it.)"""

import functools
import itertools
import math
import random
import sys

import numpy as np

from autograd.draw import gradient_text
from autograd.svg import Box, Graph
from workbook.checking import Checks, Exercise, Wrong, pullback_exercise
from workbook.pictures import BLUE, GOLD, RED, Picture, panels

check = Checks()
_order = itertools.count()


class Value:
    """As in the notebook."""

    def __init__(self, data, parents=(), pullbacks=(), name="leaf"):
        self.data, self.parents, self.pullbacks, self.name = data, parents, pullbacks, name
        self.grad, self.order = None, next(_order)


def op(rule):
    def apply(*inputs):
        out, pullbacks = rule(*(value.data for value in inputs))
        return Value(out, inputs, (pullbacks,) if callable(pullbacks) else pullbacks, rule.__name__)

    return apply


# --- the rules ------------------------------------------------------------------------------------


def add(x, y):
    return x + y, (lambda g: g, lambda g: g)


def multiply(x, y):
    return x * y, (lambda g: g * y, lambda g: g * x)


def exp(x):
    out = math.exp(x)
    return out, lambda g: g * out


def tanh(x):
    out = math.tanh(x)
    return out, lambda g: g * (1 - out * out)


FORGOT_G = "It ignores the upstream gradient: what comes back is only the local slope. Multiply by g."
ADDED_G = "g is added. An upstream gradient is only ever multiplied: g times the slope."
# 0 comes last: what divides by an input is seen to be wrong, or right, before that stops it
TWO = [(2.0, 3.0, 0.7), (-1.5, 0.4, -2.1), (0.3, -0.8, 1.6), (0.0, 2.5, -0.4), (1.2, 0.0, 0.9)]
ONE = [(0.5, 0.7), (-1.2, -2.1), (2.0, 1.6), (0.0, 1.3)]


def _two(forward, dx, dy):
    """A rule with these slopes of x and y, each a function of x, y and g."""
    return lambda x, y: (forward(x, y), (lambda g: dx(x, y, g), lambda g: dy(x, y, g)))


def _sum(dx, dy):
    return _two(lambda x, y: x + y, dx, dy)


def _product(dx, dy):
    return _two(lambda x, y: x * y, dx, dy)


def _one(forward, dx):
    """A rule with this pullback, a function of x, the result and g."""
    return lambda x: (forward(x), lambda g: dx(x, forward(x), g))


def _exp(dx):
    return _one(math.exp, dx)


def _tanh(dx):
    return _one(math.tanh, dx)


check.add(
    "add",
    pullback_exercise(
        ("x", "y"),
        add,
        TWO,
        {
            FORGOT_G: _sum(lambda x, y, g: 1.0, lambda x, y, g: 1.0),
            ADDED_G: _sum(lambda x, y, g: g + 1, lambda x, y, g: g + 1),
            "Each input got its own value times g. "
            "That would be right if y were x²: the slope of x + y is 1, whatever x is. "
            "A sum hands g on unchanged.": _sum(lambda x, y, g: g * x, lambda x, y, g: g * y),
            "That is the rule for a product. A sum hands g on to both inputs, unchanged.": (
                _sum(lambda x, y, g: g * y, lambda x, y, g: g * x)
            ),
            "You give half of g to each. But nudging x by 1 moves x + y by 1, not by a half.": (
                _sum(lambda x, y, g: g / 2, lambda x, y, g: g / 2)
            ),
            "Both got g times the sum. The slope of a sum is 1: it hands g on unchanged.": (
                _sum(lambda x, y, g: g * (x + y), lambda x, y, g: g * (x + y))
            ),
            "y's gradient has a minus. That is the rule for x - y.": _sum(
                lambda x, y, g: g, lambda x, y, g: -g
            ),
        },
    ),
)
check.add(
    "multiply",
    pullback_exercise(
        ("x", "y"),
        multiply,
        TWO,
        {
            FORGOT_G: _product(lambda x, y, g: y, lambda x, y, g: x),
            ADDED_G: _product(lambda x, y, g: g + y, lambda x, y, g: g + x),
            "The two are swapped. The slope with respect to x is y: "
            "nudge x by 1 and the product grows by y.": _product(
                lambda x, y, g: g * x, lambda x, y, g: g * y
            ),
            "That is the rule for a sum. In a product each input's slope is the other input.": (
                _product(lambda x, y, g: g, lambda x, y, g: g)
            ),
            "Both got the whole product. The slope with respect to x is y alone.": (
                _product(lambda x, y, g: g * x * y, lambda x, y, g: g * x * y)
            ),
            "g is divided. Multiply it by the slope, which is the other input.": (
                _product(lambda x, y, g: g / y, lambda x, y, g: g / x)
            ),
            "x's gradient is g times x itself. Its slope is the other input, y.": (
                _product(lambda x, y, g: g * x, lambda x, y, g: g * x)
            ),
            "y's gradient is g times y itself. Its slope is the other input, x.": (
                _product(lambda x, y, g: g * y, lambda x, y, g: g * y)
            ),
            "g is divided by each input itself. Multiply it by the other input.": (
                _product(lambda x, y, g: g / x, lambda x, y, g: g / y)
            ),
            "Both got the sum of the inputs. The slope with respect to x is y alone.": (
                _product(lambda x, y, g: g * (x + y), lambda x, y, g: g * (x + y))
            ),
        },
    ),
)
check.add(
    "exp",
    pullback_exercise(
        ("x",),
        exp,
        ONE,
        {
            FORGOT_G: _exp(lambda x, out, g: out),
            ADDED_G: _exp(lambda x, out, g: g + out),
            "That is the rule for powers (x³ has the slope 3x²). In exp the x stands in the exponent, "
            "and the slope of exp is exp itself.": _exp(lambda x, out, g: g * x * math.exp(x - 1)),
            "You multiplied by x. The slope of exp is exp itself: multiply by the result.": (
                _exp(lambda x, out, g: g * x)
            ),
            "There is a factor x too many. The slope of exp is exp itself, without anything else.": (
                _exp(lambda x, out, g: g * x * out)
            ),
            "That is the rule for the logarithm, 1 / x. The slope of exp is exp itself.": (
                _exp(lambda x, out, g: g / x)
            ),
            "You divide by the result. The slope of exp is the result: multiply.": (
                _exp(lambda x, out, g: g / out)
            ),
            "exp is applied to g. An upstream gradient is only ever multiplied.": (
                _exp(lambda x, out, g: math.exp(g))
            ),
            "g is inside of exp. An upstream gradient is multiplied at the end: g times the slope.": (
                _exp(lambda x, out, g: math.exp(g * x))
            ),
            "exp is applied twice: the result is exp(x) already.": (
                _exp(lambda x, out, g: g * math.exp(out))
            ),
            "g is handed on unchanged, as if the slope were 1. The slope of exp is exp itself.": (
                _exp(lambda x, out, g: g)
            ),
        },
    ),
)
check.add(
    "tanh",
    pullback_exercise(
        ("x",),
        tanh,
        ONE,
        {
            FORGOT_G: _tanh(lambda x, out, g: 1 - out**2),
            ADDED_G: _tanh(lambda x, out, g: g + 1 - out**2),
            "The square is missing: it is 1 - out², not 1 - out.": _tanh(lambda x, out, g: g * (1 - out)),
            "It is 1 - out², with the result, not 1 - x².": _tanh(lambda x, out, g: g * (1 - x * x)),
            "That is the rule for the sigmoid, out (1 - out). For tanh it is 1 - out².": (
                _tanh(lambda x, out, g: g * out * (1 - out))
            ),
            "A plus where a minus belongs: 1 - out².": _tanh(lambda x, out, g: g * (1 + out * out)),
            "Parentheses are missing: `g * 1 - out * out` is read as `(g * 1) - (out * out)`. "
            "Write `g * (1 - out * out)`.": _tanh(lambda x, out, g: g - out * out),
            "The square belongs to out alone: 1 - out², not (1 - out)².": (
                _tanh(lambda x, out, g: g * (1 - out) ** 2)
            ),
            "The 1 is missing: 1 - out².": _tanh(lambda x, out, g: g * -out * out),
            "That is out². The slope is 1 - out².": _tanh(lambda x, out, g: g * out * out),
            "The square is missing: the slope is 1 / cosh², not 1 / cosh.": (
                _tanh(lambda x, out, g: g / math.cosh(x))
            ),
            "You multiply by cosh². Divide by it, or use 1 - out².": (
                _tanh(lambda x, out, g: g * math.cosh(x) ** 2)
            ),
            "tanh is applied twice: out is tanh(x) already.": (
                _tanh(lambda x, out, g: g * (1 - math.tanh(out) ** 2))
            ),
            "You multiply by the result. The slope of tanh is 1 - out².": _tanh(lambda x, out, g: g * out),
            "g is handed on unchanged, as if the slope were 1. It is 1 - out².": _tanh(lambda x, out, g: g),
        },
    ),
)


# --- topological order ----------------------------------------------------------------------------


def topological_order(root):
    seen, stack = {root}, [root]
    while stack:
        for parent in stack.pop().parents:
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=lambda value: -value.order)


def expression():
    """A graph with a value that is used by an early and by a late operation."""
    a, b = Value(2.0), Value(-3.0)
    c = op(multiply)(a, b)
    d = op(add)(c, a)
    e = op(multiply)(d, c)
    return op(add)(op(tanh)(e), c)


def chain(length):
    value = one = Value(1.0)
    for _ in range(length):
        value = op(add)(value, one)
    return value


def tangle(seed, length=12):
    """A random graph: each new value is made from two of the last five, or twice from the same."""
    rng = random.Random(seed)
    values = [Value(0.5), Value(-1.5)]
    for _ in range(length):
        values.append(op(add)(rng.choice(values[-5:]), rng.choice(values[-5:])))
    return values[-1]


class _Watched(Value):
    """A value that counts how often it, or another one like it, is asked for its parents."""

    asked = 0

    @property
    def parents(self):
        _Watched.asked += 1
        if _Watched.asked > MANY:
            raise Wrong(PATHS)
        return self.inputs

    @parents.setter
    def parents(self, inputs):
        self.inputs = inputs


MANY = 10_000  # far more than 30 values need, far less than their paths
PATHS = (
    "It goes along every path through the graph. Where 30 values are each used twice, there are 2³⁰ paths, "
    "and it never ends. Visit each value once."
)
RECURSES = (
    "{} is right, but it recurses, and Python stops at about 1,000 nested calls. "
    "A GPT's graph is deeper. Keep a list of the values still to visit instead."
)


def _inspect_order(answer):
    for root in (op(multiply)(Value(2.0), Value(3.0)), expression(), *map(tangle, range(10))):
        order = _as_order(answer(root))
        _inspect_order_of(root, order)
        if _as_order(answer(root)) != order:
            raise Wrong(
                "Called again with the same root, it gives another list. Is something kept between calls? "
                "(A default argument such as `seen=set()` is made only once.)"
            )
    _Watched.asked = 0
    value = _Watched(1.0)
    for _ in range(30):
        value = _Watched(2.0, (value, value))
    answer(value)
    try:
        answer(chain(3 * sys.getrecursionlimit()))
    except RecursionError:
        raise Wrong(RECURSES.format("The order")) from None


def _as_order(order):
    """The list that an answer returned; Wrong if it is something else."""
    if order is None:
        raise Wrong("It returns None: return the list.")
    if isinstance(order, set | frozenset):
        raise Wrong("It returns a set, and a set has no order. Return a list, sorted.")
    if iter(order) is order:
        raise Wrong(
            "It returns an iterator, which can be gone through only once. Backward needs the order twice: "
            "return a list, `list(...)`."
        )
    for value in order:
        if not isinstance(value, Value):
            raise Wrong(f"The list should hold Values, but it holds {type(value).__name__}.")
    return list(order)


def _inspect_order_of(root, order):
    everything = topological_order(root)
    if len(order) != len(set(order)):
        raise Wrong(
            "A value comes more than once, because two paths lead to it. "
            "Keep the values that you have seen in a set."
        )
    if set(order) - set(everything):
        raise Wrong(
            "The list holds values that do not belong to this graph. Are they from an earlier call? "
            "(A default argument such as `order=[]` is made only once.)"
        )
    if root not in order:
        raise Wrong("The root itself is missing: its gradient must be handed on first.")
    if len(order) < len(everything):
        raise Wrong(
            f"{len(everything) - len(order)} of {len(everything)} values are missing: "
            "follow all parents of every value, not only some."
        )
    if order == everything[::-1]:
        raise Wrong(
            "This is the forward order: inputs before their users. "
            "Backward needs the reverse, the root first."
        )
    place = {value: i for i, value in enumerate(order)}
    for value in order:
        for parent in value.parents:
            if place[parent] < place[value]:
                raise Wrong(
                    f"A {parent.name} comes before a {value.name} that uses it. "
                    "Its gradient would be handed on before it is complete. "
                    "The order in which you meet the values is not enough: a short path can reach a value "
                    "early, a long path late. `value.order` says when each was made."
                )


check.add("topological_order", Exercise(topological_order, inspect=_inspect_order))


# --- backward -------------------------------------------------------------------------------------


def backward(root):
    order = topological_order(root)
    for value in order:
        if value.parents or value.grad is None:
            value.grad = 0.0
    root.grad += 1.0
    for value in order:
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            parent.grad += pullback(value.grad)


def _variant(
    overwrite=False,
    seed=lambda root: 1.0,
    stale=False,
    forget=False,
    flip=False,
    through=lambda pullback, value, parent: pullback(value.grad),
    pairs=lambda value: list(zip(value.parents, value.pullbacks, strict=True)),
):
    """`backward` with one thing wrong."""

    def backward(root):
        order = topological_order(root)
        for value in order:
            if forget or value.grad is None or (value.parents and not stale):
                value.grad = 0.0
        root.grad = seed(root)
        for value in order[::-1] if flip else order:
            for parent, pullback in pairs(value):
                contribution = through(pullback, value, parent)
                parent.grad = contribution if overwrite else parent.grad + contribution

    return backward


def _path_by_path(root):
    """Hands on a gradient each time something is added to it, even if it is not complete yet."""
    for value in topological_order(root):
        if value.parents or value.grad is None:
            value.grad = 0.0
    root.grad = 1.0
    stack = [root]
    while stack:
        value = stack.pop()
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            parent.grad += pullback(value.grad)
            stack.append(parent)


def _gradients(answer, graph):
    root, times = graph()
    values = sorted(topological_order(root), key=lambda value: value.order)
    for _ in range(times):
        answer(root)
    without = sum(value.grad is None for value in values)
    if without == len(values):
        raise Wrong("No value has a gradient afterwards. Write it into `value.grad`, the root's first.")
    if without:
        raise Wrong(
            f"{without} of {len(values)} values have no gradient afterwards: their grad is still None. "
            "Every value below the root gets one, also the leaves."
        )
    return {"the gradients": np.array([value.grad for value in values])}


def _inspect_backward(answer):
    calls = itertools.count(1)

    def pullback(g):
        if next(calls) > MANY:
            raise Wrong(PATHS)
        return g

    _Watched.asked = 0
    value = _Watched(1.0)
    for _ in range(30):
        value = _Watched(2.0, (value, value), (pullback, pullback))
    answer(value)
    try:
        answer(chain(3 * sys.getrecursionlimit()))
    except RecursionError:
        raise Wrong(RECURSES.format("The gradient")) from None


def simple():
    a, b = Value(2.0), Value(-3.0)
    return op(tanh)(op(multiply)(a, b)), 1


def used_twice():
    b = op(add)(a := Value(2.0), a)
    return op(add)(b, b), 1


def tangled():
    return expression(), 1


def many_paths():
    return tangle(1), 1


def more_paths():
    return tangle(2), 1


def two_passes():
    a, b = Value(0.5), Value(-0.25)
    return op(multiply)(op(add)(a, b), op(exp)(a)), 2


def bare_leaf():
    return Value(3.0), 1


check.add(
    "backward",
    Exercise(
        backward,
        [(simple,), (used_twice,), (tangled,), (many_paths,), (more_paths,), (two_passes,), (bare_leaf,)],
        {
            "You overwrote the gradient where a value is used twice. Both uses move the result, "
            "so their contributions add up: `+=`, not `=`.": _variant(overwrite=True),
            "The root's own gradient is missing. Everything starts from d root / d root = 1.": _variant(
                seed=lambda root: 0.0
            ),
            "The root's own gradient is its value. It is d root / d root = 1.": _variant(
                seed=lambda root: root.data
            ),
            "This walks from the leaves to the root. "
            "A value can hand its gradient on only when it is complete: root first.": _variant(flip=True),
            "A second backward() goes wrong: "
            "values in the middle still held the gradients of the first pass and handed them on again. "
            "Set those to 0 first. Only leaves add up over passes.": _variant(stale=True),
            "A second backward() forgets the first. "
            "Gradients of leaves must add up over passes (so a batch can be done in parts). "
            "Only those in the middle start from 0.": _variant(forget=True),
            "Each pullback was given 1 instead of the gradient of its value. "
            "The chain rule multiplies along the way: `pullback(value.grad)`.": _variant(
                through=lambda pullback, value, parent: pullback(1.0)
            ),
            "Each pullback was given the number itself, value.data. "
            "It turns gradients into gradients: `pullback(value.grad)`.": _variant(
                through=lambda pullback, value, parent: pullback(value.data)
            ),
            "Nothing gets past the root. Does the walk begin with the root? "
            "Is each pullback given the gradient of its value, `pullback(value.grad)`?": _variant(
                through=lambda pullback, value, parent: pullback(parent.grad)
            ),
            "Gradients are handed on as they are. "
            "Ask each parent's pullback: `pullback(value.grad)`.": _variant(
                through=lambda pullback, value, parent: value.grad
            ),
            "Only the first parent of each value gets its part. "
            "Go through `zip(value.parents, value.pullbacks)`.": _variant(
                pairs=lambda value: list(zip(value.parents, value.pullbacks, strict=True))[:1]
            ),
            "Gradients are handed on before they are complete, and then again. Where paths meet, "
            "this counts some of them twice. Walk in topological order, each value once.": _path_by_path,
        },
        _gradients,
        _inspect_backward,
    ),
)


# --- pictures -------------------------------------------------------------------------------------


def graph(root, **names):
    """The Values below root as a Graph, for any class with data, grad, parents and name."""
    names = {id(value): name for name, value in names.items()}
    boxes = {}
    for value in sorted(topological_order(root), key=lambda value: value.order):
        boxes[value] = Box(
            [_label(value, names.get(id(value))), f"{value.data:.4g}"],
            [(boxes[parent], "") for parent in value.parents],
            gradient=functools.partial(_gradient_of, value),
            is_leaf=not value.parents,
        )
    return Graph(list(boxes.values()))


def _label(value, name):
    """The name, the operation, or both: "c = multiply"."""
    if not value.parents:
        return name or "leaf"
    return f"{name} = {value.name}" if name else value.name


def _gradient_of(value):
    return gradient_text(value.grad)


def plot_training(losses, points, predict):
    """Loss curves by name, and what the network says at every place of the plane."""
    figure, (left, right) = panels(2, width=8.5, height=3.4)
    for (name, curve), color in zip(losses.items(), (BLUE, GOLD, RED), strict=False):
        left.plot(curve, color=color, label=name)
    left.set(xlabel="step", ylabel="loss", yscale="log", ylim=(1e-5, 5))
    left.legend()
    grid = [i / 12 - 1.5 for i in range(37)]
    image = [[predict(x, y) for x in grid] for y in grid]
    right.imshow(image, origin="lower", extent=(-1.5, 1.5, -1.5, 1.5), cmap="RdBu_r", vmin=-1, vmax=1)
    for x, y, label in points:
        right.plot(x, y, "o", color=RED if label > 0 else BLUE, mec="white")
    right.set(title="what the network says", xticks=[], yticks=[])
    return Picture(figure, "loss and decision of a small network")
