"""A small model for tests."""

from tinygpt.config import ARCHITECTURES, GPTConfig
from tinygpt.model import GPT


def sharp_model(architecture="gpt2", **shape):
    """A model whose weights are large enough that its predictions depend on everything it reads."""
    shape = dict(vocab_size=23, block_size=16, n_layer=3, n_head=2, n_embd=32) | shape
    model = GPT(GPTConfig(**shape, **ARCHITECTURES[architecture]), seed=4)
    for p in model.parameters():
        if p.ndim == 2:
            p.data *= 1.5 if model.config.torch_init else 8  # PyTorch's are large already
    return model
