"""The real CuPy without a GPU; see tests/stand_ins/dryrun.py.

It takes a process of its own: `pytest -m dryrun tests/autograd/cuda/test_dryrun.py`.
"""

import gc
import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from autograd import AdamW, Stream, Tensor
from autograd.cuda.launch import signatures, source
from benchmarks import gpu, on_gpu
from tests.operations import CASES
from tests.stand_ins import dryrun, strict_cupy
from tests.support.commands import ROOT, flags
from tinygpt.config import resolve
from tinygpt.generate import generate
from tinygpt.model import GPT
from tinygpt.parallel import estimate
from tinygpt.parallel.workers import Workers
from tinygpt.run import checkpoint
from tinygpt.text.tokenizer import CharTokenizer

pytestmark = pytest.mark.dryrun
LAUNCHES = {"reference": 250, "gpt2": 270}  # kernels and products that a training step may ask for


class LeaveAtOnce:
    """Ends the process when pytest is done: CuPy calls the pretended driver even while Python shuts down."""

    def pytest_sessionfinish(self, exitstatus):
        self.status = int(exitstatus)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self):
        sys.stdout.flush()
        os._exit(self.status)


@pytest.fixture(scope="module", autouse=True)
def cupy(request):
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("no CuPy: pip install -e '.[test,dryrun]'")
    if "dryrun" not in request.config.getoption("markexpr"):
        pytest.skip("needs a process of its own: pytest -m dryrun tests/autograd/cuda/test_dryrun.py")
    request.config.pluginmanager.register(LeaveAtOnce())
    return dryrun.install()


class Training:
    """A run of the preset `shakespeare` on random tokens."""

    def __init__(self, **settings):
        self.config = config = resolve({"preset": "shakespeare"} | settings)
        self.tokenizer = CharTokenizer("".join(map(chr, range(32, 97))))
        self.model = GPT(config.model_config(self.tokenizer.vocab_size), config.seed).to("cuda")
        self.model.transformer.recompute_blocks = config.activation_checkpointing
        self.optimizer = AdamW(
            self.model.parameter_groups(config.weight_decay, config.decay_vectors), lr=config.learning_rate
        )
        self.workers = Workers(self.model, self.optimizer, threads=1, micro_batch=config.batch_size)
        ids = np.random.default_rng(0).integers(65, size=(config.batch_size, config.block_size + 1))
        self.batch = ids[:, :-1], ids[:, 1:]

    def step(self, number):
        loss = self.workers.loss_and_gradients(*self.batch, Stream(1, step=number))
        if self.config.grad_clip:
            self.optimizer.clip_grad_norm(self.config.grad_clip)
        self.workers.update()
        return loss


@pytest.fixture(scope="module", params=["reference", "gpt2"])
def training(request, cupy):
    training = Training(architecture=request.param, grad_clip=0.0 if request.param == "reference" else 1.0)
    training.name = request.param
    training.first = training.step(0)
    return training


def count(events, *kinds):
    return sum(event.kind in kinds for event in events)


def test_what_the_pretended_gpu_notices(cupy):
    x = cupy.ones((2, 2), np.float32)
    with dryrun.recording() as events:
        bool(x.sum() > 0)
        cupy.asarray(x @ (x + 1))
    assert [e.name for e in events if e.kind == "wait"] == ["streamSynchronize"]
    assert count(events, "product") == 1 and dryrun.Event("copy", "device to host") in events
    assert dryrun.Event("launch", "cupy_add__float32_float_float32") in events
    with pytest.raises(TypeError):
        x + np.ones(2)
    with pytest.raises(cupy.cuda.compiler.CompileException, match="unknown"):
        cupy.RawModule(code='extern "C" __global__ void f(float *x) { x[0] = unknown; }').get_function("f")


@pytest.mark.parametrize("architecture", ["80", "90"])
def test_every_kernel_compiles(cupy, architecture):
    """For the A100 and the H100 and H200, through NVRTC and to machine code, not from CuPy's cache."""
    cubin, _ = cupy.cuda.compiler.compile_using_nvrtc(
        source(), ("--std=c++17",), architecture, cache_in_memory=True
    )
    assert cubin.startswith(b"\x7fELF") and f"-arch sm_{architecture}".encode() in cubin
    assert signatures() and not [name for name in signatures() if f".text.{name}\0".encode() not in cubin]


