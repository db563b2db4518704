"""GPT-2's own format, as Hugging Face's transformers use it: a folder with config.json and model.safetensors.

Our weights have GPT-2's names and layout, (in, out). Only an output head of its own is stored the other way
round, (vocabulary, channels).
"""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from autograd.backend import to_numpy
from tinygpt.config import ARCHITECTURES, GPTConfig, TrainConfig, UserError, from_dict
from tinygpt.model import GPT
from tinygpt.run import checkpoint, files
from tinygpt.run.checkpoint import Checkpoint
from tinygpt.text.tokenizer import BPETokenizer, IdTokenizer, Tokenizer
from tinygpt.text.tokenizer_file import has_tokenizer, load_tokenizer, old_files, to_json

HUGGING_FACE_ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}  # theirs: ours
FIXED = {  # what our model cannot do in another way; transformers' defaults too
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
SIZES = {  # theirs: ours
    "vocab_size": "vocab_size",
    "n_positions": "block_size",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
}
DTYPES = ("F32", "F16", "F64")


# --- reading --------------------------------------------------------------------------------------


def load_model(path: str | Path) -> tuple[GPT, Tokenizer]:
    """(model, tokenizer) of a run's folder, of one of its checkpoints, or of a GPT-2 folder."""
    if not is_gpt2(path):
        model, tokenizer, _ = checkpoint.load_for_sampling(path)
        return model, tokenizer
    path = Path(path)
    config, weight_files = read_config(path), _weight_files(path)
    size = sum(os.path.getsize(file) for file in weight_files if file.exists())
    if size < 2 * config.num_parameters():  # before memory is asked for
        raise UserError(
            f"{weight_files[0]} is missing or too small for the {config.num_parameters():,} parameters of "
            "config.json"
        )
    model = GPT(config, seed=None)
    parameters = dict(model.named_parameters())
    for name, array in _read_weights(weight_files, {name: p.shape for name, p in parameters.items()}):
        parameters[name].data[...] = array
    tokenizer = load_tokenizer(path) if has_tokenizer(path) else IdTokenizer(model.config.vocab_size)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}"
        )
    return model, tokenizer


def is_gpt2(path: str | Path) -> bool:
    """Whether a folder is one of transformers', and no checkpoint of ours."""
    return (Path(path) / "config.json").is_file() and checkpoint.step_of(Path(path)) is None


def read_config(folder: Path) -> GPTConfig:
    """The GPTConfig (without dropout) for a GPT-2 folder's config.json.

    UserError if our model would compute something else.
    """
    path = folder / "config.json"
    values = files.read_json(path)
    if values.get("model_type") != "gpt2":
        raise UserError(f"{path}: model_type is {values.get('model_type')!r:.80}; only gpt2 can be read")
    missing = [name for name in SIZES if name not in values]
    if missing:
        raise UserError(f"{path} does not say {missing[0]}")
    activation = values.get("activation_function", "gelu_new")
    if activation not in list(HUGGING_FACE_ACTIVATIONS):  # a list, as a value from JSON may be unhashable
        known = ", ".join(HUGGING_FACE_ACTIVATIONS)
        raise UserError(f"{path}: activation_function is {activation!r:.80}; it must be one of {known}")
    settings = ARCHITECTURES["gpt2"] | {ours: values[theirs] for theirs, ours in SIZES.items()}
    settings["activation"] = HUGGING_FACE_ACTIVATIONS[activation]
    settings["tied_head"] = values.get("tie_word_embeddings", True)
    settings["dropout"] = 0.0
    config = from_dict(GPTConfig, settings, path)
    for name, wanted in (FIXED | {"n_inner": 4 * config.n_embd}).items():
        if values.get(name) not in (None, wanted):
            raise UserError(f"{path}: {name} is {values[name]!r:.80}; only {wanted} can be computed here")
    return config


