"""GPT-2's own format, as Hugging Face's transformers write and read it: a folder with config.json and
model.safetensors.

Our weights have GPT-2's names and layout, (in, out); only an output head of its own is stored (vocabulary,
channels).
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from autograd.backend import to_numpy
from tinygpt.config import ARCHITECTURES, GPTConfig, UserError, from_dict
from tinygpt.model import GPT
from tinygpt.run import checkpoint, files
from tinygpt.text.tokenizer import BPETokenizer, IdTokenizer, has_tokenizer, load_tokenizer

ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}
FIXED = {  # what our model cannot do otherwise, and what transformers take if config.json does not say
    "layer_norm_epsilon": 1e-5, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}  # fmt: skip
SIZES = {
    "vocab_size": "vocab_size",
    "n_positions": "block_size",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
}
DTYPES = ("F32", "F16", "F64")


# --- reading --------------------------------------------------------------------------------------


def load_model(path):
    """(model, tokenizer) of a run's folder, of one of its checkpoints, or of a GPT-2 folder."""
    if not is_gpt2(path):
        return checkpoint.load_for_sampling(path)[:2]
    path = Path(path)
    config, files_here = read_config(path), _weight_files(path)
    size = sum(os.path.getsize(file) for file in files_here if file.exists())
    if size < 2 * config.num_parameters():  # ask for no memory in vain
        raise UserError(
            f"{files_here[0]} is missing or too small for the {config.num_parameters():,} parameters of "
            "config.json"
        )
    model = GPT(config, seed=None)
    parameters = dict(model.named_parameters())
    for name, array in _read_weights(files_here, {name: p.shape for name, p in parameters.items()}):
        parameters[name].data[...] = array
    tokenizer = load_tokenizer(path) if has_tokenizer(path) else IdTokenizer(model.config.vocab_size)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}"
        )
    return model, tokenizer


def is_gpt2(path):
    """Whether a folder is one of transformers', and no checkpoint of ours."""
    return (Path(path) / "config.json").is_file() and checkpoint.step_of(Path(path)) is None


def read_config(folder):
    """The GPTConfig (without dropout) for a GPT-2 folder's config.json.

    UserError if our model would compute another thing.
    """
    path = folder / "config.json"
    values = checkpoint.read_json(path)
    if values.get("model_type") != "gpt2":
        raise UserError(f"{path}: model_type is {values.get('model_type')!r:.80}; only gpt2 can be read")
    missing = [name for name in SIZES if name not in values]
    if missing:
        raise UserError(f"{path} does not say {missing[0]}")
    activation = values.get("activation_function", "gelu_new")
    if activation not in list(ACTIVATIONS):
        raise UserError(
            f"{path}: activation_function is {activation!r:.80}; it must be one of {', '.join(ACTIVATIONS)}"
        )
    config = ARCHITECTURES["gpt2"] | {ours: values[name] for name, ours in SIZES.items()}
    config |= {"activation": ACTIVATIONS[activation], "tied_head": values.get("tie_word_embeddings", True)}
    config = from_dict(GPTConfig, config | {"dropout": 0.0}, path)
    for name, wanted in FIXED.items() | {("n_inner", 4 * config.n_embd)}:
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
                for stored in file.keys():  # noqa: SIM118, as the file itself cannot be walked through
                    name = (
                        stored if stored.startswith(("transformer.", "lm_head.")) else "transformer." + stored
                    )
                    if name.endswith((".attn.bias", ".attn.masked_bias")) or (
                        name == "lm_head.weight" and name not in shapes
                    ):
                        continue  # the causal mask; a tied head's second copy
                    if name not in missing:
                        raise UserError(f"{path}: tensor {stored} is not one of this model's")
                    found, shape = file.get_slice(stored), missing.pop(name)
                    shape = shape[::-1] if name == "lm_head.weight" else shape
                    if found.get_dtype() not in DTYPES or tuple(found.get_shape()) != shape:
                        raise UserError(
                            f"{path}: {stored} should be {shape} of {', '.join(DTYPES)}, "
                            f"found {tuple(found.get_shape())} of {found.get_dtype()}"
                        )
                    array = file.get_tensor(stored)
                    yield name, array.T if name == "lm_head.weight" else array
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
    if missing:
        raise UserError(f"{paths[-1]}: tensor {next(iter(missing))} is missing")


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
    names = checkpoint.read_json(index).get("weight_map")
    names = sorted(set(map(str, names.values()))) if isinstance(names, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise UserError(f"{index}: weight_map should name files in the same folder")
    return [folder / name for name in names]


# --- starting a run from it -----------------------------------------------------------------------


def settings_from(path, asked):
    """Settings of a run whose first weights are those in a folder: its shape and its tokenizer, under those
    asked for.

    UserError if what was asked for does not go with them. The context may be made shorter.
    """
    folder = Path(path) if is_gpt2(path) else checkpoint.find(path)
    config = read_config(folder) if is_gpt2(path) else checkpoint.load(folder).model_config()
    shape = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "block_size")}
    for name, value in shape.items():
        if name in asked and (asked[name] > value if name == "block_size" else asked[name] != value):
            raise UserError(f"{name} is {asked[name]}, but the model in {path} has {value}; leave it out")
    if "architecture" in asked:
        raise UserError(
            f"architecture {asked['architecture']!r} cannot be chosen: it is that of the model in {path}"
        )
    switches = {name: getattr(config, name) for name in ARCHITECTURES["gpt2"]}
    likest = max(
        ARCHITECTURES,
        key=lambda name: sum(ARCHITECTURES[name][key] == value for key, value in switches.items()),
    )
    if "tokenizer" not in asked and not has_tokenizer(folder):
        raise UserError(f"{path} has no tokenizer.json; give the one that belongs to it with --tokenizer")
    return {"tokenizer": str(folder), **shape, "architecture": likest, **asked}


