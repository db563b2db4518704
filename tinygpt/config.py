"""All settings: GPTConfig shapes a model, TrainConfig a run, PRESETS name whole runs."""

import dataclasses
import difflib
import json
import math
import os
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from autograd import PRECISIONS

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


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "reference": dict(  # the GPT of the reference run
        activation="relu",
        qkv_bias=False,
        tied_head=False,
        head_bias=True,
        embedding_dropout=False,
        scaled_init=False,
    ),
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

    def __post_init__(self) -> None:
        names = ["vocab_size", "block_size", "n_layer", "n_head", "n_embd"]
        _check(self, names, "at least 1", lambda value: value >= 1)
        require(
            self.n_embd % self.n_head == 0,
            f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}: every head gets an equal share",
        )
        _check(self, ["dropout"], "at least 0 and below 1", lambda value: 0 <= value < 1)

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


def setting(default: Any, help: str) -> Any:
    """A field of TrainConfig with its default and its text for --help."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainConfig:
    """A run. Every field is a flag of train.py, with dashes for underscores, and a key of config.toml."""

    preset: str = setting(
        "",
        "laptop, zh (Chinese), shakespeare, finetune or smoke; empty: shakespeare on a GPU, laptop on a CPU",
    )
    data: str = setting(
        "",
        "shakespeare, python, or a UTF-8 file (BOM dropped, CRLF to LF); empty: shakespeare, or else python",
    )
    init_from: str = setting(
        "", "a GPT-2 folder or a run: go on from its weights, with its shape and tokenizer"
    )
    tokenizer: str = setting(
        "char", "char, bpe (byte-level, learnt from the data), or a tokenizer.json or its folder"
    )
    vocab_size: int = setting(2048, "tokens of a learnt bpe; fewer if no more pairs occur twice in the data")
    out: str = setting("", "folder for the run; empty: the first free runs/PRESET-DATA")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    precision: str = setting(
        "tf32", "matrix products on a GPU: fp32, tf32 or bf16 (sums are float32 in each)"
    )
    seed: int = setting(1337, "names the initial weights, the batches and the dropout masks")
    architecture: str = setting("reference", "reference (ReLU, separate head) or gpt2 (GELU, tied head)")
    block_size: int = setting(256, "context length in tokens")
    n_layer: int = setting(6, "number of blocks")
    n_head: int = setting(6, "attention heads per block")
    n_embd: int = setting(384, "channels")
    dropout: float = setting(0.2, "probability of dropping, rounded to 1/256; 0 for none")
    batch_size: int = setting(64, "sequences per step")
    max_steps: int = setting(5000, "optimizer steps of the whole schedule")
    stop_after: int = setting(
        0, "save and stop after this many steps without changing the schedule; 0: run to the end"
    )
    learning_rate: float = setting(3e-4, "peak learning rate")
    warmup_steps: int = setting(0, "steps of linear warm-up")
    min_lr: float = setting(-1.0, "where the cosine decay ends; negative: a constant learning rate")
    beta1: float = setting(0.9, "AdamW's decay of the mean")
    beta2: float = setting(0.999, "AdamW's decay of the mean square")
    weight_decay: float = setting(0.01, "AdamW's decoupled weight decay")
    decay_vectors: bool = setting(
        False, "let weight decay act on biases and norms too, as PyTorch's default does"
    )
    grad_clip: float = setting(0.0, "largest gradient norm; 0 for no clipping")
    eval_interval: int = setting(500, "steps between evaluations")
    eval_iters: int = setting(200, "batches per evaluation, of train and of validation each")
    sample_tokens: int = setting(500, "tokens of the sample at every evaluation")
    threads: int = setting(0, "worker threads on a CPU; 0: chosen for the machine")
    activation_checkpointing: bool = setting(
        False, "recompute each block in the backward pass: less memory, more time"
    )
    micro_batch: int = setting(0, "sequences a worker handles at once; 0: chosen for the model")
    detect_anomaly: bool = setting(
        True, "if the loss is no number, replay the steps since the last checkpoint to say where it began"
    )

    def __post_init__(self) -> None:
        names = ["batch_size", "max_steps", "eval_interval", "eval_iters", "learning_rate"]
        _check(self, names, "more than 0", lambda value: value > 0)
        names = ["stop_after", "warmup_steps", "weight_decay", "grad_clip", "sample_tokens", "threads"]
        _check(self, [*names, "micro_batch"], "at least 0", lambda value: value >= 0)
        _check(self, ["beta1", "beta2"], "at least 0 and below 1", lambda value: 0 <= value < 1)
        _check(self, ["vocab_size"], "at least 256, a token for each byte", lambda value: value >= 256)
        _check_choice("architecture", self.architecture, ARCHITECTURES)
        _check_choice("precision", self.precision, PRECISIONS)
        self.model_config(vocab_size=1)  # checks the shape before any data is read

    def model_config(self, vocab_size: int) -> GPTConfig:
        """The GPTConfig of this run."""
        names = ("block_size", "n_layer", "n_head", "n_embd", "dropout")
        shape = {name: getattr(self, name) for name in names}
        return GPTConfig(vocab_size=vocab_size, **shape, **ARCHITECTURES[self.architecture])


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
    "shakespeare": dict(decay_vectors=True),  # the reference run: every other value is TrainConfig's default
}  # fmt: skip


def _check(config: Any, names: Iterable[str], wanted: str, is_allowed: Callable[[Any], bool]) -> None:
    """UserError unless is_allowed(value) for each of these settings; `wanted` says the same in words."""
    for name in names:
        value = getattr(config, name)
        require(is_allowed(value), f"{name} is {value!r:.80}; it must be {wanted}")


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise UserError(f"{name} {value!r:.80} is unknown; {nearest(value, choices)}")


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint for a misspelt word."""
    close = difflib.get_close_matches(word, list(choices), 1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "choose from " + ", ".join(choices)


def resolve(settings: dict[str, Any], default_preset: str = "laptop") -> TrainConfig:
    """The TrainConfig from settings. What they leave out comes from the preset, then from the defaults."""
    preset = settings.get("preset") or default_preset
    _check_choice("preset", preset, PRESETS)
    return TrainConfig(**(PRESETS[preset] | settings | {"preset": preset}))


def read_toml(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file, with every key and type checked."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > LARGEST_FILE:
                raise UserError(f"{path} has more than {LARGEST_FILE:,} bytes; that is no file of settings")
            settings = tomllib.load(file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a TOML file: {error}") from None
    return checked(TrainConfig, settings, path)


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
    for key, value in settings.items():
        if key not in fields:
            raise UserError(f"{source}: unknown key {key!r:.80}; {nearest(key, fields)}")
        wanted = fields[key]
        allowed = (float, int) if wanted is float else wanted
        # To Python a bool is an int too.
        if not isinstance(value, allowed) or (isinstance(value, bool) and wanted is not bool):
            raise UserError(f"{source}: {key} must be {wanted.__name__}, not {value!r:.80}")
        limit = 2**63 if wanted is int else math.inf
        # `not <` refuses NaN too.
        if wanted in (int, float) and not abs(value) < limit:
            raise UserError(f"{source}: {key} is {value!r:.80}; that is no number to work with")
    return settings


def to_toml(config: TrainConfig) -> str:
    """A TrainConfig as TOML, whose numbers, strings and booleans are written as in JSON."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in dataclasses.asdict(config).items())
