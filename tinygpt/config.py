"""All settings: GPTConfig shapes a model, TrainConfig a run, PRESETS name whole runs."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from autograd import PRECISIONS, warmup_cosine
from autograd.random import check_dropout_rate
from tinygpt.names import NOT_IN_A_FILE, NOT_IN_TRAINING, nearest

# Dropout masks, batches and samples draw from different sites of the random space (see autograd/random.py).
# These are far above the sites of a model's dropout layers.
BATCH_SITE, EVALUATION_SITE, SAMPLING_SITE = 60_000, 60_001, 60_002
LARGEST_FILE = 100_000  # bytes, of settings; far more than they ever have


class UserError(Exception):
    """A mistake that the user can correct, in one line. The command line prints it and exits with code 2."""


def require(condition: bool, message: str) -> None:
    """UserError with this message unless the condition holds."""
    if not condition:
        raise UserError(message)


# name: the switches of GPTConfig that it turns from their defaults.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "reference": {},
    # The GPT of the reference run: its script divides attention scores by √C instead of √D, and leaves the
    # initial weights as PyTorch's layers draw them. It learns more slowly at first.
    "lecture": dict(scores_over_channels=True, torch_init=True),
    "gpt2": dict(
        activation="gelu",
        qkv_bias=True,
        tied_head=True,
        head_bias=False,
        embedding_dropout=True,
        scaled_init=True,
    ),
}


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model. The switches at the end make the architecture; see ARCHITECTURES."""

    vocab_size: int
    block_size: int = 256
    n_layer: int = 6
    n_head: int = 6
    n_embd: int = 384
    dropout: float = 0.0
    activation: str = "relu"
    qkv_bias: bool = False
    tied_head: bool = False
    head_bias: bool = True
    embedding_dropout: bool = False
    scaled_init: bool = False
    scores_over_channels: bool = False
    torch_init: bool = False

    def __post_init__(self) -> None:
        names = ["vocab_size", "block_size", "n_layer", "n_head", "n_embd"]
        _check(self, names, "at least 1", lambda value: value >= 1)
        require(
            self.n_embd % self.n_head == 0,
            f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}: every head gets an equal share",
        )
        _check(self, ["dropout"], "at least 0 and below 1", lambda value: 0 <= value < 1)

    @property
    def attention_scale(self) -> float | None:
        """What the scores q·k are multiplied by, if it is not the operation's own 1/√D."""
        return self.n_embd**-0.5 if self.scores_over_channels else None

    def num_parameters(self) -> int:
        """How many numbers a model of this shape learns, counted without building it."""
        C, V = self.n_embd, self.vocab_size
        # 4 matrices; biases of c_proj, c_fc, c_proj; 2 norms
        block = 12 * C * C + 10 * C
        if self.qkv_bias:
            block += 3 * C
        head = 0
        if not self.tied_head:
            head += C * V
            if self.head_bias:
                head += V
        return self.n_layer * block + (V + self.block_size) * C + 2 * C + head


# The headings of --help, under which each setting stands.
GROUPS = {
    "start": "how to start",
    "text": "text",
    "model": "model",
    "training": "training",
    "output": "output",
    "machine": "machine",
}


def setting(default: Any, help: str, group: str) -> Any:
    """A field of TrainConfig with its default, its text for --help, and its place there, one of GROUPS."""
    return field(default=default, metadata={"help": help, "group": group})