def _read_weights(paths, shapes):
    """Yield (our name, array) for every parameter, one at a time. UserError names a tensor that is wrong."""
    missing = dict(shapes)
    for path in paths:
        checkpoint.check_header(path)
        try:
            with safe_open(path, framework="np") as file:
                for stored in file.keys():  # noqa: SIM118, as `for stored in file` is an error
                    name = stored
                    if not name.startswith(("transformer.", "lm_head.")):
                        name = "transformer." + name
                    if _is_redundant(name, shapes):
                        continue
                    if name not in missing:
                        raise UserError(f"{path}: tensor {stored} is not one of this model's")
                    shape, transposed = missing.pop(name), name == "lm_head.weight"
                    _check_tensor(path, stored, file.get_slice(stored), shape[::-1] if transposed else shape)
                    array = file.get_tensor(stored)
                    yield name, array.T if transposed else array
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
    if missing:
        raise UserError(f"{paths[-1]}: tensor {next(iter(missing))} is missing")


def _is_redundant(name, shapes):
    """Whether a tensor is a causal mask, or a second copy of the token embedding, which is a tied head."""
    is_mask = name.endswith((".attn.bias", ".attn.masked_bias"))
    return is_mask or (name == "lm_head.weight" and name not in shapes)


def _check_tensor(path, name, found, shape):
    if found.get_dtype() not in DTYPES or tuple(found.get_shape()) != shape:
        raise UserError(
            f"{path}: {name} should be {shape} of {', '.join(DTYPES)}, "
            f"found {tuple(found.get_shape())} of {found.get_dtype()}"
        )


def _weight_files(folder):
    """The file with the weights, or the several that a large model is stored in."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists() or not index.exists():
        if not (folder / "model.safetensors").exists() and (folder / "pytorch_model.bin").exists():
            raise UserError(
                f"{folder} has only pytorch_model.bin, a pickle, which can run code: convert it to "
                "safetensors"
            )
        return [folder / "model.safetensors"]
    names = files.read_json(index).get("weight_map")
    names = sorted(set(map(str, names.values()))) if isinstance(names, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise UserError(f"{index}: weight_map should name files in the same folder")
    return [folder / name for name in names]


# --- starting a run from it -----------------------------------------------------------------------


def settings_from(path: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run that starts from the weights in a folder: those asked for, its shape, its tokenizer.

    UserError if what was asked for does not fit the model. The context may be shorter than the model's.
    """
    if is_gpt2(path):
        folder = Path(path)
        config = read_config(folder)
    else:
        folder = checkpoint.find(path)
        config = checkpoint.load(folder).model_config()
    shape = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "block_size")}
    for name, value in shape.items():
        wanted = asked.get(name, value)
        if wanted > value or (wanted < value and name != "block_size"):
            raise UserError(f"{name} is {wanted}, but the model in {path} has {value}; leave it out")
    if "architecture" in asked:
        raise UserError(
            f"architecture {asked['architecture']!r} cannot be chosen: it is that of the model in {path}"
        )
    if "tokenizer" not in asked and not has_tokenizer(folder):
        raise UserError(f"{path} has no tokenizer.json; give the one that belongs to it with --tokenizer")
    return {"tokenizer": str(folder), **shape, "architecture": _closest_architecture(config), **asked}


def _closest_architecture(config):
    """The name of the architecture that has the most switches in common with a GPTConfig."""

    def in_common(name):
        return sum(getattr(config, key) == value for key, value in ARCHITECTURES[name].items())

    return max(ARCHITECTURES, key=in_common)


def initial_model(config: TrainConfig, tokenizer: Tokenizer, saved: Checkpoint | None = None) -> GPT:
    """The model of a run before its first step.

    To resume from a Checkpoint, `saved`: a model of its shape, whose weights are still to be restored.
    """
    if not config.init_from:
        return GPT(config.model_config(tokenizer.vocab_size), config.seed)
    if saved:
        return GPT(dataclasses.replace(saved.model_config(), dropout=config.dropout), seed=None)
    source, _ = load_model(config.init_from)
    if tokenizer.vocab_size > source.config.vocab_size:
        raise UserError(
            f"{config.tokenizer} has {tokenizer.vocab_size} tokens, the model in {config.init_from} "
            f"{source.config.vocab_size}"
        )
    shape = dataclasses.replace(source.config, dropout=config.dropout, block_size=config.block_size)
    model = GPT(shape, seed=None)
    for mine, theirs in zip(model.parameters(), source.parameters(), strict=True):
        mine.data[...] = theirs.data[: len(mine.data)]  # fewer positions if the context is shorter
    return model


