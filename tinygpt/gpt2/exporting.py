"""Writing a GPT-2 folder, which gives transformers the same logits and the same ids."""

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from autograd.backend import to_numpy
from tinygpt.config import UserError
from tinygpt.gpt2.config import exported_config, is_gpt2
from tinygpt.model import GPT
from tinygpt.run import checkpoint, files
from tinygpt.text.tokenizer import BPETokenizer, IdTokenizer, Tokenizer
from tinygpt.text.tokenizer_file import old_files, to_json
from tinygpt.text.tokenizer_folder import has_tokenizer, load_tokenizer, named_tokens, read_settings

GENERATION = "generation_config.json"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def export(
    model: GPT,
    tokenizer: Tokenizer,
    folder: str | Path,
    head_bias: str = "refuse",
    source: Path | None = None,
) -> None:
    """Write a folder for transformers: GPT2LMHeadModel with the same logits, a tokenizer with the same ids.

    GPT-2 has no place for a bias of the output head. head_bias="fold" puts it into the last norm's bias,
    which gives the same logits as long as there are no more tokens than channels; "drop" leaves it out;
    "refuse" is a UserError. source: the GPT-2 folder that the model comes from, whose generation config and
    whose tokens for beginning, end and padding are kept.
    """
    folder = Path(folder)
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists; give a new folder")
    weights = _exported_weights(model, head_bias)
    texts = {"config.json": files.json_text(exported_config(model.config) | _token_ids(tokenizer, source))}
    if source and (source / GENERATION).exists():
        texts[GENERATION] = files.json_text(read_settings(source / GENERATION))
    texts |= _tokenizer_files(tokenizer, model.config.block_size, source)
    temporary = folder.with_name(f".{folder.name}.tmp")
    layout = dict.fromkeys(map(re.escape, [*texts, "model.safetensors"]), files.FILE)
    try:
        files.remove_folder(temporary, layout)
        temporary.mkdir(parents=True)
        for name, text in texts.items():
            files.create(temporary / name, text)
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        # safetensors lets only its owner read it
        shutil.copymode(temporary / "config.json", temporary / "model.safetensors")
        os.rename(temporary, folder)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            files.remove_folder(temporary, layout)
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {folder}: {reason}") from None


def source_of(path: str | Path, tokenizer: Tokenizer) -> Path | None:
    """The GPT-2 folder that a model comes from: its own, or the one that its run started from.

    None if that folder is not there any more or has another tokenizer.
    """
    if is_gpt2(path):
        return Path(path)
    source = Path(checkpoint.load(path).state["settings"].get("init_from") or "")
    try:
        if source.name and is_gpt2(source) and load_tokenizer(source).pieces == tokenizer.pieces:
            return source
    except UserError:
        pass
    return None


def _exported_weights(model, head_bias):
    weights = {name: to_numpy(p.data) for name, p in model.named_parameters()}
    C, D = model.config.n_embd, model.config.n_embd // model.config.n_head
    bias = weights.pop("lm_head.bias", None)
    if bias is not None and bias.any():
        weights["transformer.ln_f.bias"] = _with_head_bias(weights, bias, head_bias)
    if "lm_head.weight" in weights:
        weights["lm_head.weight"] = weights["lm_head.weight"].T  # (C, V) -> (V, C)
    for i in range(model.config.n_layer):
        c_attn = f"transformer.h.{i}.attn.c_attn"
        weights.setdefault(f"{c_attn}.bias", np.zeros(3 * C, np.float32))
        if model.config.scores_over_channels:  # GPT-2 divides scores by √D: the queries make up for it
            factor = np.where(np.arange(3 * C) < C, (D / C) ** 0.5, 1.0)  # (3C)
            for name in (f"{c_attn}.weight", f"{c_attn}.bias"):
                weights[name] = weights[name] * factor.astype(np.float32)
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


def _token_ids(tokenizer: Tokenizer, source: Path | None) -> dict[str, Any]:
    """The ids of special tokens in config.json."""
    ends = tokenizer.end_ids
    ids = dict.fromkeys(TOKEN_IDS) | {"eos_token_id": list(ends) if len(ends) > 1 else next(iter(ends), None)}
    if source:
        settings = read_settings(source / "config.json")
        ids |= {name: settings[name] for name in TOKEN_IDS if name in settings}
    return ids


def _tokenizer_files(tokenizer: Tokenizer, block_size: int, source: Path | None) -> dict[str, str]:
    """{file name: text}; for byte-pair encoding also GPT-2's older files, which can describe nothing else."""
    if isinstance(tokenizer, IdTokenizer):  # which stands for a tokenizer that is not there
        return {}
    if source and has_tokenizer(source):
        parts = named_tokens(source)
    else:
        ends = [token.content for token in tokenizer.added if token.id in tokenizer.end_ids]
        parts = {"eos_token": ends[0]} if ends else {}
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
        # Without these three, GPT2Tokenizer adds a token of its own.
        "bos_token": None,
        "eos_token": None,
        "unk_token": None,
        **parts,
    }
    texts = {
        "tokenizer.json": to_json(tokenizer, with_end=False),
        "tokenizer_config.json": files.json_text(about),
    }
    if isinstance(tokenizer, BPETokenizer):
        texts |= old_files(tokenizer)
    return texts
