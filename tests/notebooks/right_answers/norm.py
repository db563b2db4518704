import numpy as np

import autograd as ag
from tests.notebooks.wrong_answers import Catalogue
from workbook.norm import check

catalogue = Catalogue(check)
right, right_ones = catalogue.right, catalogue.right_ones


@right
def layer_norm(x, weight, bias, eps=1e-5):
    centered = x - x.sum(-1, keepdims=True) / x.shape[-1]
    variance = (centered * centered).mean(-1, keepdims=True)
    return bias + weight * centered / (variance + eps).sqrt()


@right
def layer_norm(x, weight, bias, eps=1e-5):
    """The library's own, in one operation."""
    return ag.layer_norm(x, weight, bias, eps)


@right
def layer_norm(x, weight, bias, eps=1e-5):
    mean = x.mean(axis=-1, keepdims=True)
    var = (x**2).mean(axis=-1, keepdims=True) - mean**2
    y = x - mean
    y /= ag.sqrt(var + eps)
    y *= weight
    y += bias
    return y


@right
def layer_norm(x, weight, bias, eps=1e-5):
    """Without keepdims: the axis is put back by hand."""
    back = (*x.shape[:-1], 1)
    mean, var = x.mean(-1).reshape(*back), x.var(-1).reshape(*back)
    return (x - mean) * (var + eps) ** -0.5 * weight + bias


@right
def layer_norm_pullback(dout, xhat, rstd, weight):
    """The whole Jacobian of each row."""
    n = xhat.shape[1]
    dx = np.empty_like(dout)
    for i in range(len(dout)):
        jacobian = rstd[i] * (np.eye(n) - 1 / n - np.outer(xhat[i], xhat[i]) / n)
        dx[i] = jacobian @ (dout[i] * weight)
    return dx, np.einsum("nc,nc->c", dout, xhat), np.ones(len(dout)) @ dout


@right
def layer_norm_pullback(dout, xhat, rstd, weight):
    n, d = dout.shape[-1], dout * weight
    dx = (n * d - d.sum(-1, keepdims=True) - xhat * (d * xhat).sum(-1, keepdims=True)) * rstd / n
    return [dx, np.sum(dout * xhat, axis=0), np.sum(dout, axis=0)]


@right
def layer_norm_pullback(dout, xhat, rstd, weight):
    """Takes the two parts out, one after the other, in place on its own array."""
    dx = dout * weight
    dx -= xhat * np.einsum("nc,nc->n", dx, xhat)[:, None] / xhat.shape[1]
    dx -= dx.mean(1, keepdims=True)
    dx *= rstd
    return dx, (xhat * dout).sum(axis=0), dout.sum(axis=0)


@right
def adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    m = m + (1 - beta1) * (g - m)
    v = v + (1 - beta2) * (g**2 - v)
    p = p - lr * weight_decay * p
    return p - lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)) ** 0.5 + eps), m, v


@right
def adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    """As PyTorch writes it: the corrections are in the step size and in the denominator."""
    p = p * (1 - lr * weight_decay)
    m = np.array(m) * beta1 + (1 - beta1) * g
    v = np.array(v) * beta2 + (1 - beta2) * g * g
    denominator = np.sqrt(v) / np.sqrt(1 - beta2**t) + eps
    return [p - lr / (1 - beta1**t) * m / denominator, m, v]


@right
def adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    """In place, on copies."""
    p, m, v = p.copy(), m.copy(), v.copy()
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * np.square(g)
    step = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
    p -= lr * (step + weight_decay * p)
    return p, m, v
