"""All settings: GPTConfig shapes a model, TrainConfig a run, PRESETS name whole runs."""

import dataclasses
import difflib
import json
import math
import os
import tomllib
from dataclasses import dataclass, field

from autograd.cuda.products import COMPUTE_TYPES

# Sites in the random space (see autograd/random.py) of what is drawn beside dropout masks, far above the
# sites of a model's dropout layers.
BATCH_SITE, EVALUATION_SITE, SAMPLING_SITE = 60_000, 60_001, 60_002
LARGEST_FILE = 100_000  # bytes, of settings; far more than they ever have


class UserError(Exception):
    """Something the user can put right, told in one line. The command line prints it and exits with 2."""


ARCHITECTURES = {
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
    """The shape of a model. The switches at the end tell architectures apart; see ARCHITECTURES."""

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

    def __post_init__(self):
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        if self.n_embd % self.n_head:
            raise UserError(
                f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}: every head gets an equal "
                "share"
            )
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "at least 0 and below 1")

    def num_parameters(self):
        """How many numbers a model of this shape learns, counted without building it."""
        C, V = self.n_embd, self.vocab_size
        # 4 matrices; biases of c_proj, c_fc, c_proj; 2 norms
        block = 12 * C * C + 10 * C + (3 * C if self.qkv_bias else 0)
        head = 0 if self.tied_head else C * V + (V if self.head_bias else 0)
        return self.n_layer * block + (V + self.block_size) * C + 2 * C + head


def setting(default, help):
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
    vocab_size: int = setting(2048, "tokens of a learnt bpe; fewer if the data has no more that occur twice")
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

    def __post_init__(self):
        for name in ("batch_size", "max_steps", "eval_interval", "eval_iters", "learning_rate"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "more than 0")
        for name in (
            "stop_after",
            "warmup_steps",
            "weight_decay",
            "grad_clip",
            "sample_tokens",
            "threads",
            "micro_batch",
        ):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")
        _require(self.vocab_size >= 256, "vocab_size", self.vocab_size, "at least 256, a token for each byte")
        _one_of("architecture", self.architecture, ARCHITECTURES)
        _one_of("precision", self.precision, COMPUTE_TYPES)
        self.model_config(vocab_size=1)  # checks the shape before any data is read

    def model_config(self, vocab_size):
        """The GPTConfig of this run."""
        shape = {
            name: getattr(self, name) for name in ("block_size", "n_layer", "n_head", "n_embd", "dropout")
        }
        return GPTConfig(vocab_size=vocab_size, **shape, **ARCHITECTURES[self.architecture])


LAPTOP = dict(
    architecture="gpt2", block_size=96, n_layer=3, n_head=8, n_embd=128, dropout=0.0, batch_size=16, max_steps=3000,
    eval_interval=500, eval_iters=50, learning_rate=5e-3, warmup_steps=100, min_lr=5e-5, beta2=0.98, weight_decay=0.3,
    grad_clip=1.0,
)  # fmt: skip
PRESETS = {
    "smoke": dict(
        block_size=32, n_layer=2, n_head=2, n_embd=32, dropout=0.0, batch_size=8, max_steps=60, eval_interval=20,
        eval_iters=5, learning_rate=3e-3, sample_tokens=100,
    ),
    "laptop": LAPTOP,
    "zh": LAPTOP | dict(max_steps=2000, sample_tokens=200),  # thousands of characters: steps take longer, tokens say more
    "finetune": dict(  # for --init-from, whose weights are to be changed little
        dropout=0.0, batch_size=4, max_steps=100, eval_interval=25, eval_iters=4, learning_rate=5e-5, warmup_steps=10,
        min_lr=5e-6, beta2=0.99, weight_decay=0.1, grad_clip=1.0, sample_tokens=100,
    ),
    "shakespeare": dict(decay_vectors=True),  # the reference run: every other value is TrainConfig's default
}  # fmt: skip


def _require(ok, name, value, wanted):
    if not ok:
        raise UserError(f"{name} is {value!r:.80}; it must be {wanted}")


def _one_of(name, value, choices):
    if value not in choices:
        raise UserError(f"{name} {value!r:.80} is unknown; {nearest(value, choices)}")


def nearest(word, choices):
    """A hint for a misspelt word."""
    close = difflib.get_close_matches(word, list(choices), 1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "choose from " + ", ".join(choices)


def resolve(settings, default_preset="laptop"):
    """The TrainConfig from settings (a dict), over the preset's values, over the defaults."""
    preset = settings.get("preset") or default_preset
    _one_of("preset", preset, PRESETS)
    return TrainConfig(**(PRESETS[preset] | settings | {"preset": preset}))


def read_toml(path):
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


def from_dict(kind, settings, source):
    """The config of a class, GPTConfig or TrainConfig; what an older version did not know has its default.
    UserError names the source of the settings."""
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.name not in settings
    ]
    if missing:
        raise UserError(f"{source}: {missing[0]} is missing")
    checked(kind, settings, source)
    try:
        return kind(**settings)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def checked(kind, settings, source):
    """The settings (a dict read from `source`), if each is a field of that config class and of its type (int
    for float too).
    """
    fields = {f.name: f.type for f in dataclasses.fields(kind)}
    for key, value in settings.items():
        if key not in fields:
            raise UserError(f"{source}: unknown key {key!r:.80}; {nearest(key, fields)}")
        wanted = {float: (float, int)}.get(fields[key], fields[key])
        if not isinstance(value, wanted) or (isinstance(value, bool) and fields[key] is not bool):
            raise UserError(f"{source}: {key} must be {fields[key].__name__}, not {value!r:.80}")
        if fields[key] in (int, float) and not abs(value) < (
            2**63 if fields[key] is int else math.inf
        ):  # nor NaN
            raise UserError(f"{source}: {key} is {value!r:.80}; that is no number to work with")
    return settings


def to_toml(config):
    """A TrainConfig as TOML; its numbers, strings and booleans are written as in JSON."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in dataclasses.asdict(config).items())
