"""Notebook 5: layer norm and AdamW."""

import numpy as np

import autograd as ag
from autograd import Tensor
from workbook.checking import Checks, Exercise, Wrong
from workbook.pictures import BLUE, GOLD, GREEN, GREY, RED, Picture, panels

check = Checks()
RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.normal(size=shape)


# --- layer_norm, composed ---------------------------------------------------------------------------------------------------


def layer_norm(x, weight, bias, eps=1e-5):
    return ag.layer_norm(x, weight, bias, eps)


def _composed(scale, center=lambda x: x - x.mean(-1, keepdims=True)):
    """A layer norm from what divides x, or from what is divided."""
    return lambda x, weight, bias, eps: center(x) * scale(x, eps) * weight + bias


def _var(x):
    return x.var(-1, keepdims=True)


def _on_tensors(function, *arrays):
    *tensors, eps = [Tensor(a) if isinstance(a, np.ndarray) else a for a in arrays]
    out = function(*tensors, eps)
    if out is not None and not isinstance(out, Tensor):
        raise Wrong(f"It returns {type(out).__name__}, not a Tensor, so nothing was recorded: use the methods of x.")
    return {"the result": None if out is None else out.data}


NEARLY_CONSTANT = np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 2.001, 1.999, 2.0], [5.0, -1.0, 0.5, 2.0], [0.0, 1.0, 0.0, -1.0]])

check.add(
    "layer_norm",
    Exercise(
        layer_norm,
        [
            (normal(4, 4), normal(4), normal(4), 1e-5),
            (NEARLY_CONSTANT, normal(4), normal(4), 1e-5),
            (normal(2, 3, 8), normal(8), normal(8), 1e-3),
        ],
        {
            "The variance is divided by n - 1 (Bessel's correction). Layer norm divides by n: it does not estimate anything, it "
            "just normalises.": _composed(lambda x, eps: (x.var(-1, keepdims=True, ddof=1) + eps) ** -0.5),
            "eps stands outside of the root. It belongs inside, added to the variance: 1 / sqrt(var + eps).": _composed(
                lambda x, eps: 1.0 / (_var(x) ** 0.5 + eps)
            ),
            "eps is missing: a row whose values are all equal has the variance 0, and 0 / 0 is nan.": _composed(
                lambda x, eps: _var(x) ** -0.5
            ),
            "You divide by the variance, not by its root.": _composed(lambda x, eps: 1.0 / (_var(x) + eps)),
            "You multiply by the standard deviation instead of dividing by it.": _composed(lambda x, eps: (_var(x) + eps) ** 0.5),
            "The mean is not subtracted.": _composed(lambda x, eps: (_var(x) + eps) ** -0.5, lambda x: x),
            "Mean and variance run over the batch (axis 0). That is batch norm; layer norm looks at one row at a time, axis "
            "-1.": _composed(lambda x, eps: (x.var(0, keepdims=True) + eps) ** -0.5, lambda x: x - x.mean(0, keepdims=True)),
            "Mean and variance run over the whole array. Each row is normalised by itself: axis -1, keepdims=True.": _composed(
                lambda x, eps: (x.var() + eps) ** -0.5, lambda x: x - x.mean()
            ),
            "weight and bias are not applied.": lambda x, weight, bias, eps: (
                (x - x.mean(-1, keepdims=True)) * (_var(x) + eps) ** -0.5
            ),
            "The bias is not added.": lambda x, weight, bias, eps: (
                (x - x.mean(-1, keepdims=True)) * (_var(x) + eps) ** -0.5 * weight
            ),
            "The bias is added before the weight multiplies. It comes last.": lambda x, weight, bias, eps: (
                ((x - x.mean(-1, keepdims=True)) * (_var(x) + eps) ** -0.5 + bias) * weight
            ),
        },
        _on_tensors,
    ),
)


# --- layer_norm_pullback ------------------------------------------------------------------------------------------------------


def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat = dout * weight
    dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
    return dx, (dout * xhat).sum(0), dout.sum(0)


def mean(a):
    return a.mean(-1, keepdims=True)


