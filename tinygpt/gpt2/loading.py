"""Models from GPT-2 folders and from runs, to use or to start a run from."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.config import ARCHITECTURES, GPTConfig, TrainConfig, UserError
from tinygpt.gpt2.config import is_gpt2, read_config
from tinygpt.gpt2.weights import EMBEDDING, HEAD, read_weights, weight_files
from tinygpt.model import GPT
from tinygpt.run import checkpoint
from tinygpt.run.checkpoint import Checkpoint
from tinygpt.text.tokenizer import IdTokenizer, Tokenizer
from tinygpt.text.tokenizer_folder import end_ids, has_tokenizer, load_tokenizer


def load_model(path: str | Path) -> tuple[GPT, Tokenizer]:
    """(model, tokenizer) of a run's folder, of one of its checkpoints, or of a GPT-2 folder."""
    if not is_gpt2(path):
        model, tokenizer, _ = checkpoint.load_for_sampling(path)
        return model, tokenizer
    folder = Path(path)
    config, paths = read_config(folder), weight_files(folder)
    tokenizer = _tokenizer(folder, config.vocab_size)
    return _model(folder, config, paths), tokenizer


def _model(folder: Path, config: GPTConfig, paths: list[Path]) -> GPT:
    size = sum(os.path.getsize(path) for path in paths if path.exists())
    if size < 2 * config.num_parameters():  # before memory is asked for
        raise UserError(
            f"{paths[0]} is missing or too small for the {config.num_parameters():,} parameters of "
            "config.json"
        )
    model, head = GPT(config, seed=None), None
    parameters = dict(model.named_parameters())
    for name, array in read_weights(paths, {name: p.shape for name, p in parameters.items()}):
        if name in parameters:
            parameters[name].data[...] = array
        else:
            head = array.astype(np.float32)
    if head is not None and not np.array_equal(head.T, parameters[EMBEDDING].data):
        raise UserError(
            f"{folder}: {HEAD} differs from {EMBEDDING}, but tie_word_embeddings in config.json says that "
            "they are one; set it to false if the head is one of its own"
        )
    return model


def _tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """The folder's tokenizer, or that for its ids. UserError if it has more tokens than the model."""
    if not has_tokenizer(folder):
        tokenizer = IdTokenizer(vocab_size)
        tokenizer.end_ids = end_ids(folder, vocab_size) or ()
        return tokenizer
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > vocab_size:
        beyond = [token.content for token in tokenizer.added if token.id >= vocab_size]
        hint = f"; it has none for the added token {beyond[0]!r:.80}" if beyond else ""
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {vocab_size}{hint}"
        )
    return tokenizer


# --- starting a run -------------------------------------------------------------------------------


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
    architecture = _closest_architecture(config)
    if asked.get("architecture", architecture) != architecture:
        raise UserError(
            f"architecture {asked['architecture']!r} cannot be chosen: it is that of the model in {path}"
        )
    if "tokenizer" not in asked and not has_tokenizer(folder):
        raise UserError(f"{path} has no tokenizer.json; give the one that belongs to it with --tokenizer")
    return {"tokenizer": str(folder), **shape, "architecture": architecture, **asked}


def _closest_architecture(config):
    """The name of the architecture that has the most switches in common with a GPTConfig."""

    switches = {switch for each in ARCHITECTURES.values() for switch in each}

    def in_common(name):
        example = GPTConfig(vocab_size=1, **ARCHITECTURES[name])
        return sum(getattr(config, switch) == getattr(example, switch) for switch in switches)

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
