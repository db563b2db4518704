"""Notebook 5: layer norm and AdamW."""

import numpy as np

import autograd as ag
from workbook.checking import Checks, Exercise, named_results, random_arrays, with_pairs
from workbook.on_tensors import tensor_exercise
from workbook.pictures import BLUE, GOLD, GREEN, GREY, RED, Picture, panels

check = Checks()
normal = random_arrays(5)


# --- layer_norm, composed -------------------------------------------------------------------------


def layer_norm(x, weight, bias, eps=1e-5):
    return ag.layer_norm(x, weight, bias, eps)


def _composed(
    var=lambda x: x.var(-1, keepdims=True),
    rstd=lambda var, eps: (var + eps) ** -0.5,
    center=lambda x: x - x.mean(-1, keepdims=True),
    affine=lambda xhat, weight, bias: xhat * weight + bias,
):
    """A layer norm from its parts, so that one or two of them can be wrong."""
    return lambda x, weight, bias, eps: affine(center(x) * rstd(var(x), eps), weight, bias)


NEARLY_CONSTANT = np.array(
    [[1.0, 1.0, 1.0, 1.0], [2.0, 2.001, 1.999, 2.0], [5.0, -1.0, 0.5, 2.0], [0.0, 1.0, 0.0, -1.0]]
)

check.add(
    "layer_norm",
    tensor_exercise(
        ("x", "weight", "bias"),
        layer_norm,
        [
            (normal(4, 4), normal(4), normal(4), 1e-5),
            (NEARLY_CONSTANT, normal(4), normal(4), 1e-5),
            (normal(2, 3, 8), normal(8), normal(8), 1e-3),
            (normal(1, 3), normal(3), normal(3), 1e-5),
        ],
        with_pairs(
            _composed,
            {
                "The variance is divided by n - 1 (Bessel's correction). Layer norm divides by n: "
                "it estimates nothing, "
                "it only normalises.": {"var": lambda x: x.var(-1, keepdims=True, ddof=1)},
                "Mean and variance run over the batch (axis 0). That is batch norm. "
                "Layer norm looks at one row at a time, axis -1.": {
                    "var": lambda x: x.var(0, keepdims=True),
                    "center": lambda x: x - x.mean(0, keepdims=True),
                },
                "Mean and variance run over axis 1. In a stack of matrices that is not the last axis: "
                "axis -1.": {
                    "var": lambda x: x.var(1, keepdims=True),
                    "center": lambda x: x - x.mean(1, keepdims=True),
                },
                "Mean and variance run over the whole array. "
                "Each row is normalised by itself: axis -1, keepdims=True.": {
                    "var": lambda x: x.var(),
                    "center": lambda x: x - x.mean(),
                },
                "eps stands outside the root. It belongs inside, added to the variance: "
                "1 / sqrt(var + eps).": {"rstd": lambda var, eps: 1.0 / (var**0.5 + eps)},
                "eps is missing: a row whose values are all equal has the variance 0, and 0 / 0 is nan.": {
                    "rstd": lambda var, eps: var**-0.5
                },
                "You divide by the variance, not by its root.": {"rstd": lambda var, eps: 1.0 / (var + eps)},
                "You multiply by the standard deviation instead of dividing by it.": {
                    "rstd": lambda var, eps: (var + eps) ** 0.5
                },
                "The standard deviation does not reach the tape (`.data` or `detach()`), so its part of the "
                "gradient is missing. Let it be a Tensor.": {
                    "var": lambda x: x.detach().var(-1, keepdims=True)
                },
                "The mean does not reach the tape (`.data` or `detach()`), so its part of the "
                "gradient is missing. Let it be a Tensor.": {
                    "center": lambda x: x - x.detach().mean(-1, keepdims=True)
                },
                "The mean is not subtracted.": {"center": lambda x: x},
                "eps is ignored: it is always 1e-5. Use the argument.": {
                    "rstd": lambda var, eps: (var + 1e-5) ** -0.5
                },
                "This is the mean of x², not the variance: subtract the mean before squaring.": {
                    "var": lambda x: (x * x).mean(-1, keepdims=True)
                },
                "The variance has lost its axis, so it lines up with the channels instead of the rows: "
                "`keepdims=True`.": {"var": lambda x: x.var(-1)},
                "The mean has lost its axis, so it lines up with the channels instead of the rows: "
                "`keepdims=True`.": {"center": lambda x: x - x.mean(-1)},
                "weight and bias have changed places: times weight, plus bias.": {
                    "affine": lambda xhat, weight, bias: xhat * bias + weight
                },
                "The bias is subtracted. Add it.": {
                    "affine": lambda xhat, weight, bias: xhat * weight - bias
                },
                "The weight does not multiply.": {"affine": lambda xhat, weight, bias: xhat + bias},
                "weight and bias are not applied.": {"affine": lambda xhat, weight, bias: xhat},
                "The bias is not added.": {"affine": lambda xhat, weight, bias: xhat * weight},
                "The bias is added before the weight multiplies. The bias comes last.": {
                    "affine": lambda xhat, weight, bias: (xhat + bias) * weight
                },
            },
        ),
    ),
)


