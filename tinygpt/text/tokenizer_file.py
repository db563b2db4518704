"""Files of tokenizers: Hugging Face's tokenizer.json, and GPT-2's older vocab.json with merges.txt."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tinygpt.config import UserError, require
from tinygpt.text.data import split
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer, Tokenizer, byte_characters

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
EVERY_CHARACTER = {
    "type": "Split",
    "pattern": {"Regex": r"[\s\S]"},
    "behavior": "Isolated",
    "invert": False,
}
# What reading a file of another form can raise.
DAMAGE = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)


def choose_tokenizer(name: str, vocab_size: int, text: str) -> Tokenizer:
    """The tokenizer for a text: "char", "bpe" (learnt from the part to train on), or the path of one."""
    if name == "char":
        return CharTokenizer(text)
    if name == "bpe":
        return BPETokenizer.learn(split(text)[0], vocab_size)
    return load_tokenizer(name)


# --- reading --------------------------------------------------------------------------------------


def has_tokenizer(folder: str | Path) -> bool:
    """Whether `load_tokenizer` will find one there."""
    folder = Path(folder)
    old_files = (folder / "vocab.json").exists() and (folder / "merges.txt").exists()
    return (folder / "tokenizer.json").exists() or old_files


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json, or in a folder with one or with GPT-2's vocab.json and merges.txt.

    UserError if the file cannot be read, or describes one that works in another way than ours.
    """
    path = Path(path)
    try:
        if has_tokenizer(path) and not (path / "tokenizer.json").exists():
            path = path / "vocab.json"
            return _from_old_files(path, path.with_name("merges.txt"))
        if path.is_dir():
            path = path / "tokenizer.json"
        return _from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        advice = "a tokenizer is char, bpe, or a tokenizer.json"
        raise UserError(f"cannot read {path}: {error.strerror}; {advice}") from None
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be used: {error}") from None
    except DAMAGE:
        reason = "it describes neither characters nor byte-level BPE, or is damaged"
        raise UserError(f"{path} cannot be used: {reason}") from None


def _from_json(text: str) -> Tokenizer:
    value = json.loads(text)
    readers = {"WordLevel": _char_tokenizer, "BPE": _bpe_tokenizer}
    return readers[value["model"].get("type", "BPE")](value)  # GPT-2's own file names no type


def _char_tokenizer(value: dict[str, Any]) -> CharTokenizer:
    tokenizer = CharTokenizer(value["model"]["vocab"])
    ours = json.loads(to_json(tokenizer))
    same = all(value[key] == ours[key] for key in ("model", "pre_tokenizer", "normalizer", "added_tokens"))
    require(len(tokenizer.pieces) > 0 and same, "its words are not single characters in sorted order")
    return tokenizer


def _bpe_tokenizer(value: dict[str, Any]) -> BPETokenizer:
    """The tokenizer of a tokenizer.json, if it works as GPT-2's does."""
    model, added = value["model"], value.get("added_tokens") or []
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        require(not model.get(key), f"its {key} is {model.get(key)!r}")
    require(value.get("normalizer") is None, "it has a normalizer")
    require(_splits_as_gpt2(value.get("pre_tokenizer") or {}), "its text is not split as GPT-2's is")
    require(_adds_nothing(value.get("post_processor") or BYTE_LEVEL), "it adds tokens to the text")
    for token in added:
        wider = token.get("single_word") or token.get("lstrip") or token.get("rstrip")
        require(token["content"] and not wider, f"its token {token['content']!r} reaches beyond its text")
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return _from_names(model["vocab"], merges, {token["content"]: token["id"] for token in added})


def _splits_as_gpt2(pre_tokenizer: dict[str, Any]) -> bool:
    return (
        pre_tokenizer.get("type") == "ByteLevel"
        and not pre_tokenizer["add_prefix_space"]
        and pre_tokenizer.get("use_regex", True)
    )


def _adds_nothing(post_processor: dict[str, Any]) -> bool:
    if post_processor["type"] == "TemplateProcessing":
        return not post_processor["special_tokens"]
    return post_processor["type"] == "ByteLevel"


def _from_old_files(vocab_file: Path, merges_file: Path) -> BPETokenizer:
    """GPT-2's first format: a JSON object of tokens, and merges in lines after one with a version."""
    vocab = json.loads(vocab_file.read_text(encoding="utf-8"))
    lines = merges_file.read_text(encoding="utf-8").split("\n")
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    special = {name: vocab[name] for name in ("<|endoftext|>",) if name in vocab}
    return _from_names(vocab, merges, special)


def _from_names(
    vocab: dict[str, int], merges: Iterable[Sequence[str]], special: dict[str, int]
) -> BPETokenizer:
    """vocab and special: {token, as Hugging Face writes it: id}; merges: pairs of such tokens."""
    every = vocab | special
    require(sorted(every.values()) == list(range(len(every))), "its ids are not 0, 1, 2, ...")
    to_byte = {character: byte for byte, character in enumerate(byte_characters())}
    pieces = [b""] * len(every)
    for name, i in every.items():
        pieces[i] = name.encode() if name in special else bytes([to_byte[character] for character in name])
    return BPETokenizer(pieces, [(vocab[a], vocab[b]) for a, b in merges], special.values())


# --- writing --------------------------------------------------------------------------------------


def to_json(tokenizer: CharTokenizer | BPETokenizer) -> str:
    """The text of a tokenizer's tokenizer.json."""
    if isinstance(tokenizer, CharTokenizer):
        vocab = {char: i for i, char in enumerate(tokenizer.chars)}
        model = {"type": "WordLevel", "vocab": vocab, "unk_token": ""}
        return _tokenizer_json(model, pre_tokenizer=EVERY_CHARACTER, decoder={"type": "Fuse"})
    names = token_names(tokenizer)
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {name: i for i, name in enumerate(names)},
        "merges": merge_lines(tokenizer),
    }
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": names[i], **flags} for i in tokenizer.special]
    return _tokenizer_json(model, pre_tokenizer=BYTE_LEVEL, decoder=BYTE_LEVEL, added_tokens=added)


def _tokenizer_json(
    model: dict[str, Any],
    pre_tokenizer: dict[str, Any],
    decoder: dict[str, Any],
    added_tokens: Iterable[dict[str, Any]] = (),
) -> str:
    parts = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added_tokens),
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }
    return _json(parts)


def old_files(tokenizer: BPETokenizer) -> dict[str, str]:
    """{file name: text} of GPT-2's vocab.json and merges.txt."""
    vocab = {name: i for i, name in enumerate(token_names(tokenizer))}
    merges = ["#version: 0.2", *merge_lines(tokenizer), ""]
    return {"vocab.json": _json(vocab) + "\n", "merges.txt": "\n".join(merges)}


def token_names(tokenizer: BPETokenizer) -> list[str]:
    """Every token as Hugging Face writes it, with a visible character for each byte."""
    characters = byte_characters()
    names = ["".join(characters[byte] for byte in piece) for piece in tokenizer.pieces]
    for i in tokenizer.special:
        names[i] = tokenizer.pieces[i].decode()
    return names


def merge_lines(tokenizer: BPETokenizer) -> list[str]:
    """Every merge as Hugging Face writes it: the two tokens with a space between them."""
    names = token_names(tokenizer)
    return [f"{names[a]} {names[b]}" for a, b in tokenizer.merges]


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