def initial_model(config, tokenizer, saved=None):
    """The model of a run with this TrainConfig before its first step, or, to resume from a Checkpoint, its
    shape.
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
    model = GPT(
        dataclasses.replace(source.config, dropout=config.dropout, block_size=config.block_size), seed=None
    )
    for mine, theirs in zip(model.parameters(), source.parameters(), strict=True):
        mine.data[...] = theirs.data[: len(mine.data)]  # fewer positions, perhaps
    return model


# --- writing --------------------------------------------------------------------------------------


def export(model, tokenizer, folder, head_bias="refuse"):
    """Write a folder that transformers load: GPT2LMHeadModel with the same logits, and the tokenizer with the
    same ids.

    GPT-2 has no place for a bias of the output head. head_bias="fold" puts it into the last norm's bias,
    which gives the same logits as long as there are no more tokens than channels; "drop" leaves it out;
    "refuse" is a UserError.
    """
    folder, weights = Path(folder), _exported_weights(model, head_bias)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{folder} exists; give a new folder") from None
    files.create(folder / "config.json", _dumps(_exported_config(model.config)))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors lets nobody else read it
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
    # or safetensors writes nonsense
    return {name: np.ascontiguousarray(array) for name, array in weights.items()}


def _with_head_bias(weights, bias, head_bias):
    """The last norm's bias that does the work of the head's too: ln_f.bias + x, where x @ lm_head.weight =
    bias.
    """
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
    names = {activation: name for name, activation in reversed(ACTIVATIONS.items())}  # the first name of each
    values = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    values |= {name: getattr(config, ours) for name, ours in SIZES.items()}
    values |= {
        "n_inner": None,
        "activation_function": names[config.activation],
        "tie_word_embeddings": config.tied_head,
    }
    values |= {"resid_pdrop": config.dropout, "attn_pdrop": config.dropout, "initializer_range": 0.02}
    values |= {"embd_pdrop": config.dropout if config.embedding_dropout else 0.0}
    return values | FIXED | {"bos_token_id": None, "eos_token_id": None}


def _tokenizer_files(tokenizer, block_size):
    """File name -> content. The old vocab.json and merges.txt too, where they can say it."""
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
    }
    about |= dict.fromkeys(("bos_token", "eos_token", "unk_token"))  # or GPT2Tokenizer adds one of its own
    texts = {"tokenizer.json": tokenizer.to_json(), "tokenizer_config.json": _dumps(about)}
    if isinstance(tokenizer, BPETokenizer):
        texts["vocab.json"] = _dumps({name: i for i, name in enumerate(tokenizer.names())})
        texts["merges.txt"] = "\n".join(["#version: 0.2", *tokenizer.merge_lines(), ""])
    return texts


def _dumps(value):
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