# --- layer_norm_pullback --------------------------------------------------------------------------


def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat = dout * weight
    dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
    return dx, (dout * xhat).sum(0), dout.sum(0)


def mean(a):
    return a.mean(-1, keepdims=True)


def _pullback(
    dxhat=lambda dout, weight: dout * weight,
    along_ones=mean,
    along_xhat=lambda d, xhat: xhat * mean(d * xhat),
    factor=lambda rstd, weight: rstd,
    dweight=lambda dout, xhat: (dout * xhat).sum(0),
    dbias=lambda dout: dout.sum(0),
):
    """The pullback from its parts, so that one or two of them can be wrong."""

    def wrong(dout, xhat, rstd, weight):
        d = dxhat(dout, weight)
        dx = factor(rstd, weight) * (d - along_ones(d) - along_xhat(d, xhat))
        return dx, dweight(dout, xhat), dbias(dout)

    return wrong


def normalised(x, eps=1e-5):
    """xhat and rstd of the rows of x."""
    rstd = (x.var(-1, keepdims=True) + eps) ** -0.5
    return (x - mean(x)) * rstd, rstd


def _case(rows, channels, eps=1e-5):
    return normal(rows, channels), *normalised(normal(rows, channels) * 2 + 1, eps), normal(channels)


check.add(
    "layer_norm_pullback",
    Exercise(
        layer_norm_pullback,
        [_case(4, 4), _case(3, 8), _case(2, 64, 1e-2), _case(1, 5)],
        with_pairs(
            _pullback,
            {
                "In dx you held the standard deviation constant: "
                "the term - xhat * mean(dxhat * xhat) is missing. "
                "The result points nearly in the right direction, so training would not show the mistake. "
                "(Or did you write mean(dxhat) * mean(xhat)? "
                "That is 0.)": {"along_xhat": lambda d, xhat: 0.0},
                "In dx you held the mean constant: the term - mean(dxhat) is missing.": {
                    "along_ones": lambda d: 0.0
                },
                "In dx you held both mean and standard deviation constant: "
                "dx has more terms than rstd * dxhat.": {
                    "along_ones": lambda d: 0.0,
                    "along_xhat": lambda d, xhat: 0.0,
                },
                "A Bessel slip in dx: the mean of dxhat * xhat divides by n - 1. "
                "Everything here divides by n.": {
                    "along_xhat": lambda d, xhat: (
                        xhat * (d * xhat).sum(-1, keepdims=True) / (xhat.shape[-1] - 1)
                    )
                },
                "In dx there are sums where means belong.": {
                    "along_ones": lambda d: d.sum(-1, keepdims=True),
                    "along_xhat": lambda d, xhat: xhat * (d * xhat).sum(-1, keepdims=True),
                },
                "The means in dx run over the batch. Layer norm looks at one row at a time: axis -1.": {
                    "along_ones": lambda d: d.mean(0),
                    "along_xhat": lambda d, xhat: xhat * (d * xhat).mean(0),
                },
                "In dx the xhat in front of the second mean is missing: xhat * mean(dxhat * xhat).": {
                    "along_xhat": lambda d, xhat: mean(d * xhat)
                },
                "In dx the second mean is not that of dxhat alone: xhat * mean(dxhat * xhat).": {
                    "along_xhat": lambda d, xhat: xhat * mean(d)
                },
                "The weight is missing from dx: it multiplied xhat on the way forward, "
                "so dxhat = dout * weight.": {"dxhat": lambda dout, weight: dout},
                "The weight multiplies dx at the end. "
                "It must come first, before the means: dxhat = dout * weight.": {
                    "dxhat": lambda dout, weight: dout,
                    "factor": lambda rstd, weight: rstd * weight,
                },
                "A plus where a minus belongs: - xhat * mean(dxhat * xhat).": {
                    "along_xhat": lambda d, xhat: -xhat * mean(d * xhat)
                },
                "A plus where a minus belongs: - mean(dxhat).": {"along_ones": lambda d: -mean(d)},
                "The factor rstd in front of dx is missing.": {"factor": lambda rstd, weight: 1.0},
                "dx is divided by rstd. rstd is 1 / std: multiply.": {
                    "factor": lambda rstd, weight: 1 / rstd
                },
                "xhat is missing in dweight. The weight multiplied it: (dout * xhat).sum(0).": {
                    "dweight": lambda dout, xhat: dout.sum(0)
                },
                "dweight is not summed. The same weight was used in every row: sum(0).": {
                    "dweight": lambda dout, xhat: dout * xhat
                },
                "dweight is averaged over the rows. Uses add up: sum(0).": {
                    "dweight": lambda dout, xhat: (dout * xhat).mean(0)
                },
                "dbias is averaged over the rows. Uses add up: sum(0).": {"dbias": lambda dout: dout.mean(0)},
                "dbias is not summed. The same bias was added in every row: sum(0).": {
                    "dbias": lambda dout: dout
                },
                "dweight is summed over the channels. Each channel has its own weight: sum over rows.": {
                    "dweight": lambda dout, xhat: (dout * xhat).sum(-1)
                },
                "dbias is summed over the channels. Each channel has its own bias: sum over rows.": {
                    "dbias": lambda dout: dout.sum(-1)
                },
            },
        )
        | {
            "dweight and dbias come in the wrong order.": lambda *case: (
                layer_norm_pullback(*case)[0],
                *layer_norm_pullback(*case)[:0:-1],
            ),
        },
        named_results("dx", "dweight", "dbias", otherwise="Return three arrays: dx, dweight, dbias."),
    ),
)