def _pullback(dx=None, dweight=lambda dout, xhat: (dout * xhat).sum(0), dbias=lambda dout: dout.sum(0)):
    """The pullback with another dx (from dxhat, xhat, rstd, weight, dout), dweight or dbias."""

    def wrong(dout, xhat, rstd, weight):
        right = layer_norm_pullback(dout, xhat, rstd, weight)[0]
        return dx(dout * weight, xhat, rstd, weight, dout) if dx else right, dweight(dout, xhat), dbias(dout)

    return wrong


def _dx(d, xhat, rstd):
    return rstd * (d - mean(d) - xhat * mean(d * xhat))


def normalised(x, eps=1e-5):
    """xhat and rstd of the rows of x."""
    rstd = (x.var(-1, keepdims=True) + eps) ** -0.5
    return (x - mean(x)) * rstd, rstd


def _case(rows, channels, eps=1e-5):
    return normal(rows, channels), *normalised(normal(rows, channels) * 2 + 1, eps), normal(channels)


def _three(function, *case):
    answer = function(*case)
    if not isinstance(answer, tuple) or len(answer) != 3:
        raise Wrong("Return three arrays: dx, dweight, dbias.")
    return dict(zip(("dx", "dweight", "dbias"), answer, strict=True))


check.add(
    "layer_norm_pullback",
    Exercise(
        layer_norm_pullback,
        [_case(4, 4), _case(3, 8), _case(2, 64, 1e-2)],
        {
            "In dx you held the standard deviation constant: the term - xhat * mean(dxhat * xhat) is missing. The result points "
            "nearly in the right direction, which is why training would not show it. (Or did you write mean(dxhat) * mean(xhat)? "
            "That is 0.)": _pullback(lambda d, xhat, r, w, dout: r * (d - mean(d))),
            "In dx you held the mean constant: the term - mean(dxhat) is missing.": _pullback(
                lambda d, xhat, r, w, dout: r * (d - xhat * mean(d * xhat))
            ),
            "In dx you held both mean and standard deviation constant: it is more than rstd * dxhat.": _pullback(
                lambda d, xhat, r, w, dout: r * d
            ),
            "A Bessel slip in dx: the mean of dxhat * xhat divides by n - 1. Everything here divides by n.": _pullback(
                lambda d, xhat, r, w, dout: r * (d - mean(d) - xhat * mean(d * xhat) * xhat.shape[-1] / (xhat.shape[-1] - 1))
            ),
            "The weight is missing from dx: it multiplied xhat on the way forward, so dxhat = dout * weight.": _pullback(
                lambda d, xhat, r, w, dout: _dx(dout, xhat, r)
            ),
            "The weight multiplies dx at the end. It belongs to the beginning, dxhat = dout * weight, before the means are "
            "taken.": _pullback(lambda d, xhat, r, w, dout: w * _dx(dout, xhat, r)),
            "The factor rstd in front of dx is missing.": _pullback(
                lambda d, xhat, r, w, dout: d - mean(d) - xhat * mean(d * xhat)
            ),
            "dx is divided by rstd. rstd is 1 / std: multiply.": _pullback(lambda d, xhat, r, w, dout: _dx(d, xhat, r) / r**2),
            "In dx there are sums where means belong.": _pullback(
                lambda d, xhat, r, w, dout: r * (d - d.sum(-1, keepdims=True) - xhat * (d * xhat).sum(-1, keepdims=True))
            ),
            "The means in dx run over the batch. Layer norm looks at one row at a time: axis -1.": _pullback(
                lambda d, xhat, r, w, dout: r * (d - d.mean(0) - xhat * (d * xhat).mean(0))
            ),
            "In dx the second term lacks its xhat: xhat * mean(dxhat * xhat).": _pullback(
                lambda d, xhat, r, w, dout: r * (d - mean(d) - mean(d * xhat))
            ),
            "dweight lacks xhat, which the weight was multiplied with: (dout * xhat).sum(0).": _pullback(
                dweight=lambda dout, xhat: dout.sum(0)
            ),
            "dweight is not summed. The same weight was used in every row: sum(0).": _pullback(
                dweight=lambda dout, xhat: dout * xhat
            ),
            "dweight and dbias are averaged over the rows. Uses add up: sum(0).": _pullback(
                None, lambda dout, xhat: (dout * xhat).mean(0), lambda dout: dout.mean(0)
            ),
            "dbias is not summed. The same bias was added in every row: sum(0).": _pullback(dbias=lambda dout: dout),
        },
        _three,
    ),
)