@dataclass(frozen=True)
class TrainConfig:
    """A run. Every field is a flag of train.py, with dashes for underscores, and a key of config.toml."""

    preset: str = setting("", "where the other settings come from: one of those below", "start")
    data: str | list = setting(
        "",
        "shakespeare, python, files, folders, patterns such as 'poems/*.txt', or - for standard input; each "
        "file is a document; empty: shakespeare, or else python",
        "text",
    )
    encoding: str = setting("", "of the data, such as gb18030 or utf-16; empty: UTF-8", "text")
    text_key: str = setting("text", "the key of the text in *.jsonl, where each line is a document", "text")
    init_from: str = setting(
        "", "a GPT-2 folder or a run: go on from its weights, with its shape and tokenizer", "start"
    )
    tokenizer: str = setting(
        "char", "char, bpe (byte-level, learnt from the data), or a tokenizer.json or its folder", "text"
    )
    vocab_size: int = setting(
        2048, "tokens of a learnt bpe; fewer if no more pairs occur twice in the data", "text"
    )
    out: str = setting("", "folder for the run; empty: the first free runs/PRESET-DATA", "output")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N", "machine")
    precision: str = setting(
        "tf32", "matrix products on a GPU: fp32, tf32 or bf16 (sums are float32 in each)", "machine"
    )
    seed: int = setting(1337, "names the initial weights, the batches and the dropout masks", "training")
    architecture: str = setting(
        "reference",
        "reference (ReLU, separate head), lecture (the same, but attention and initial weights as in the "
        "reference run) or gpt2 (GELU, tied)",
        "model",
    )
    block_size: int = setting(256, "context length in tokens", "model")
    n_layer: int = setting(6, "number of blocks", "model")
    n_head: int = setting(6, "attention heads per block", "model")
    n_embd: int = setting(384, "channels", "model")
    dropout: float = setting(0.2, "probability of dropping, rounded to 1/256; 0 for none", "model")
    batch_size: int = setting(64, "sequences per step", "training")
    max_steps: int = setting(5000, "optimizer steps of the whole schedule", "training")
    stop_after: int = setting(
        0, "save and stop after this many steps without changing the schedule; 0: run to the end", "training"
    )
    learning_rate: float = setting(3e-4, "peak learning rate", "training")
    warmup_steps: int = setting(0, "steps over which the learning rate rises to its peak", "training")
    min_lr: float = setting(
        -1.0, "where the cosine decay ends; negative: constant after the warm-up", "training"
    )
    beta1: float = setting(0.9, "AdamW's decay of the mean", "training")
    beta2: float = setting(0.999, "AdamW's decay of the mean square", "training")
    weight_decay: float = setting(0.01, "AdamW's decoupled weight decay", "training")
    decay_vectors: bool = setting(
        False, "let weight decay act on biases and norms too, as PyTorch's default does", "training"
    )
    grad_clip: float = setting(0.0, "largest gradient norm; 0 for no clipping", "training")
    patience: int = setting(
        0, "stop after so many evaluations without a better validation loss; 0: never", "training"
    )
    eval_interval: int = setting(500, "steps between evaluations, each of which saves", "output")
    eval_iters: int = setting(200, "batches per evaluation, of train and of validation each", "output")
    sample_tokens: int = setting(500, "tokens of the sample at every evaluation; 0 for none", "output")
    threads: int = setting(
        0,
        "workers on a CPU, forks or threads; 0: one for each core that taskset, a container and "
        "OMP_NUM_THREADS leave, as far as memory goes",
        "machine",
    )
    activation_checkpointing: bool = setting(
        False, "recompute each block in the backward pass: less memory, more time", "machine"
    )
    micro_batch: int = setting(0, "sequences a worker handles at once; 0: chosen for the model", "machine")
    detect_anomaly: bool = setting(
        True,
        "if the loss is no number, replay the steps since the last checkpoint to say where it began",
        "training",
    )

    def __post_init__(self) -> None:
        names = ["batch_size", "max_steps", "eval_interval", "eval_iters", "learning_rate"]
        _check(self, names, "more than 0", lambda value: value > 0)
        names = ["stop_after", "warmup_steps", "weight_decay", "grad_clip", "sample_tokens", "threads"]
        _check(self, [*names, "micro_batch", "patience"], "at least 0", lambda value: value >= 0)
        _check(self, ["beta1", "beta2"], "at least 0 and below 1", lambda value: 0 <= value < 1)
        _check(self, ["vocab_size"], "at least 256, a token for each byte", lambda value: value >= 256)
        _check_choice("architecture", self.architecture, ARCHITECTURES)
        _check_choice("precision", self.precision, PRECISIONS)
        _check(self, ["data"], "a name or path, or a list of them", _names_sources)
        self.model_config(vocab_size=1)  # checks the shape before any data is read
        _check(self, ["dropout"], "0, or from 0.002 to 0.998: it is rounded to 1/256", _can_be_drawn)

    def schedule(self) -> Callable[[int], float]:
        """step -> learning rate: a linear warm-up, then constant or falling along a cosine."""
        end = self.min_lr if self.min_lr >= 0 else self.learning_rate
        return warmup_cosine(self.learning_rate, self.warmup_steps, self.max_steps, end)

    def model_config(self, vocab_size: int) -> GPTConfig:
        """The GPTConfig of this run."""
        names = ("block_size", "n_layer", "n_head", "n_embd", "dropout")
        shape = {name: getattr(self, name) for name in names}
        return GPTConfig(vocab_size=vocab_size, **shape, **ARCHITECTURES[self.architecture])


