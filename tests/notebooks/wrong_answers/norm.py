import numpy as np

import autograd as ag
from tests.notebooks.wrong_answers import Catalogue
from workbook.norm import check

catalogue = Catalogue(check)
wrong, wrong_ones = catalogue.wrong, catalogue.wrong_ones


@wrong("Bessel's correction")
def layer_norm(x, weight, bias, eps=1e-5):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True, ddof=1)
    return (x - mean) / (var + eps).sqrt() * weight + bias


@wrong("eps stands outside")
def layer_norm(x, weight, bias, eps=1e-5):
    return (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True).sqrt() + eps) * weight + bias


@wrong("eps is missing")
def layer_norm(x, weight, bias, eps=1e-5):
    return (x - x.mean(-1, keepdims=True)) / x.var(-1, keepdims=True).sqrt() * weight + bias


@wrong("by the variance, not by its root")
def layer_norm(x, weight, bias, eps=1e-5):
    return (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True) + eps) * weight + bias


@wrong("That is batch norm")
def layer_norm(x, weight, bias, eps=1e-5):
    return (x - x.mean(0, keepdims=True)) / (x.var(0, keepdims=True) + eps) ** 0.5 * weight + bias


@wrong("over the whole array")
def layer_norm(x, weight, bias, eps=1e-5):
    return (x - x.mean()) / (x.var() + eps) ** 0.5 * weight + bias


@wrong("The bias is not added")
def layer_norm(x, weight, bias, eps=1e-5):
    return weight * (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True) + eps) ** 0.5


@wrong("The bias comes last")
def layer_norm(x, weight, bias, eps=1e-5):
    return ((x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True) + eps) ** 0.5 + bias) * weight


@wrong("nothing was recorded")
def layer_norm(x, weight, bias, eps=1e-5):
    x, weight, bias = x.data, weight.data, bias.data
    return (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True) + eps) ** 0.5 * weight + bias


@wrong("has the shape")
def layer_norm(x, weight, bias, eps=1e-5):
    return (x.mean(-1) - x.mean(-1)) * (x.var(-1) + eps) ** -0.5


def mean(a):
    return a.mean(axis=-1, keepdims=True)


@wrong("you held the standard deviation constant")
def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat = dout * weight
    return (dxhat - mean(dxhat)) * rstd, (dout * xhat).sum(0), dout.sum(0)


@wrong("you held the mean constant")
def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat = dout * weight
    return rstd * (dxhat - xhat * mean(dxhat * xhat)), (dout * xhat).sum(0), dout.sum(0)


@wrong("held both mean and standard deviation constant")
def layer_norm_pullback(dout, xhat, rstd, weight):
    return rstd * dout * weight, (dout * xhat).sum(0), dout.sum(0)


@wrong("A Bessel slip")
def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat, n = dout * weight, xhat.shape[-1]
    dx = rstd * (dxhat - mean(dxhat) - xhat * (dxhat * xhat).sum(-1, keepdims=True) / (n - 1))
    return dx, (dout * xhat).sum(0), dout.sum(0)


@wrong("weight is missing from dx")
def layer_norm_pullback(dout, xhat, rstd, weight):
    return rstd * (dout - mean(dout) - xhat * mean(dout * xhat)), (dout * xhat).sum(0), dout.sum(0)


@wrong("The weight multiplies dx at the end")
def layer_norm_pullback(dout, xhat, rstd, weight):
    dx = rstd * (dout - mean(dout) - xhat * mean(dout * xhat)) * weight
    return dx, (dout * xhat).sum(0), dout.sum(0)


@wrong("factor rstd")
def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat = dout * weight
    return dxhat - mean(dxhat) - xhat * mean(dxhat * xhat), (dout * xhat).sum(0), dout.sum(0)


@wrong("sums where means belong")
def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat = dout * weight
    dx = rstd * (dxhat - dxhat.sum(-1, keepdims=True) - xhat * (dxhat * xhat).sum(-1, keepdims=True))
    return dx, (dout * xhat).sum(0), dout.sum(0)


@wrong("means in dx run over the batch")
def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat = dout * weight
    return rstd * (dxhat - dxhat.mean(0) - xhat * (dxhat * xhat).mean(0)), (dout * xhat).sum(0), dout.sum(0)


