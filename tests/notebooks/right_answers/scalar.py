import math

from tests.notebooks.wrong_answers import Catalogue
from workbook.scalar import check
from workbook.scalar import topological_order as right_order

catalogue = Catalogue(check)
right, right_ones = catalogue.right, catalogue.right_ones


def same(g):
    return g


right_ones(
    "add",
    lambda x, y: [x + y, [same, same]],
    lambda x, y: (y + x, (lambda g: 1.0 * g, lambda g: g * 1)),
    lambda x, y: (sum([x, y]), [same] * 2),
)
right_ones(
    "multiply",
    lambda x, y: (x * y, [lambda g: y * g, lambda g: x * g]),
    lambda x, y: [y * x, tuple((lambda g, other=other: g * other) for other in (y, x))],
    lambda x, y: (math.prod((x, y)), (y.__mul__, x.__mul__)),
)
right_ones(
    "exp",
    lambda x: (math.exp(x), lambda g: math.exp(x) * g),
    lambda x: [math.e**x, [lambda g: g * math.e**x]],
    lambda x: (math.exp(x), (lambda g: g / math.exp(-x),)),
)
right_ones(
    "tanh",
    lambda x: (math.tanh(x), (lambda g: g / math.cosh(x) ** 2,)),
    lambda x: [math.tanh(x), lambda g: g - g * math.tanh(x) ** 2],
    lambda x: (2 / (1 + math.exp(-2 * x)) - 1, lambda g: 4 * g / (math.exp(x) + math.exp(-x)) ** 2),
    lambda x: (math.tanh(x), [lambda g: g * (1 - math.tanh(x)) * (1 + math.tanh(x))]),
)


@right
def topological_order(root):
    """Each value once all of its users have been."""
    users = {}
    stack, seen = [root], {root}
    while stack:
        for parent in (value := stack.pop()).parents:
            users.setdefault(parent, []).append(value)
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    order, ready = [], [root]
    while ready:
        order.append(value := ready.pop())
        for parent in value.parents:
            users[parent].remove(value)
            if not users[parent]:
                ready.append(parent)
    return order


@right
def topological_order(root):
    """Depth first, with a stack of its own; a tuple."""
    order, done, stack = [], set(), [(root, False)]
    while stack:
        value, parents_are_done = stack.pop()
        if parents_are_done:
            order.append(value)
        elif value not in done:
            done.add(value)
            stack.append((value, True))
            stack.extend((parent, False) for parent in value.parents)
    return tuple(reversed(order))


@right
def topological_order(root):
    """The newest first, found by their order."""
    found, waiting = {root.order: root}, [root]
    for value in waiting:  # grows while it is walked through
        new = [parent for parent in value.parents if parent.order not in found]
        found.update((parent.order, parent) for parent in new)
        waiting.extend(new)
    return [found[order] for order in sorted(found, reverse=True)]


@right
def backward(root):
    """Sums in a dictionary first."""
    gradients = dict.fromkeys(right_order(root), 0.0)
    gradients[root] = 1.0
    for value, gradient in gradients.items():
        for parent, pullback in zip(value.parents, value.pullbacks, strict=True):
            gradients[parent] += pullback(gradient)
        value.grad = gradient if value.parents or value.grad is None else value.grad + gradient


@right
def backward(root):
    for value in (order := right_order(root)):
        value.grad = 0.0 if value.parents else (value.grad or 0.0)
    root.grad = 1.0
    for value in order:
        for i in range(len(value.parents)):
            value.parents[i].grad = value.parents[i].grad + value.pullbacks[i](value.grad)


@right
def backward(root):
    """None stands for 0 until something arrives; a list of lists is thrown away at the end."""
    order = right_order(root)
    for value in order:
        if value.parents:
            value.grad = None
    root.grad = (root.grad or 0.0) + 1.0
    for value in order:
        for parent, pull in zip(value.parents, value.pullbacks, strict=True):
            parent.grad = pull(value.grad) if parent.grad is None else parent.grad + pull(value.grad)
    return order