def test_a_training_step(training, capsys):
    """After the first step: no wait, no copy to the host, no memory from the driver, and few launches."""
    with dryrun.recording() as events:
        loss = training.step(1)
    assert loss.shape == () and loss.dtype == np.float32
    launches = count(events, "launch", "product")
    with capsys.disabled():
        print(f"\n{training.name}: {launches} launches in a training step\n{dryrun.table(events)}")
    assert launches <= LAUNCHES[training.name]
    assert not [e for e in events if e.kind in ("wait", "allocation") or e.name == "device to host"]


def test_evaluation(training):
    with dryrun.recording() as events:
        loss = training.workers.loss(*training.batch)
    assert loss.shape == () and not count(events, "wait")
    with dryrun.recording() as events:
        float(loss)
    assert count(events, "wait") == 1


def test_sampling(training):
    """A wait per token, for its logits."""
    with dryrun.recording() as events:
        assert len(list(generate(training.model, [1, 2, 3], 5, temperature=0))) == 5
    assert count(events, "wait") == 5


def test_a_checkpoint(training, tmp_path):
    """What is saved from the device comes back, to the device and to the host."""
    state = dict(step=1, training_seconds=0.0, best={}, corpus="", data_sha256="", machine="", settings={})
    checkpoint.save(tmp_path, training.model, training.optimizer, training.tokenizer, state)
    other = Training(architecture=training.name)
    saved = checkpoint.load(tmp_path)
    saved.restore(other.model, other.optimizer)
    assert other.optimizer.steps == training.optimizer.steps > 0
    models = (training.model, other.model, saved.model())
    for a, b, c in zip(*(model.parameters() for model in models), strict=True):
        assert (a.device, b.device, c.device) == ("cuda:0", "cuda:0", "cpu")
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        np.testing.assert_array_equal(a.numpy(), c.numpy())


@pytest.mark.parametrize("name", CASES)
def test_each_operation(cupy, name):
    """Forward and backward give arrays of the right shape and dtype, on the device, without an error."""
    inputs = CASES[name].inputs()
    moved = [Tensor(cupy.asarray(x.data), requires_grad=True) for x in inputs]
    expected, output = CASES[name].function(*inputs), CASES[name].function(*moved)
    assert (output.device, output.shape, output.dtype) == ("cuda:0", expected.shape, expected.dtype)
    output.backward(cupy.ones(output.shape))
    assert all(x.grad.shape == x.shape for x in moved)


def test_the_stand_in_offers_nothing_that_cupy_lacks(cupy):
    def missing(names, owner):
        return [name for name in names if not hasattr(owner, name)]

    stand_in = strict_cupy.module()
    assert not missing((name for name in vars(stand_in) if not name.startswith("__")), cupy)
    assert not missing(vars(stand_in.cuda), cupy.cuda)
    assert not missing(vars(stand_in.cuda.runtime), cupy.cuda.runtime)
    assert not missing(vars(stand_in.get_default_memory_pool()), cupy.get_default_memory_pool())
    own = {"_refuse", "__getattr__", "__dict__", "__weakref__"}
    offered = {*strict_cupy.METHODS, *strict_cupy.ATTRIBUTES, *vars(strict_cupy.ndarray)}
    assert not missing(offered - own, cupy.ndarray)


def test_the_benchmark(cupy):
    """Its parts run here, so that they will where they matter; the figures mean nothing."""
    figures = {"fp32_tflops", "tf32_tflops", "bf16_tflops", "copy_gb_per_s"}
    assert on_gpu.measure_card(n=64).keys() == {"name", "cupy"} | figures
    assert on_gpu.measure_ours("preset laptop", "tf32", steps=2).keys() == {"ms", "host_ms", "mb"}


@pytest.mark.parametrize("configuration", ["reference run", "preset laptop"])
def test_the_estimate_has_the_launches_of_a_step(cupy, configuration):
    """The walk on shapes alone gives the kernels and products that the real CuPy is asked for, as often."""
    rows = on_gpu.profile(configuration, steps=1)
    expected = gpu.measured(gpu.estimate_for, configuration, "H100")["rows"]
    ours = {label: row["launches"] for label, row in expected.items() if not label.startswith("cupy ")}
    assert ours == {label: row["launches"] for label, row in rows.items()} and "adamw" in ours


TRAIN = ["-m", "tests.stand_ins.dryrun", "train.py"]  # Python's arguments


def call(*arguments, **environment):
    options = dict(cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ | environment)
    return subprocess.run([sys.executable, *arguments], **options)