@wrong("mean(dxhat) * mean(xhat)")
def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat = dout * weight
    return rstd * (dxhat - mean(dxhat) - xhat * (mean(dxhat) * mean(xhat))), (dout * xhat).sum(0), dout.sum(0)


@wrong("missing in dweight")
def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat = dout * weight
    return rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)), dout.sum(0), dout.sum(0)


@wrong("dweight is not summed")
def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat = dout * weight
    return rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)), dout * xhat, dout.sum(0)


@wrong("averaged over the rows")
def layer_norm_pullback(dout, xhat, rstd, weight):
    dxhat = dout * weight
    return rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)), (dout * xhat).mean(0), dout.mean(0)


@wrong("Return three arrays")
def layer_norm_pullback(dout, xhat, rstd, weight):
    return dout * weight * rstd


def adamw(wrong_line):
    """A step of AdamW in which `wrong_line` replaces what it names."""

    def adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
        names = dict(locals())
        del names["wrong_line"]
        for name, line in (RIGHT_LINES | wrong_line).items():
            names[name] = eval(line, {"np": np}, names)  # noqa: S307
        return names["p"], names["m"], names["v"]

    return adamw_step


RIGHT_LINES = {
    "g": "g",
    "m": "beta1 * m + (1 - beta1) * g",
    "v": "beta2 * v + (1 - beta2) * g ** 2",
    "mhat": "m / (1 - beta1 ** t)",
    "vhat": "v / (1 - beta2 ** t)",
    "p": "p - lr * weight_decay * p - lr * mhat / (np.sqrt(vhat) + eps)",
}
for words, line in {
    "No bias correction": {"mhat": "m", "vhat": "v"},
    "This is L2 regularisation": {"g": "g + weight_decay * p", "p": "p - lr * mhat / (np.sqrt(vhat) + eps)"},
    "lr is missing in the decay": {"p": "p - weight_decay * p - lr * mhat / (np.sqrt(vhat) + eps)"},
    "do not decay": {"p": "p - lr * mhat / (np.sqrt(vhat) + eps)"},
    "eps stands inside": {"p": "p - lr * weight_decay * p - lr * mhat / np.sqrt(vhat + eps)"},
    "The root is missing": {"p": "p - lr * weight_decay * p - lr * mhat / (vhat + eps)"},
    "beta1 and beta2 are swapped": {
        "m": "beta2 * m + (1 - beta2) * g",
        "v": "beta1 * v + (1 - beta1) * g**2",
        "mhat": "m / (1 - beta2**t)",
        "vhat": "v / (1 - beta1**t)",
    },
    "square of the gradient": {"v": "beta2 * v + (1 - beta2) * abs(g)"},
    "comes in with weight 1": {"m": "beta1 * m + g", "v": "beta2 * v + g * g"},
    "goes uphill": {"p": "p - lr * weight_decay * p + lr * mhat / (np.sqrt(vhat) + eps)"},
    "counts from 0": {"mhat": "m / (1 - beta1 ** (t - 1))", "vhat": "v / (1 - beta2 ** (t - 1))"},
    "a power, not": {"mhat": "m / (1 - beta1 * t)", "vhat": "v / (1 - beta2 * t)"},
    "You return corrected m and v": {
        "m": "(beta1 * m + (1 - beta1) * g) / (1 - beta1**t)",
        "v": "(beta2 * v + (1 - beta2) * g * g) / (1 - beta2**t)",
        "mhat": "m",
        "vhat": "v",
    },
}.items():
    wrong(words)(adamw(line))


@wrong("changes its input m in place")
def adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    return p - lr * (weight_decay * p + (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)), m, v


def composed(xhat=None, var=lambda x: x.var(-1, keepdims=True), root=lambda v, eps: (v + eps).sqrt()):
    """A layer norm of Tensors from its parts, so that one of them can be wrong."""
    xhat = xhat or (lambda x: x - x.mean(-1, keepdims=True))
    return lambda x, weight, bias, eps: xhat(x) / root(var(x), eps) * weight + bias


