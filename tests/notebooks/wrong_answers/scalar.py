import math

from tests.notebooks.wrong_answers import Catalogue
from workbook.scalar import check
from workbook.scalar import topological_order as right_order

catalogue = Catalogue(check)
wrong, wrong_ones = catalogue.wrong, catalogue.wrong_ones


@wrong("ignores the upstream gradient")
def add(x, y):
    return x + y, (lambda g: 1, lambda g: 1)


@wrong("Each input got its own value")
def add(x, y):
    return x + y, (lambda g: g * x, lambda g: g * y)


@wrong("rule for a product")
def add(x, y):
    return x + y, (lambda g: y * g, lambda g: x * g)


@wrong("half of g to each")
def add(x, y):
    return x + y, (lambda g: 0.5 * g, lambda g: 0.5 * g)


@wrong("Return two things")
def add(x, y):
    return x + y


@wrong("A pullback is a function")
def add(x, y):
    return x + y, (1.0, 1.0)


@wrong("must hold 2 pullbacks")
def add(x, y):
    return x + y, lambda g: g


@wrong("ignores the upstream gradient")
def multiply(x, y):
    return x * y, (lambda g: y, lambda g: x)


@wrong("swapped")
def multiply(x, y):
    return x * y, (lambda g: x * g, lambda g: y * g)


@wrong("rule for a sum")
def multiply(x, y):
    return x * y, (lambda g: g, lambda g: g)


@wrong("whole product")
def multiply(x, y):
    out = x * y
    return out, (lambda g: g * out, lambda g: g * out)


@wrong("the result has the wrong sign")
def multiply(x, y):
    return -x * y, (lambda g: g * y, lambda g: g * x)


@wrong("ignores the upstream gradient")
def exp(x):
    out = math.exp(x)
    return out, lambda g: out


@wrong("rule for powers")
def exp(x):
    return math.exp(x), lambda g: x * math.exp(x - 1) * g


@wrong("multiplied by x")
def exp(x):
    return math.exp(x), lambda g: g * x


@wrong("exp is applied to g")
def exp(x):
    return math.exp(x), lambda g: math.exp(g)


@wrong("ignores the upstream gradient")
def tanh(x):
    out = math.tanh(x)
    return out, lambda g: 1 - out**2


@wrong("square is missing")
def tanh(x):
    out = math.tanh(x)
    return out, lambda g: g * (1 - out)


@wrong("not 1 - x²")
def tanh(x):
    return math.tanh(x), lambda g: g * (1 - x**2)


@wrong("sigmoid")
def tanh(x):
    out = math.tanh(x)
    return out, lambda g: g * out * (1 - out)


@wrong("forward order")
def topological_order(root):
    return right_order(root)[::-1]


@wrong("comes more than once")
def topological_order(root):
    order, waiting = [], [root]
    while waiting:
        order.append(value := waiting.pop())
        waiting.extend(value.parents)
    return order


@wrong("comes before a")
def topological_order(root):
    order, waiting = [], [root]
    while waiting:
        value = waiting.pop(0)
        if value not in order:
            order.append(value)
            waiting.extend(value.parents)
    return order


@wrong("values are missing")
def topological_order(root):
    order, value = [root], root
    while value.parents:
        value = value.parents[0]
        order.append(value)
    return order


@wrong("root itself is missing")
def topological_order(root):
    return right_order(root)[1:]


@wrong("returns None")
def topological_order(root):
    order = right_order(root)
    order.sort(key=lambda value: -value.order)


@wrong("The order is right, but it recurses")
def topological_order(root):
    order, seen = [], set()

    def visit(value):
        if value not in seen:
            seen.add(value)
            for parent in value.parents:
                visit(parent)
            order.append(value)

    visit(root)
    return order[::-1]


def clear(order):
    for value in order:
        if value.parents or value.grad is None:
            value.grad = 0.0