def test_train_py(text_file, tmp_path):
    """The command as users give it, and its continuation."""
    options = dict(device="cuda", preset="smoke", max_steps=20, stop_after=10, data=text_file)
    first = options | dict(out=tmp_path / "run")
    second = dict(device="cuda", resume=tmp_path / "run", stop_after=0)
    for settings in (first, second):
        result = call(*TRAIN, *flags(**settings))
        assert result.returncode == 0, result.stderr
        assert "preset smoke on cuda" in result.stdout
    assert "20 steps in" in result.stdout


def test_a_full_gpu_names_a_micro_batch_that_fits(text_file, tmp_path):
    options = dict(preset="shakespeare", max_steps=2, eval_iters=1, sample_tokens=5, data=text_file)
    command = [*TRAIN, *flags(**options, device="cuda", out=tmp_path / "run")]
    result = call(*command, CUPY_GPU_MEMORY_LIMIT="1_000_000_000")
    message = r"error: the GPU's memory is full: a step needs about [\d,]+ MB, and 1,000 MB are available; "
    advice = re.fullmatch(message + r"try (--micro-batch) (\d+)\n", result.stderr)
    assert result.returncode == 2 and int(advice[2]) >= 8
    result = call(*command, *advice.groups(), "--overwrite", CUPY_GPU_MEMORY_LIMIT="1_000_000_000")
    assert result.returncode == 0, result.stderr
    said, was = (
        float(re.search(rf"{what} ([\d,]+) MB", result.stdout)[1].replace(",", ""))
        for what in ("memory: about", "peak memory")
    )
    assert said == pytest.approx(was, rel=0.1)
    result = call(*command, "--overwrite", CUPY_GPU_MEMORY_LIMIT="100_000_000")
    assert result.returncode == 2
    assert re.fullmatch("error: out of memory: Out of memory .*; a smaller model .*\n", result.stderr)


SHAPES = {
    "wide": dict(n_layer=4, n_head=2, n_embd=1024, block_size=128),
    "many heads": dict(n_layer=4, n_head=16, n_embd=256, block_size=512),
    "small": dict(batch_size=8),
    "checkpointing": dict(
        n_layer=12, n_embd=768, n_head=12, block_size=1024, batch_size=4, activation_checkpointing=True
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_estimate_of_gpu_memory(cupy, name):
    """CuPy's pool knows, even here, how much a step takes of the memory."""
    pool = cupy.get_default_memory_pool()
    gc.collect()
    pool.free_all_blocks()
    before = pool.total_bytes()
    training = Training(**SHAPES[name])
    training.step(0)
    training.step(1)
    needed, _ = estimate.needed_and_available(training.workers)
    assert needed == pytest.approx(pool.total_bytes() - before, rel=0.15)


NOT_FOUND = r"cuda cannot be used: CUDA's {}: not found; pip install 'cupy-cuda13x\[ctk\]' brings it"
UNUSABLE = {  # what is missing -> the message
    "nvrtc": NOT_FOUND.format("compiler NVRTC"),
    "headers": NOT_FOUND.format("headers"),
    "cublas": NOT_FOUND.format("library cuBLAS"),
    "gpu": "cuda cannot be used: the NVIDIA driver sees no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES",
    "memory": "cuda cannot be used: its memory is full; nvidia-smi shows who uses it",
    "second gpu": "cuda:1 cannot be used: this machine has 1, numbered from 0",
    "new driver": "cuda cannot be used: the NVIDIA driver can do CUDA 12, CuPy is made for 13; "
    "update the driver, or .* cuda12",
}


@pytest.mark.parametrize("missing", UNUSABLE)
def test_a_gpu_that_cannot_be_used_is_explained(missing):
    device = "cuda:1" if missing == "second gpu" else "cuda"
    result = call("-m", "tests.stand_ins.dryrun", f"--without={missing}", "train.py", "--device", device)
    assert result.returncode == 2 and re.fullmatch(f"error: {UNUSABLE[missing]}\n", result.stderr)


def test_no_driver(text_file, tmp_path):
    """No pretended one either: what users without a GPU see."""
    message = "there is no NVIDIA driver; nvidia-smi should list the GPU|the NVIDIA driver sees no GPU; .*"
    result = call("train.py", "--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 2 and re.fullmatch(
        f"error: cuda cannot be used: ({message})\n", result.stderr
    )
    options = dict(preset="smoke", max_steps=1, eval_iters=1, data=text_file)
    result = call("train.py", *flags(**options, out=tmp_path / "run"), CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 0
    assert re.search(rf"preset smoke on cpu.*\(cuda cannot be used: ({message})\)", result.stdout)