wrong_ones(
    "layer_norm",
    {
        "standard deviation does not reach the tape": composed(
            var=lambda x: x.var(-1, keepdims=True).detach()
        ),
        "mean does not reach the tape": composed(lambda x: x - x.data.mean(-1, keepdims=True)),
        "the gradient of weight is not": lambda x, weight, bias, eps: composed()(
            x, weight.detach(), bias, eps
        ),
        "the gradient of bias is not": lambda x, weight, bias, eps: composed()(x, weight, bias.data, eps),
        "with no tape behind it": lambda x, weight, bias, eps: ag.Tensor(
            composed()(x, weight, bias, eps).data
        ),
        "eps is ignored": composed(root=lambda v, eps: (v + 1e-5).sqrt()),
        "the mean of x², not the variance": composed(var=lambda x: (x * x).mean(-1, keepdims=True)),
        "The variance has lost its axis": composed(var=lambda x: x.var(-1)),
        "changed places": lambda x, weight, bias, eps: composed()(x, bias, weight, eps),
        "run over axis 1": composed(
            lambda x: x - x.mean(1, keepdims=True), lambda x: x.var(1, keepdims=True)
        ),
        "every entry of the result differs": composed(lambda x: x - x.max(-1, keepdims=True)),
    },
)


def pullback(dx=None, dweight=lambda dout, xhat: (dout * xhat).sum(0), dbias=lambda dout: dout.sum(0)):
    def layer_norm_pullback(dout, xhat, rstd, weight):
        d = dout * weight
        right = rstd * (d - mean(d) - xhat * mean(d * xhat))
        return dx(d, xhat, rstd, right) if dx else right, dweight(dout, xhat), dbias(dout)

    return layer_norm_pullback


wrong_ones(
    "layer_norm_pullback",
    {
        "- xhat * mean(dxhat * xhat).": pullback(
            lambda d, xhat, r, _: r * (d - mean(d) + xhat * mean(d * xhat))
        ),
        "dx has the wrong sign, everywhere": pullback(lambda d, xhat, r, right: -right),
        "dx is 2 times": pullback(lambda d, xhat, r, right: 2 * right),
        "dweight has the shape (1, 4), but should have (4,)": pullback(
            dweight=lambda dout, xhat: (dout * xhat).sum(0, keepdims=True)
        ),
        "dbias is summed over the channels": pullback(dbias=lambda dout: dout.sum(-1)),
        "dweight and dbias come in the wrong order": lambda *case: (lambda dx, dw, db: (dx, db, dw))(
            *pullback()(*case)
        ),
        "dbias is wrong, but not in a typical way": pullback(
            lambda d, xhat, r, _: r * (d - mean(d)), dbias=lambda dout: dout.sum(0) ** 2
        ),
    },
)
for words, line in {
    "The decay comes after the step": {
        "p": "(p - lr * mhat / (np.sqrt(vhat) + eps)) * (1 - lr * weight_decay)"
    },
    "eps is added before v is corrected": {
        "vhat": "np.sqrt(1 - beta2**t) / (np.sqrt(v) + eps)",
        "p": "p - lr * weight_decay * p - lr * mhat * vhat",
    },
    "lr is missing in the step": {"p": "p - lr * weight_decay * p - mhat / (np.sqrt(vhat) + eps)"},
    "eps is added to the whole": {"p": "p - lr * weight_decay * p - lr * mhat / np.sqrt(vhat) + eps"},
    "m is corrected, v is not": {"vhat": "v"},
    "made of g itself": {"p": "p - lr * weight_decay * p - lr * g / (np.sqrt(vhat) + eps)"},
    "`(1 - beta)**t` is something else": {"mhat": "m / (1 - beta1)**t", "vhat": "v / (1 - beta2)**t"},
    "makes weights grow": {"p": "p + lr * weight_decay * p - lr * mhat / (np.sqrt(vhat) + eps)"},
    "v is wrong, but not in a typical way": {"m": "beta1 * m + g", "v": "beta2 * v + (1 - beta2) * m * m"},
}.items():
    wrong(words)(adamw(line))
wrong_ones(
    "adamw_step",
    {"m and v come in the wrong order": lambda *case: (lambda p, m, v: (p, v, m))(*adamw({})(*case))},
)
