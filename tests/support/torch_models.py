"""The same GPTs written with PyTorch, as a yardstick; weights come from ours."""

import numpy as np
import torch
import torch.nn.functional as F


def parameters_of(model):
    """PyTorch copies of our model's parameters, by name."""
    return {name: torch.tensor(p.data.copy(), requires_grad=True) for name, p in model.named_parameters()}


def loss(weights, config, ids, targets):
    """Mean cross entropy, computed as the lecture's gpt.py does (head by head) from weights (in, out)."""
    w = lambda name: weights[f"transformer.{name}"]
    ids, targets = torch.tensor(ids), torch.tensor(targets)
    T, C = ids.shape[1], config.n_embd
    x = w("wte.weight")[ids] + w("wpe.weight")[:T]
    future = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
    activation = {"relu": F.relu, "gelu": lambda t: F.gelu(t, approximate="tanh"), "gelu_exact": F.gelu}[
        config.activation
    ]
    norm = lambda x, name: F.layer_norm(x, (C,), w(f"{name}.weight"), w(f"{name}.bias"))

    def linear(x, name):
        y = x @ w(f"{name}.weight")
        return y + w(f"{name}.bias") if f"transformer.{name}.bias" in weights else y

    for i in range(config.n_layer):
        qkv = linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").split(C, -1)
        heads = []
        for q, k, v in zip(*(part.split(C // config.n_head, -1) for part in qkv), strict=True):
            scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(future, float("-inf"))
            heads.append(F.softmax(scores, -1) @ v)
        x = x + linear(torch.cat(heads, -1), f"h.{i}.attn.c_proj")
        x = x + linear(activation(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")), f"h.{i}.mlp.c_proj")
    x = norm(x, "ln_f")
    logits = x @ (w("wte.weight").T if config.tied_head else weights["lm_head.weight"])
    if config.head_bias:
        logits = logits + weights["lm_head.bias"]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def numpy_gradients(weights):
    return {name: np.asarray(t.grad) for name, t in weights.items()}
