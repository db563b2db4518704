"""Negative controls: bugs that are easily made are planted one at a time, and the ordinary checks must catch
each.

A gradient check that cannot fail proves nothing. `Planted` swaps one function for a wrong one; the check
named with it is the same one that test_gradients.py runs on the right code.
"""

import numpy as np
import pytest

import autograd as ag
from autograd import AdamW, Tensor
from autograd import tensor as tape
from autograd.ops import attention, elementwise, linalg, nn, reduce
from tests.autograd import test_optim, test_tensor
from tests.support.opcases import check_case


def with_vjp(op, position, wrong):
    """The operation's raw function with the pullback of one input replaced by wrong(right pullback, inputs,
    output).
    """
    right = op.raw

    def raw(*inputs, **options):
        output, vjps = right(*inputs, **options)
        vjps = (vjps,) if callable(vjps) else tuple(vjps)
        bad = lambda g: wrong(vjps[position], inputs, output)(g)
        return output, (*vjps[:position], bad, *vjps[position + 1 :])

    return raw


def with_option(op, **forced):
    """The operation, always called with these options, but still differentiated as the original would be."""
    right = op.raw
    return lambda *inputs, **options: (right(*inputs, **options)[0], right(*inputs, **(options | forced))[1])


# --- the tape -------------------------------------------------------------------------------------


def accumulate_in_place(patch):
    """The classic: the first gradient array is kept without a copy and added to in place, though add() shares
    it.
    """

    def walk(root, gradient, retain_graph):
        gradients, order, stack = {root: gradient}, [], [root]
        while stack:
            node = stack.pop()
            order.append(node)
            stack += [p for p in node.parents if isinstance(p, tape.Node)]
        for node in sorted(set(order), key=lambda n: -n.order):
            for parent, vjp in zip(node.parents, node.vjps, strict=False):
                contribution = vjp(gradients[node])
                if isinstance(parent, Tensor):
                    if parent.grad is None:
                        parent.grad = contribution
                    else:
                        parent.grad += contribution
                elif parent in gradients:
                    gradients[parent] += contribution
                elif parent is not None:
                    gradients[parent] = contribution

    patch.setattr(tape, "_walk", walk)


def overwrite_leaf_gradient(patch):
    def overwrite(leaf, gradient):
        leaf.grad = gradient.copy()

    patch.setattr(tape, "_add_to_leaf", overwrite)


def forget_to_copy_leaf_gradient(patch):
    def alias(leaf, gradient):
        if leaf.grad is None:
            leaf.grad = gradient
        else:
            leaf.grad += gradient

    patch.setattr(tape, "_add_to_leaf", alias)


# --- planting a wrong pullback --------------------------------------------------------------------


def vjp(op, position, wrong):
    return lambda patch: patch.setattr(op, "raw", with_vjp(op, position, wrong))


def unbroadcast_only_new_axes(patch):
    def wrong(gradient, shape):
        return gradient.sum(tuple(range(gradient.ndim - len(shape)))) + np.zeros(shape)

    patch.setattr(
        elementwise, "unbroadcast", lambda g, shape: wrong(g, shape)[tuple(slice(n) for n in shape)]
    )


def unbroadcast_takes_first(patch):
    patch.setattr(
        elementwise,
        "unbroadcast",
        lambda g, shape: g[(0,) * (g.ndim - len(shape))][tuple(slice(n) for n in shape)],
    )