# --- adamw_step -----------------------------------------------------------------------------------


def adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    step = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return p * (1 - lr * weight_decay) - lr * step, m, v


def _adamw(
    betas=lambda b1, b2: (b1, b2),
    gradient=lambda g, p, wd: g,
    m=lambda m, g, b: b * m + (1 - b) * g,
    v=lambda v, g, b: b * v + (1 - b) * g * g,
    correction=lambda b, t: 1 - b**t,
    root=lambda v, eps: np.sqrt(v) + eps,
    shrink=lambda lr, wd: 1 - lr * wd,
    sign=-1.0,
):
    """`adamw_step` from its parts, so that one or two of them can be wrong."""

    def wrong(p, g, m_, v_, t, lr, beta1, beta2, eps, weight_decay):
        b1, b2 = betas(beta1, beta2)
        g = gradient(g, p, weight_decay)
        m_, v_ = m(m_, g, b1), v(v_, g, b2)
        step = m_ / correction(b1, t) / root(v_ / correction(b2, t), eps)
        return p * shrink(lr, weight_decay) + sign * lr * step, m_, v_

    return wrong


def _corrected(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    new_p, new_m, new_v = adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay)
    return new_p, new_m / (1 - beta1**t), new_v / (1 - beta2**t)


def _decayed_late(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    p, m, v = adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, 0.0)
    return p * (1 - lr * weight_decay), m, v


