"""The GPU path without a GPU: through a strict stand-in for CuPy it computes what the CPU path computes."""

import numpy as np
import pytest

import autograd as ag
from autograd import AdamW, Stream, Tensor
from tests.stand_ins import strict_cupy
from tests.support.opcases import CASES
from tinygpt.config import ARCHITECTURES, GPTConfig
from tinygpt.generate import generate
from tinygpt.model import GPT
from tinygpt.parallel.workers import Workers
from tinygpt.text.data import Dataset
from tinygpt.text.tokenizer import CharTokenizer


@pytest.fixture
def cupy():
    with strict_cupy.installed() as module:
        yield module


class Training:
    """A small model in float32, with dropout, on batches of random tokens that are drawn on the device."""

    def __init__(self, architecture, device):
        config = GPTConfig(
            17, block_size=12, n_layer=2, n_head=2, n_embd=16, dropout=0.2, **ARCHITECTURES[architecture]
        )
        self.model = GPT(config, seed=2).to(device)
        self.optimizer = AdamW(self.model.parameter_groups(0.1), lr=3e-3)
        self.workers = Workers(self.model, self.optimizer, threads=1, micro_batch=4)
        tokenizer = CharTokenizer("abcdefghijklmnopq")
        text = "".join("abcdefghijklmnopq"[i] for i in Stream(0).integers(400, 17))
        self.dataset = Dataset(text, tokenizer, config.block_size).to(device)

    def step(self, number):
        """The loss and the gradient's norm, still on the device."""
        ids, targets = self.dataset.batch("train", 4, Stream(1, step=number))
        loss = self.workers.loss_and_gradients(ids, targets, Stream(5, step=number))
        norm = self.optimizer.clip_grad_norm(1.0)
        self.optimizer.step(self.workers.run)
        return loss, norm


def train(architecture, device, steps=5):
    """Losses, gradient norms, weights and a sample of a short training run."""
    training, losses = Training(architecture, device), []
    for number in range(steps):
        with strict_cupy.no_waiting():  # the host runs ahead of the device during a whole step
            results = training.step(number)
        losses.append([float(x) for x in results])
    losses.append(float(training.workers.loss(*training.dataset.batch("val", 4, Stream(1)))))
    sample = list(generate(training.model, [1, 2], 20, seed=1))
    return losses, [p.to("cpu").numpy() for p in training.model.parameters()], sample


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_training_run_equals_that_on_the_cpu(cupy, architecture):
    cpu, gpu = train(architecture, "cpu"), train(architecture, "cuda")
    for a, b in zip(cpu[0], gpu[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for a, b in zip(cpu[1], gpu[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=5e-5)
    assert cpu[2] == gpu[2]


@pytest.mark.parametrize("name", CASES)
def test_each_operation_equals_that_on_the_cpu(cupy, name):
    function, inputs = CASES[name]()
    moved = [Tensor(cupy.asarray(x.data), requires_grad=True) for x in inputs]
    results = []
    for values in (inputs, moved):
        output = function(*values)
        output.backward() if output.size == 1 else output.backward(
            np.cos(np.arange(output.size)).reshape(output.shape)
        )
        results.append([output.numpy()] + [ag.backend.to_numpy(x.grad) for x in values])
    assert moved[0].device == "cuda:0"
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_mixing_devices_is_refused(cupy):
    with pytest.raises(TypeError, match=r"add got Tensors on cpu and cuda:0; move one with \.to\(\)"):
        Tensor([1.0]) + Tensor([1.0]).to("cuda")


def test_the_gradient_travels_back(cupy):
    x = Tensor([1.0, 2.0], requires_grad=True)
    (x.to("cuda") * 3.0).sum().backward()
    assert isinstance(x.grad, np.ndarray) and x.grad.tolist() == [3, 3]


def test_the_stand_in_is_strict(cupy):
    x = cupy.asarray(np.ones(3, np.float32))
    for wrong in (
        lambda: np.exp(x),
        lambda: x + np.ones(3),
        lambda: np.asarray(x),
        lambda: cupy.exp(np.ones(3)),
        lambda: np.sum(x),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(AttributeError):
        cupy.vecdot(x, x)
    with strict_cupy.no_waiting():
        for wrong in (lambda: float(x.sum()), lambda: bool(x[0]), lambda: x.get(), lambda: cupy.zeros(3)):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()