# --- adamw_step -----------------------------------------------------------------------------------------------------------------


def adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    step = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return p * (1 - lr * weight_decay) - lr * step, m, v


def _adamw(correct=True, l2=False, decay="lr", eps="out", swap=False, square=True, forget=1.0, sign=-1.0, late=0, linear=False):
    """adamw_step with one thing wrong."""

    def wrong(p, g, m, v, t, lr, beta1, beta2, eps_, weight_decay):
        if swap:
            beta1, beta2 = beta2, beta1
        if l2:
            g = g + weight_decay * p
        m = beta1 * m + (1 - beta1 if forget else 1.0) * g
        v = beta2 * v + (1 - beta2 if forget else 1.0) * (g * g if square else np.abs(g))
        power = (lambda b: b * t) if linear else (lambda b: b ** (t - late))
        c1, c2 = (1 - power(beta1), 1 - power(beta2)) if correct else (1.0, 1.0)
        root = np.sqrt(v / c2 + eps_) if eps == "in" else np.sqrt(v / c2) + eps_
        root = v / c2 + eps_ if eps == "no root" else root
        shrink = {"lr": 1 - lr * weight_decay, "no lr": 1 - weight_decay, "none": 1.0}["none" if l2 else decay]
        return p * shrink + sign * lr * (m / c1) / root, m, v

    return wrong


def _corrected(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    new_p, new_m, new_v = adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay)
    return new_p, new_m / (1 - beta1**t), new_v / (1 - beta2**t)


def _steps(t, eps=1e-2, lr=0.1):
    zeros = np.zeros(4)
    m, v = (zeros, zeros) if t == 1 else (normal(4), normal(4) ** 2)
    return normal(4) + 2, normal(4), m, v, t, lr, 0.9, 0.99, eps, 0.3


check.add(
    "adamw_step",
    Exercise(
        adamw_step,
        [_steps(1), _steps(2), _steps(7), _steps(200, 1e-8, 0.01)],
        {
            "No bias correction. m and v start at 0, so at first they are too small: divide by 1 - beta**t.": _adamw(
                correct=False
            ),
            "This is L2 regularisation: the decay went into the gradient, and is then divided by sqrt(v), so weights with large "
            "gradients hardly decay. Decoupled means: shrink p itself, p * (1 - lr * weight_decay).": _adamw(l2=True),
            "The decay lacks lr: p * (1 - lr * weight_decay).": _adamw(decay="no lr"),
            "The weights do not decay: p * (1 - lr * weight_decay) is missing.": _adamw(decay="none"),
            "eps stands inside the root. In Adam it is added after: sqrt(v) + eps.": _adamw(eps="in"),
            "The root is missing: divide by sqrt(v), not by v.": _adamw(eps="no root"),
            "beta1 and beta2 are swapped: beta1 belongs to m, beta2 to v.": _adamw(swap=True),
            "v must follow the square of the gradient, g * g.": _adamw(square=False),
            "The new gradient comes in with weight 1. In a running average old and new share: beta * m + (1 - beta) * g.": _adamw(
                forget=0.0
            ),
            "The step goes uphill: subtract it.": _adamw(sign=1.0),
            "The bias correction counts from 0: at the first step, t = 1, it is 1 - beta**1. With t - 1 you divide by 0.": _adamw(
                late=1
            ),
            "The bias correction is 1 - beta**t, a power, not beta * t.": _adamw(linear=True),
            "m and v come back corrected. Keep the plain averages; the correction is only for this step.": _corrected,
        },
        lambda function, *case: _named(function(*case)),
    ),
)