def layer_norm_detached_std(right, inputs, output):
    def dx(dout):
        x, weight = inputs[0], inputs[1]
        dxhat = dout * weight
        return (dxhat - dxhat.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    return dx


def layer_norm_bessel(right, inputs, output):
    n = inputs[0].shape[-1]
    return lambda dout: right(dout) * np.sqrt((n - 1) / n)


def gather_assigns(right, inputs, output):
    def dx(g):
        out = np.zeros_like(inputs[0])
        out[np.array([[1, 0, 1], [1, 2, 1]])] = g
        return out

    return dx


def embedding_assigns(patch):
    def wrong(rows, ids, n):
        out = np.zeros((n, rows.shape[1]))
        out[ids] = rows
        return out

    patch.setattr(nn, "sum_rows_by_id", wrong)


def attention_without_delta(right, inputs, output):
    """The softmax inside attention treated as if its normalisation were constant."""
    qkv = Tensor(inputs[0], requires_grad=True)

    def dqkv(dout):
        q, k, v = (t.reshape(2, 4, 2, 2).swapaxes(1, 2) for t in ag.split(qkv, 3, axis=-1))
        scores = ag.masked_fill(q @ k.swapaxes(-1, -2) * 2**-0.5, np.triu(np.ones((4, 4), bool), 1), -np.inf)
        e = (scores - scores.max(-1, keepdims=True).detach()).exp()
        y = (e / e.sum(-1, keepdims=True).detach()) @ v
        qkv.grad = None
        y.swapaxes(1, 2).reshape(2, 4, 4).backward(dout)
        return qkv.grad

    return dqkv


def attention_ignores_dropout_in_backward(patch):
    right = ag.causal_attention.raw

    def raw(qkv, n_head, dropout=0.0, stream=None):
        return right(qkv, n_head, dropout=dropout, stream=stream)[0], right(qkv, n_head)[1]

    patch.setattr(ag.causal_attention, "raw", raw)


def scale_of(right, inputs, output):
    return lambda g: right(g) * 1.01


def gelu_forms_mixed(right, inputs, output):
    return elementwise.gelu_exact.raw(inputs[0])[1]


def adamw_l2_instead_of_decay(patch):
    right = AdamW._update_chunk

    def wrong(self, chunk):
        group, part = chunk
        group["grad"][part] += group["weight_decay"] * group["data"][part]
        decay, group["weight_decay"] = group["weight_decay"], 0.0
        right(self, chunk)
        group["weight_decay"] = decay

    patch.setattr(AdamW, "_update_chunk", wrong)


def adamw_without_bias_correction(patch):
    right = AdamW._update_chunk

    def wrong(self, chunk):
        self.steps += 10**9
        right(self, chunk)
        self.steps -= 10**9

    patch.setattr(AdamW, "_update_chunk", wrong)


def case(name):
    return lambda: check_case(name)


BUGS = {
    "gradients added in place to a shared array": (
        accumulate_in_place,
        test_tensor.test_a_gradient_shared_by_add_is_not_added_to,
    ),
    "= for += at a leaf used twice": (overwrite_leaf_gradient, case("square")),
    "leaf gradient aliases the upstream gradient": (
        forget_to_copy_leaf_gradient,
        test_tensor.test_gradients_of_two_leaves_do_not_share_memory,
    ),
    "missing un-broadcast of a stretched axis": (unbroadcast_only_new_axes, case("subtract")),
    "un-broadcast takes the first instead of the sum": (unbroadcast_takes_first, case("add")),
    "subtract forgets its sign": (
        vjp(elementwise.subtract, 1, lambda r, i, o: lambda g: -r(g)),
        case("subtract"),
    ),
    "divide: 1/y for 1/y²": (
        vjp(elementwise.divide, 1, lambda r, i, o: lambda g: r(g) * i[1]),
        case("divide"),
    ),
    "power: x**y for x**(y-1)": (
        vjp(elementwise.power, 0, lambda r, i, o: lambda g: r(g * i[0])),
        case("power"),
    ),
    "sigmoid: missing 1 - out": (
        vjp(elementwise.sigmoid, 0, lambda r, i, o: lambda g: g * o),
        case("sigmoid"),
    ),
    "tanh: 1 - out for 1 - out²": (
        vjp(elementwise.tanh, 0, lambda r, i, o: lambda g: g * (1 - o)),
        case("tanh"),
    ),
    "gelu: derivative of the exact form": (vjp(elementwise.gelu, 0, gelu_forms_mixed), case("gelu")),
    "relu lets everything through": (vjp(elementwise.relu, 0, lambda r, i, o: lambda g: g), case("relu")),
    "clip lets everything through": (vjp(elementwise.clip, 0, lambda r, i, o: lambda g: g), case("clip")),
    "mean: missing 1/N": (vjp(reduce.mean, 0, lambda r, i, o: lambda g: r(g) * 8), case("mean")),
    "var: Bessel's n - 1": (vjp(reduce.var, 0, lambda r, i, o: lambda g: r(g) * 5 / 4), case("var")),
    "max: gradient to every element": (
        vjp(reduce.max, 0, lambda r, i, o: lambda g: np.broadcast_to(g, i[0].shape)),
        case("max"),
    ),
    "matmul: forgets to transpose": (
        vjp(
            linalg.matmul,
            0,
            lambda r, i, o: lambda g: g @ i[1].reshape(4, 3),
        ),
        case("matmul"),
    ),
    "linear: bias gradient averaged": (
        vjp(linalg.linear, 2, lambda r, i, o: lambda g: r(g) / 6),
        case("linear"),
    ),
    "linear: activation left out of the pullback": (
        lambda patch: patch.setattr(ag.linear, "raw", with_option(ag.linear, activation=None)),
        case("linear_relu"),
    ),
    "repeated index assigned instead of added": (vjp(ag.getitem, 0, gather_assigns), case("gather")),
    "embedding: repeated id assigned instead of added": (embedding_assigns, case("embedding")),
    "concatenate: parts swapped": (
        vjp(ag.ops.shape._concatenate, 1, lambda r, i, o: lambda g: g[:, :1]),
        case("concatenate"),
    ),
    "softmax: only the diagonal of the Jacobian": (
        vjp(nn.softmax, 0, lambda r, i, o: lambda g: g * o * (1 - o)),
        case("softmax"),
    ),
    "log_softmax: softmax's own pullback": (
        vjp(nn.log_softmax, 0, lambda r, i, o: lambda g: g - g.sum(-1, keepdims=True) / 4),
        case("log_softmax"),
    ),
    "layer_norm: std detached": (vjp(nn.layer_norm, 0, layer_norm_detached_std), case("layer_norm")),
    "layer_norm: Bessel's variance": (vjp(nn.layer_norm, 0, layer_norm_bessel), case("layer_norm")),
    "cross_entropy: sum instead of mean": (
        vjp(nn.cross_entropy, 0, lambda r, i, o: lambda g: r(g) * 5),
        case("cross_entropy"),
    ),
    "cross_entropy: mean over ignored tokens too": (
        vjp(nn.cross_entropy, 0, lambda r, i, o: lambda g: r(g) * 5 / 6),
        case("cross_entropy"),
    ),
    "cross_entropy: forgets to subtract the target": (
        vjp(
            nn.cross_entropy,
            0,
            lambda r, i, o: lambda g: np.exp(i[0] - np.log(np.exp(i[0]).sum(-1, keepdims=True))) * g / 6,
        ),
        case("cross_entropy"),
    ),
    "dropout: no mask in the pullback": (vjp(nn.dropout, 0, lambda r, i, o: lambda g: g), case("dropout")),
    "attention: scale off in the pullback": (
        lambda patch: patch.setattr(ag.causal_attention, "raw", with_option(ag.causal_attention, scale=0.5)),
        case("causal_attention"),
    ),
    "attention: softmax's normalisation held constant": (
        vjp(attention.causal_attention, 0, attention_without_delta),
        case("causal_attention"),
    ),
    "attention: dropout forgotten in the pullback": (
        attention_ignores_dropout_in_backward,
        case("causal_attention_dropout"),
    ),
    "one percent off": (vjp(elementwise.multiply, 0, scale_of), case("multiply")),
    "AdamW: L2 in place of decoupled decay": (
        adamw_l2_instead_of_decay,
        test_optim.test_adamw_follows_its_formula,
    ),
    "AdamW: no bias correction": (adamw_without_bias_correction, test_optim.test_adamw_follows_its_formula),
}


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_caught(name, monkeypatch):
    plant, check = BUGS[name]
    check()  # the right code passes
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
