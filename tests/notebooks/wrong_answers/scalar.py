import math

from tests.notebooks.wrong_answers import Catalogue
from workbook.scalar import check
from workbook.scalar import topological_order as right_order

catalogue = Catalogue(check)
wrong, right = catalogue.wrong, catalogue.right


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


@right
def tanh(x):
    return math.tanh(x), (lambda g: g / math.cosh(x) ** 2,)


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


@right
def topological_order(root):
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