@wrong("You overwrote the gradient")
def backward(root):
    order = right_order(root)
    clear(order)
    root.grad = 1.0
    for value in order:
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            parent.grad = pullback(value.grad)


@wrong("root's own gradient is missing")
def backward(root):
    order = right_order(root)
    clear(order)
    for value in order:
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            parent.grad += pullback(value.grad)


@wrong("from the leaves to the root")
def backward(root):
    order = right_order(root)
    clear(order)
    root.grad = 1.0
    for value in reversed(order):
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            parent.grad += pullback(value.grad)


@wrong("A second backward() goes wrong")
def backward(root):
    order = right_order(root)
    for value in order:
        value.grad = value.grad or 0.0
    root.grad = 1.0
    for value in order:
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            parent.grad += pullback(value.grad)


@wrong("forgets the first")
def backward(root):
    order = right_order(root)
    for value in order:
        value.grad = 0.0
    root.grad = 1.0
    for value in order:
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            parent.grad += pullback(value.grad)


@wrong("was given 1 instead")
def backward(root):
    order = right_order(root)
    clear(order)
    root.grad = 1.0
    for value in order:
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            parent.grad += pullback(1.0)


@wrong("before they are complete")
def backward(root):
    clear(right_order(root))
    root.grad = 1.0

    def visit(value):
        for parent, pullback in zip(value.parents[::-1], value.pullbacks[::-1], strict=True):
            parent.grad += pullback(value.grad)
        for parent in value.parents[::-1]:
            visit(parent)

    visit(root)


@wrong("stops with TypeError")
def backward(root):
    root.grad = 1.0
    for value in right_order(root):
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            parent.grad += pullback(value.grad)


@wrong("No value has a gradient")
def backward(root):
    gradients = dict.fromkeys(right_order(root), 0.0)
    gradients[root] = 1.0
    for value in right_order(root):
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            gradients[parent] += pullback(gradients[value])


def one(slope, forward=math.exp):
    """A rule of one input with this pullback, a function of x, the result and g."""
    return lambda x: (forward(x), lambda g: slope(x, forward(x), g))


wrong_ones(
    "add",
    {
        "rule for x - y": lambda x, y: (x + y, (lambda g: g, lambda g: -g)),
        "g is added": lambda x, y: (x + y, (lambda g: 1 + g, lambda g: 1 + g)),
        "g times the sum": lambda x, y: (x + y, (lambda g: g * (x + y), lambda g: g * (x + y))),
        "the gradient of y is 2 times": lambda x, y: (x + y, [lambda g: g, lambda g: 2 * g]),
        "the gradient of y is None": lambda x, y: (x + y, (lambda g: g, lambda g: None)),
        "No typical mistake in the result": lambda x, y: (x * y, (lambda g: g, lambda g: g)),
    },
)
wrong_ones(
    "multiply",
    {
        "y's gradient is g times y itself": lambda x, y: (x * y, (lambda g: g * y, lambda g: g * y)),
        "g is divided": lambda x, y: (x * y, (lambda g: g / y, lambda g: g / x)),
        "sum of the inputs": lambda x, y: (x * y, (lambda g: g * (x + y), lambda g: g * (x + y))),
        "No typical mistake in the result": lambda x, y: (x + y, (lambda g: g * y, lambda g: g * x)),
        "No typical mistake in the gradient of x": lambda x, y: (
            x * y, (lambda g: g * y**2, lambda g: g * x)
        ),
        "stops with ZeroDivisionError": lambda x, y: (
            x * y, (lambda g: g * (x * y) / x, lambda g: g * (x * y) / y)
        ),
        "2 pullbacks in a tuple": lambda x, y: (x * y, lambda g: (g * y, g * x)),
    },
)  # fmt: skip
wrong_ones(
    "exp",
    {
        "a factor x too many": one(lambda x, out, g: g * x * out),
        "rule for the logarithm": one(lambda x, out, g: g / x),
        "You divide by the result": one(lambda x, out, g: g * math.exp(-x)),
        "exp is applied twice": one(lambda x, out, g: g * math.exp(out)),
        "handed on unchanged": one(lambda x, out, g: g),
        "g is inside of exp": one(lambda x, out, g: math.exp(g * x)),
        "is 2 times what it should be, everywhere": one(lambda x, out, g: 2 * g * out),
        "has the wrong sign, everywhere": one(lambda x, out, g: -g * out),
        "No typical mistake in the gradient of x. Compare the cases": one(lambda x, out, g: abs(g) * out),
        "right to about 4 digits": lambda x: (2.718**x, lambda g: g * 2.718**x),
        "A pullback is a function": lambda x: (math.exp(x), math.exp(x)),
    },
)
wrong_ones(
    "tanh",
    {
        "A plus where a minus belongs": one(lambda x, out, g: g * (1 + out**2), math.tanh),
        "not 1 / cosh": one(lambda x, out, g: g / math.cosh(x), math.tanh),
        "Parentheses are missing": one(lambda x, out, g: g * 1 - out**2, math.tanh),
        "not (1 - out)²": one(lambda x, out, g: g * (1 - out) ** 2, math.tanh),
        "The 1 is missing": one(lambda x, out, g: -g * out * out, math.tanh),
        "tanh is applied twice": one(lambda x, out, g: g * (1 - math.tanh(out) ** 2), math.tanh),
        "You multiply by the result": one(lambda x, out, g: g * out, math.tanh),
        "Compare the cases": one(lambda x, out, g: g * (1 - out**3), math.tanh),
        "No typical mistake in the result": one(lambda x, out, g: g * (1 - math.tanh(x) ** 2), math.tan),
    },
)


