"""config.json: what a GPT-2 model computes, as transformers say it, and our GPTConfig."""

from pathlib import Path
from typing import Any

from tinygpt.config import ARCHITECTURES, GPTConfig, UserError, from_dict
from tinygpt.run import checkpoint
from tinygpt.text.tokenizer_folder import read_settings

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTER = "adapter_config.json"
ACTIVATIONS = {  # theirs: ours; all of these are GELU in its tanh form
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "gelu_accurate": "gelu",
    "relu": "relu",
}
SIZES = {  # theirs: (ours, transformers' default)
    "vocab_size": ("vocab_size", 50257),
    "n_positions": ("block_size", 1024),
    "n_layer": ("n_layer", 12),
    "n_head": ("n_head", 12),
    "n_embd": ("n_embd", 768),
}
ALIASES = {  # other names of these, which transformers read too
    "max_position_embeddings": "n_positions",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "hidden_size": "n_embd",
}
FIXED = {  # what our model cannot do in another way; transformers' defaults too
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
ABSENT = {  # settings that are seldom there, and what they may be
    "is_causal": (True,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "auto_map": ({}, None),
}
MODELS = ("GPT2LMHeadModel", "GPT2Model")


def is_gpt2(path: str | Path) -> bool:
    """Whether a folder is one of transformers', and neither a run of ours nor one of its checkpoints."""
    folder = Path(path)
    if not any((folder / name).is_file() for name in ("config.json", ADAPTER, *WEIGHTS, *PICKLES)):
        return False
    return checkpoint.step_of(folder) is None or _names_a_model(folder / "config.json")


def _names_a_model(path: Path) -> bool:
    """Whether a config.json is transformers': ours has no model_type."""
    try:
        return "model_type" in read_settings(path)
    except UserError:
        return False


def read_config(folder: Path) -> GPTConfig:
    """The GPTConfig (without dropout) for a GPT-2 folder's config.json.

    UserError if our model would compute something else.
    """
    if (folder / ADAPTER).exists():
        raise UserError(
            f"{folder / ADAPTER}: an adapter (LoRA) cannot be read; merge it into its model with peft's "
            "merge_and_unload, save that, and give its folder"
        )
    path = folder / "config.json"
    values = read_settings(path)
    if values.get("model_type") != "gpt2":
        raise UserError(f"{path}: model_type is {values.get('model_type')!r:.80}; only gpt2 can be read")
    if values.get("architectures") not in (None, [], *([name] for name in MODELS)):
        found, known = values["architectures"], " or ".join(f"[{name!r}]" for name in MODELS)
        raise UserError(f"{path}: architectures is {found!r:.80}; it must be {known}")
    sizes = _sizes(values, path)
    allowed = {name: (wanted,) for name, wanted in FIXED.items()} | ABSENT
    allowed["n_inner"] = (None, 4 * sizes["n_embd"])
    allowed["tie_word_embeddings"] = (True, False)
    allowed["activation_function"] = tuple(ACTIVATIONS)
    for name, choices in allowed.items():
        if name in values and values[name] not in choices:
            raise UserError(
                f"{path}: {name} is {values[name]!r:.80}; it must be {' or '.join(map(str, choices))}, which "
                "is all that can be computed here"
            )
    settings = ARCHITECTURES["gpt2"] | {ours: sizes[theirs] for theirs, (ours, _) in SIZES.items()}
    settings["activation"] = ACTIVATIONS[values.get("activation_function", "gelu_new")]
    settings["tied_head"] = bool(values.get("tie_word_embeddings", True))
    settings["dropout"] = 0.0
    return from_dict(GPTConfig, settings, path)


def _sizes(values: dict[str, Any], path: Path) -> dict[str, int]:
    """{GPT-2's name: size}. UserError if two names of one size contradict each other."""
    sizes = {}
    for name, (_, default) in SIZES.items():
        names = [name, *(alias for alias, other in ALIASES.items() if other == name)]
        given = {each: values[each] for each in names if each in values}
        for value in given.values():
            if type(value) is not int or value != next(iter(given.values())):
                both = " and ".join(f"{key} is {value!r:.80}" for key, value in given.items())
                raise UserError(f"{path}: {both}; it must be one whole number")
        sizes[name] = next(iter(given.values()), default)
    return sizes


def exported_config(config: GPTConfig) -> dict[str, Any]:
    """The content of config.json for a model of ours, without the ids of special tokens."""
    # Reversed, so that of several names the first one stays.
    theirs = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "dtype": "float32",
        "torch_dtype": "float32",
        **{name: getattr(config, ours) for name, (ours, _) in SIZES.items()},
        "n_inner": None,
        "activation_function": theirs[config.activation],
        "tie_word_embeddings": config.tied_head,
        "resid_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "initializer_range": 0.02,
        "embd_pdrop": config.dropout if config.embedding_dropout else 0.0,
        **FIXED,
    }
