"""A training step of ours in three configurations, for the benchmarks cpu, gpu and ranks."""

from autograd import AdamW, Stream
from autograd.backend import move
from tinygpt.config import ARCHITECTURES, GPTConfig, TrainConfig, resolve
from tinygpt.model import GPT
from tinygpt.parallel.ranks import ALONE
from tinygpt.parallel.workers import Workers, choose_division

REFERENCE, GPT2 = ARCHITECTURES["reference"], ARCHITECTURES["gpt2"]
CONFIGURATIONS = {  # name -> (batch, model)
    "shakespeare": (64, GPTConfig(65, 256, 6, 6, 384, 0.2, **REFERENCE)),
    "laptop": (12, GPTConfig(65, 64, 4, 4, 128, 0.0, **REFERENCE)),
    "gpt2": (4, GPTConfig(50_257, 1024, 12, 12, 768, 0.0, **GPT2)),
}
LAPTOP = resolve({"preset": "laptop"})
GPU_CONFIGURATIONS = {  # the same for a GPU, which wants more at once
    "reference run": CONFIGURATIONS["shakespeare"],
    "GPT-2, 124 M": (8, CONFIGURATIONS["gpt2"][1]),
    "preset laptop": (LAPTOP.batch_size, LAPTOP.model_config(vocab_size=65)),
}


class Step:
    """A training step on random tokens. `compute` and `update` are its two parts; calling it does both.

    batch: sequences of all ranks; shape: a GPTConfig; threads, micro_batch: 0 lets the program choose; seed:
    of the weights, or None where they do not matter.
    """

    def __init__(self, batch, shape, device="cpu", ranks=ALONE, threads=0, micro_batch=0, seed=0):
        self.model = GPT(shape, seed).to(device)
        self.optimizer = AdamW(self.model.parameter_groups(0.01), lr=3e-4)
        config = TrainConfig(
            batch_size=batch, block_size=shape.block_size, threads=threads, micro_batch=micro_batch
        )
        self.threads, self.micro_batch = choose_division(config, shape, device, ranks)
        self.workers = Workers(self.model, self.optimizer, self.threads, self.micro_batch, ranks)
        rows = ranks.share(batch)
        ids = Stream(0, step=ranks.rank).integers(rows * (shape.block_size + 1), shape.vocab_size)
        self.ids = move(ids.reshape(rows, -1), device)
        self.dropout = shape.dropout

    def compute(self, number=0):
        """Loss and gradients. A GPU only gets the work: nothing waits for it."""
        stream = Stream(1, step=number) if self.dropout else None
        self.workers.loss_and_gradients(self.ids[:, :-1], self.ids[:, 1:], stream)

    def update(self):
        self.workers.update()

    def __call__(self, number=0):
        self.compute(number)
        self.update()


def floor_flops(batch, shape):
    """Floating-point operations of a step's matrix products.

    6 per weight and token, and the full square of attention.
    """
    C, L, T = shape.n_embd, shape.n_layer, shape.block_size
    weights = 12 * L * C * C + C * shape.vocab_size
    return batch * T * (6 * weights + 12 * L * T * C)