def keeps(root, order=[]):  # noqa: B006
    order += [value for value in right_order(root) if value not in order]
    return sorted(order, key=lambda value: -value.order)


def keeps_seen(root, seen=set()):  # noqa: B006
    order = [value for value in right_order(root) if value not in seen]
    seen.update(order)
    return order


def every_path(root):
    order, waiting = [], [root]
    while waiting:
        order.append(value := waiting.pop())
        waiting.extend(value.parents)
    return sorted(set(order), key=lambda value: -value.order)


wrong_ones(
    "topological_order",
    {
        "a set has no order": lambda root: set(right_order(root)),
        "gone through only once": lambda root: iter(right_order(root)),
        "should hold Values": lambda root: [value.data for value in right_order(root)],
        "do not belong to this graph": keeps,
        "Called again with the same root": keeps_seen,
        "along every path": every_path,
    },
)


def walking(order=right_order, seed=1.0, contribution=lambda pull, value, parent: pull(value.grad)):
    def backward(root):
        clear(order(root))
        root.grad = seed
        for value in order(root):
            for parent, pull in zip(value.parents, value.pullbacks, strict=True):
                parent.grad += contribution(pull, value, parent)

    return backward


def by_recursion(root):
    clear(right_order(root))

    def visit(value, gradient):
        value.grad += gradient
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            visit(parent, pullback(gradient))

    visit(root, 1.0)


def as_met(root):
    order, waiting = [], [root]
    while waiting:
        value = waiting.pop()
        if value not in order:
            order.append(value)
            waiting.extend(value.parents)
    return order


wrong_ones(
    "backward",
    {
        "along every path": by_recursion,
        "handed on as they are": walking(contribution=lambda pull, value, parent: value.grad),
        "the number itself, value.data": walking(contribution=lambda pull, value, parent: pull(value.data)),
        "are 2 times what they should be": walking(seed=2.0),
        "right for root simple, but wrong for": walking(order=as_met),
        "Nothing gets past the root": walking(order=lambda root: right_order(root)[1:]),
        "values have no gradient afterwards": lambda root: setattr(root, "grad", 1.0),
    },
)