def _names_sources(data):
    return isinstance(data, str) or all(each and "\0" not in each for each in data)


Config = TypeVar("Config", GPTConfig, TrainConfig)

LAPTOP = dict(
    architecture="gpt2", block_size=96, n_layer=3, n_head=8, n_embd=128, dropout=0.0, batch_size=16,
    max_steps=3000, eval_interval=500, eval_iters=50, learning_rate=5e-3, warmup_steps=100, min_lr=5e-5,
    beta2=0.98, weight_decay=0.3, grad_clip=1.0,
)  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": dict(
        block_size=32, n_layer=2, n_head=2, n_embd=32, dropout=0.0, batch_size=8, max_steps=60,
        eval_interval=20, eval_iters=5, learning_rate=3e-3, sample_tokens=100,
    ),
    "laptop": LAPTOP,
    # Chinese has thousands of characters: a step takes longer, and a token says more.
    "zh": LAPTOP | dict(max_steps=2000, sample_tokens=200),
    # For --init-from, whose weights should change little.
    "finetune": dict(
        dropout=0.0, batch_size=4, max_steps=100, eval_interval=25, eval_iters=4, learning_rate=5e-5,
        warmup_steps=10, min_lr=5e-6, beta2=0.99, weight_decay=0.1, grad_clip=1.0, sample_tokens=100,
    ),
    # The reference run. Every other value is TrainConfig's default.
    "shakespeare": dict(architecture="lecture", decay_vectors=True),
}  # fmt: skip


def _check(config: Any, names: Iterable[str], wanted: str, is_allowed: Callable[[Any], bool]) -> None:
    """UserError unless is_allowed(value) for each of these settings; `wanted` says the same in words."""
    for name in names:
        value = getattr(config, name)
        require(is_allowed(value), f"{name} is {value!r:.80}; it must be {wanted}")


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise UserError(f"{name} {value!r:.80} is unknown; {nearest(value, choices)}")


def _can_be_drawn(p):
    try:
        check_dropout_rate(p)
    except ValueError:
        return False
    return True


def resolve(settings: dict[str, Any], default_preset: str = "laptop") -> TrainConfig:
    """The TrainConfig from settings. What they leave out comes from the preset, then from the defaults."""
    preset = settings.get("preset") or default_preset
    _check_choice("preset", preset, PRESETS)
    return TrainConfig(**(PRESETS[preset] | settings | {"preset": preset}))


def from_dict(kind: type[Config], settings: dict[str, Any], source: str | Path) -> Config:
    """The config of a class, GPTConfig or TrainConfig, from settings that were read from `source`.

    A setting that an older version did not have gets its default. UserError names the source.
    """
    for f in dataclasses.fields(kind):
        require(f.name in settings or f.default is not dataclasses.MISSING, f"{source}: {f.name} is missing")
    checked(kind, settings, source)
    try:
        return kind(**settings)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def checked(kind: type[Config], settings: dict[str, Any], source: str | Path) -> dict[str, Any]:
    """The settings, if each is a field of that config class and of its type (an int may stand for a float).

    UserError names `source`, where they were read.
    """
    fields = {f.name: f.type for f in dataclasses.fields(kind)}
    absent = NOT_IN_A_FILE | NOT_IN_TRAINING
    for key, value in settings.items():
        if key not in fields:
            raise UserError(f"{source}: unknown key {key!r:.80}; {nearest(key, fields, absent)}")
        wanted = fields[key]
        allowed = (float, int) if wanted is float else wanted
        # To Python a bool is an int too.
        fits = isinstance(value, allowed) and (wanted is bool or not isinstance(value, bool))
        if isinstance(value, list):
            fits = fits and all(isinstance(each, str) for each in value)
        if not fits:
            name = wanted.__name__ if isinstance(wanted, type) else "str or a list of them"
            raise UserError(f"{source}: {key} must be {name}, not {value!r:.80}")
        if "\0" in str(value):
            raise UserError(f"{source}: {key} holds a NUL character, which no name has")
        limit = 2**63 if wanted is int else math.inf
        # `not <` refuses NaN too.
        if wanted in (int, float) and not abs(value) < limit:
            raise UserError(f"{source}: {key} is {value!r:.80}; that is no number to work with")
    return settings