def _eps_before_correction(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    # sqrt(v) + eps, corrected as a whole, is sqrt(v / c) + eps / sqrt(c)
    later = eps / np.sqrt(1 - beta2**t)
    return adamw_step(p, g, m, v, t, lr, beta1, beta2, later, weight_decay)


def _with_step(step, after=lambda p, eps: p):
    """A step of AdamW with another step than m / (sqrt(v) + eps), or with something done to p after it."""

    def wrong(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        c1, c2 = 1 - beta1**t, 1 - beta2**t
        return after(p * (1 - lr * weight_decay) - step(g, m, v, c1, c2, eps, lr), eps), m, v

    return wrong


_corrections_swapped = _with_step(lambda g, m, v, c1, c2, eps, lr: lr * (m / c2) / (np.sqrt(v / c1) + eps))
_step_of_g = _with_step(lambda g, m, v, c1, c2, eps, lr: lr * g / (np.sqrt(v / c2) + eps))
_step_without_lr = _with_step(lambda g, m, v, c1, c2, eps, lr: (m / c1) / (np.sqrt(v / c2) + eps))
_eps_outside = _with_step(
    lambda g, m, v, c1, c2, eps, lr: lr * (m / c1) / np.sqrt(v / c2), lambda p, eps: p + eps
)


def _old_averages(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    _, new_m, new_v = adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay)
    step = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return p * (1 - lr * weight_decay) - lr * step, new_m, new_v


def _steps(t, eps=1e-2, lr=0.1):
    zeros = np.zeros(4)
    m, v = (zeros, zeros) if t == 1 else (normal(4), normal(4) ** 2)
    return normal(4) + 2, normal(4), m, v, t, lr, 0.9, 0.99, eps, 0.3


check.add(
    "adamw_step",
    Exercise(
        adamw_step,
        [_steps(1), _steps(2), _steps(7), _steps(200, 1e-8, 0.01)],
        with_pairs(
            _adamw,
            {
                "No bias correction. m and v start at 0, so at first they are too small: "
                "divide by 1 - beta**t.": {"correction": lambda b, t: 1.0},
                "The bias correction counts from 0: at the first step, t = 1, it is 1 - beta**1. "
                "With t - 1 you divide by 0.": {"correction": lambda b, t: 1 - b ** (t - 1)},
                "The bias correction is 1 - beta**t: first the power, then subtract. "
                "`(1 - beta)**t` is something else.": {"correction": lambda b, t: (1 - b) ** t},
                "The bias correction is 1 - beta**t, a power, not beta * t.": {
                    "correction": lambda b, t: 1 - b * t
                },
                "This is L2 regularisation: the decay went into the gradient and is then divided by sqrt(v), "
                "so weights with large gradients hardly decay. "
                "Decoupled decay shrinks p itself: p * (1 - lr * weight_decay).": {
                    "gradient": lambda g, p, wd: g + wd * p,
                    "shrink": lambda lr, wd: 1.0,
                },
                "lr is missing in the decay: p * (1 - lr * weight_decay).": {"shrink": lambda lr, wd: 1 - wd},
                "The weights do not decay: p * (1 - lr * weight_decay) is missing.": {
                    "shrink": lambda lr, wd: 1.0
                },
                "eps stands inside the root. In Adam it is added after the root: sqrt(v) + eps.": {
                    "root": lambda v, eps: np.sqrt(v + eps)
                },
                "The root is missing: divide by sqrt(v), not by v.": {"root": lambda v, eps: v + eps},
                "eps is missing: where no gradient ever came, 0 / 0 is nan.": {
                    "root": lambda v, eps: np.sqrt(v)
                },
                "beta1 and beta2 are swapped: beta1 belongs to m, beta2 to v.": {
                    "betas": lambda b1, b2: (b2, b1)
                },
                "v must follow the square of the gradient, g * g.": {
                    "v": lambda v, g, b: b * v + (1 - b) * np.abs(g)
                },
                "The new gradient comes in with weight 1. "
                "In a running average the two weights add up to 1: beta * m + (1 - beta) * g.": {
                    "m": lambda m, g, b: b * m + g,
                    "v": lambda v, g, b: b * v + g * g,
                },
                "The step goes uphill: subtract it.": {"sign": 1.0},
                "The decay makes weights grow: p * (1 - lr * weight_decay), with a minus.": {
                    "shrink": lambda lr, wd: 1 + lr * wd
                },
                "(1 - beta) is missing at the new gradient of m.": {"m": lambda m, g, b: b * m + g},
                "(1 - beta) is missing at the new gradient of v.": {"v": lambda v, g, b: b * v + g * g},
                "m follows the square of the gradient. That is v; m follows g itself.": {
                    "m": lambda m, g, b: b * m + (1 - b) * g * g
                },
                "The weights are swapped: the old average keeps beta, the new gradient gets 1 - beta.": {
                    "m": lambda m, g, b: (1 - b) * m + b * g,
                    "v": lambda v, g, b: (1 - b) * v + b * g * g,
                },
            },
        )
        | {
            "m and v come in the wrong order: return p, m, v.": lambda *case: (
                adamw_step(*case)[0],
                *adamw_step(*case)[:0:-1],
            ),
            "The decay comes after the step, so it shrinks the step as well. "
            "Both start from the old p.": _decayed_late,
            "eps is added before v is corrected, so at the start it counts too much. "
            "First divide v by 1 - beta2**t, then take the root and add eps.": _eps_before_correction,
            "m is corrected, v is not. Both start at 0: divide each by its own 1 - beta**t.": _with_step(
                lambda g, m, v, c1, c2, eps, lr: lr * (m / c1) / (np.sqrt(v) + eps)
            ),
            "v is corrected, m is not. Both start at 0: divide each by its own 1 - beta**t.": _with_step(
                lambda g, m, v, c1, c2, eps, lr: lr * m / (np.sqrt(v / c2) + eps)
            ),
            "The two corrections have changed places: m is divided by 1 - beta1**t, v by 1 - beta2**t.": (
                _corrections_swapped
            ),
            "The step is made of g itself. It is m, corrected, that steps.": _step_of_g,
            "lr is missing in the step.": _step_without_lr,
            "Parentheses are missing: eps is added to the whole, not to the root. `/ (sqrt(v) + eps)`.": (
                _eps_outside
            ),
            "The old averages make the step. First bring m and v up to date, then step.": _old_averages,
            "You return corrected m and v. "
            "Return the plain averages: the correction is only for this step.": _corrected,
        },
        named_results("p", "m", "v", otherwise="Return three arrays: the new p, m and v."),
    ),
)


# --- pictures -------------------------------------------------------------------------------------


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
        for weight, label, color in zip(
            np.array(path).T, ("large gradients", "small gradients"), (RED, GREEN), strict=True
        ):
            ax.plot(weight, color=color, label=label)
        ax.set(title=name, xlabel="step", ylim=(-0.1, 1.05))
    axes[0].set(ylabel="weight")
    axes[0].legend()
    return Picture(figure, "two weights decaying")