def _named(answer):
    if not isinstance(answer, tuple) or len(answer) != 3:
        raise Wrong("Return three arrays: the new p, m and v.")
    return dict(zip(("p", "m", "v"), answer, strict=True))


# --- pictures -----------------------------------------------------------------------------------------------------------------


def plot_depth(signals):
    """The size of a signal after each layer of a deep network, for several ways of building it."""
    figure, axes = panels(width=6.5, height=3.2)
    for (name, sizes), color in zip(signals.items(), (RED, GOLD, BLUE), strict=False):
        axes.semilogy(sizes, color=color, label=name)
    axes.set(xlabel="layer", ylabel="standard deviation of the signal")
    axes.legend()
    return Picture(figure, "signals in a deep network")


def plot_projection(x, dxhat):
    """Layer norm of three channels, seen along the direction (1, 1, 1): its results lie on a circle."""
    axis1, axis2 = np.array([1.0, -1.0, 0.0]) / 2**0.5, np.array([1.0, 1.0, -2.0]) / 6**0.5
    flat = lambda a: np.array([a @ axis1, a @ axis2])
    xhat = (x - x.mean()) / x.std()
    in_plane = dxhat - dxhat.mean()
    dx = in_plane - xhat * (dxhat * xhat).mean()
    figure, axes = panels(width=5.2, height=4.6)
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(3**0.5 * np.cos(angle), 3**0.5 * np.sin(angle), color=GREY, lw=1)
    base = flat(xhat)
    for start, vector, color, name in (
        (np.zeros(2), base, GREY, "x̂"),
        (base, flat(in_plane), GOLD, "dx̂ − mean(dx̂)"),
        (base, flat(dx), BLUE, "dx / rstd"),
        (base, flat(in_plane - dx), RED, "x̂ mean(dx̂ x̂)"),
    ):
        axes.annotate("", start + vector, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2})
        axes.plot([], [], color=color, lw=2, label=name)
    axes.plot(*np.stack([base + flat(dx), base + flat(in_plane)]).T, color=GREY, lw=0.8, ls=":")
    axes.set(xlim=(-2.3, 3.6), ylim=(-2.3, 3.0), aspect="equal", xticks=[], yticks=[])
    axes.legend(loc="lower right", fontsize=9)
    return Picture(figure, "the gradient of layer norm as a projection")


def ravine(p):
    """A long, narrow valley: (value, gradient)."""
    curvature = np.array([1.0, 40.0])
    return 0.5 * (curvature * p * p).sum(), curvature * p


def plot_paths(paths):
    """The paths of optimisers over the ravine."""
    figure, axes = panels(len(paths), width=9, height=2.6, sharey=True)
    xs, ys = np.meshgrid(np.linspace(-5, 1.5, 120), np.linspace(-1.3, 1.3, 60))
    values = 0.5 * (xs**2 + 40 * ys**2)
    for ax, (name, path) in zip(axes, paths.items(), strict=True):
        ax.contour(xs, ys, values, levels=[0.1, 0.5, 2, 5, 10, 20, 30], colors=GREY, linewidths=0.5)
        ax.plot(*np.array(path).T, ".-", color=BLUE, ms=3, lw=0.8)
        ax.plot(0, 0, "*", color=RED, ms=9)
        left = f"left after {len(path) - 1} steps: {ravine(path[-1])[0]:.1g}"
        ax.set(title=f"{name}\n{left}", xlim=(-5, 1.5), ylim=(-1.3, 1.3), xticks=[], yticks=[])
    return Picture(figure, "paths of " + ", ".join(paths))


def plot_decay(curves):
    """Two weights, with large and with small gradients, under both kinds of decay."""
    figure, axes = panels(len(curves), width=8, height=2.8, sharey=True)
    for ax, (name, path) in zip(axes, curves.items(), strict=True):
        for weight, label, color in zip(np.array(path).T, ("large gradients", "small gradients"), (RED, GREEN), strict=True):
            ax.plot(weight, color=color, label=label)
        ax.set(title=name, xlabel="step", ylim=(-0.1, 1.05))
    axes[0].set(ylabel="weight")
    axes[0].legend()
    return Picture(figure, "two weights decaying")