# --- writing --------------------------------------------------------------------------------------


def export(model: GPT, tokenizer: Tokenizer, folder: str | Path, head_bias: str = "refuse") -> None:
    """Write a folder for transformers: GPT2LMHeadModel with the same logits, a tokenizer with the same ids.

    GPT-2 has no place for a bias of the output head. head_bias="fold" puts it into the last norm's bias,
    which gives the same logits as long as there are no more tokens than channels; "drop" leaves it out;
    "refuse" is a UserError.
    """
    folder, weights = Path(folder), _exported_weights(model, head_bias)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{folder} exists; give a new folder") from None
    files.create(folder / "config.json", files.json_text(_exported_config(model.config)))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors lets only its owner read it
    shutil.copymode(folder / "config.json", folder / "model.safetensors")
    for name, text in _tokenizer_files(tokenizer, model.config.block_size).items():
        files.create(folder / name, text)


def _exported_weights(model, head_bias):
    weights = {name: to_numpy(p.data) for name, p in model.named_parameters()}
    bias = weights.pop("lm_head.bias", None)
    if bias is not None and bias.any():
        weights["transformer.ln_f.bias"] = _with_head_bias(weights, bias, head_bias)
    if "lm_head.weight" in weights:
        weights["lm_head.weight"] = weights["lm_head.weight"].T  # (C, V) -> (V, C)
    for i in range(model.config.n_layer):
        weights.setdefault(
            f"transformer.h.{i}.attn.c_attn.bias", np.zeros(3 * model.config.n_embd, np.float32)
        )
    # Contiguous, because safetensors writes other NumPy arrays wrongly without an error.
    return {name: np.ascontiguousarray(array) for name, array in weights.items()}


def _with_head_bias(weights, bias, head_bias):
    """The last norm's bias that also replaces the head's: ln_f.bias + x, where x @ lm_head.weight = bias."""
    ln_f, head = weights["transformer.ln_f.bias"], weights["lm_head.weight"].astype(np.float64)  # (C), (C, V)
    C, V = head.shape
    if head_bias == "refuse":
        raise UserError(
            "GPT-2 has no place for this model's bias of the output head: --head-bias fold puts it into the "
            f"last norm (exact if there are no more tokens than channels; here {V} and {C}), --head-bias "
            "drop leaves it out, or train with --architecture gpt2"
        )
    if head_bias == "drop":
        return ln_f
    x = np.linalg.lstsq(head.T, bias.astype(np.float64), rcond=None)[0]
    error = np.abs(x @ head - bias).max()
    if error > 1e-5:
        raise UserError(
            f"the head's bias cannot be folded: {V} tokens, {C} channels, logits off by {error:.2g}; use "
            "--head-bias drop"
        )
    return (ln_f + x).astype(np.float32)


def _exported_config(config):
    # Reversed, so that of several names the first one stays.
    theirs = {ours: name for name, ours in reversed(HUGGING_FACE_ACTIVATIONS.items())}
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "dtype": "float32",
        "torch_dtype": "float32",
        **{name: getattr(config, ours) for name, ours in SIZES.items()},
        "n_inner": None,
        "activation_function": theirs[config.activation],
        "tie_word_embeddings": config.tied_head,
        "resid_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "initializer_range": 0.02,
        "embd_pdrop": config.dropout if config.embedding_dropout else 0.0,
        **FIXED,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _tokenizer_files(tokenizer, block_size):
    """{file name: text}; for byte-pair encoding also GPT-2's older files, which can describe nothing else."""
    if isinstance(tokenizer, IdTokenizer):  # which stands for a tokenizer that is not there
        return {}
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
        # Without these three, GPT2Tokenizer adds a token of its own.
        "bos_token": None,
        "eos_token": None,
        "unk_token": None,
    }
    texts = {"tokenizer.json": to_json(tokenizer), "tokenizer_config.json": files.json_text(about)}
    if isinstance(tokenizer, BPETokenizer):
        texts |= old_files(tokenizer)
    return texts
