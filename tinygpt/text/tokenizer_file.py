"""Files of tokenizers: Hugging Face's tokenizer.json, and GPT-2's older vocab.json with merges.txt."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.config import UserError, require
from tinygpt.text.added_tokens import FLAGS, AddedToken, Additions
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer, Tokenizer, byte_characters, ends_by_name

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
EVERY_CHARACTER = {
    "type": "Split",
    "pattern": {"Regex": r"[\s\S]"},
    "behavior": "Isolated",
    "invert": False,
}
DAMAGED = "it describes neither characters nor byte-level BPE, or is damaged"
# What reading a file of another form can raise.
DAMAGE = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)


# --- reading --------------------------------------------------------------------------------------


def load_file(path: str | Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json.

    UserError if the file cannot be read, or describes one that works in another way than ours.
    """
    path = Path(path)
    with explaining(path):
        return _from_json(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def explaining(path: Path, damage: str = DAMAGED) -> Iterator[None]:
    """Turn what reading a tokenizer can raise into a UserError that names the file or folder."""
    try:
        yield
    except OSError as error:
        advice = "a tokenizer is char, bpe, or a tokenizer.json"
        raise UserError(f"cannot read {path}: {error.strerror}; {advice}") from None
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be used: {error}") from None
    except DAMAGE:
        raise UserError(f"{path} cannot be used: {damage}") from None


def _from_json(text: str) -> Tokenizer:
    value = json.loads(text)
    for key in ("truncation", "padding"):
        require(value.get(key) is None, f"its {key} shortens or fills up texts")
    return tokenizer_from(value)


def tokenizer_from(value: dict[str, Any], added: Sequence[AddedToken] | None = None) -> Tokenizer:
    """The tokenizer that the content of a tokenizer.json describes. `truncation` and `padding` do not count.

    added: the added tokens, if they are not those of the file. UserError if it is none of ours.
    """
    readers = {"WordLevel": _char_tokenizer, "BPE": _bpe_tokenizer}
    kind = value["model"].get("type", "BPE")  # GPT-2's own file names no type
    require(kind in readers, f"its model is of type {kind!r:.80}, neither characters nor byte-level BPE")
    require(_adds_nothing(value.get("post_processor") or BYTE_LEVEL), "its post_processor changes the text")
    tokenizer = readers[kind](value, listed_tokens(value) if added is None else added)
    if "end_ids" in value["model"]:
        tokenizer.end_ids = tuple(i for i in value["model"]["end_ids"] if 0 <= i < tokenizer.vocab_size)
    return tokenizer


def listed_tokens(value: dict[str, Any]) -> list[AddedToken]:
    """The added tokens of a tokenizer.json with the ids that they get, which must be those in the file."""
    additions = Additions(value["model"]["vocab"])
    for token in value.get("added_tokens") or []:
        new = additions.add(token["content"], **{flag: bool(token[flag]) for flag in FLAGS if flag in token})
        wanted = token["id"]
        require(
            new is None or new.id == wanted,
            f"its added_tokens: {token['content']!r:.80} has the id {wanted}, but {new and new.id} is next",
        )
    return list(additions.tokens.values())


def _char_tokenizer(value: dict[str, Any], added: Sequence[AddedToken]) -> CharTokenizer:
    tokenizer = CharTokenizer(value["model"]["vocab"], added=added)
    ours = json.loads(to_json(tokenizer))
    model = {key: value["model"].get(key) for key in ("type", "vocab", "unk_token")}
    same = all(value.get(key) == ours[key] for key in ("pre_tokenizer", "normalizer", "decoder"))
    same = same and {key: ours["model"][key] for key in model} == model
    require(len(tokenizer.chars) > 0 and same, "its words are not single characters in sorted order")
    return tokenizer


def _bpe_tokenizer(value: dict[str, Any], added: Sequence[AddedToken]) -> BPETokenizer:
    """The tokenizer of a tokenizer.json, if it works as GPT-2's does."""
    model = value["model"]
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        require(not model.get(key), f"its {key} is {model.get(key)!r:.80}")
    require(value.get("normalizer") is None, "it has a normalizer")
    pre_tokenizer = value.get("pre_tokenizer") or {}
    require(_splits_as_gpt2(pre_tokenizer), "its pre_tokenizer: the text is not split as GPT-2's is")
    require((value.get("decoder") or {}).get("type") == "ByteLevel", "its decoder is not that of GPT-2")
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return bpe_from_names(model["vocab"], merges, added)


def _splits_as_gpt2(pre_tokenizer: dict[str, Any]) -> bool:
    return (
        pre_tokenizer.get("type") == "ByteLevel"
        and not pre_tokenizer["add_prefix_space"]
        and pre_tokenizer.get("use_regex", True)
    )


def _adds_nothing(post_processor: dict[str, Any]) -> bool:
    """Whether a post-processor leaves the ids of one text as they are."""
    if post_processor["type"] == "TemplateProcessing":
        return [list(piece) for piece in post_processor.get("single") or []] == [["Sequence"]]
    if post_processor["type"] == "Sequence":
        return all(map(_adds_nothing, post_processor["processors"]))
    return post_processor["type"] == "ByteLevel"


def read_old_files(folder: Path) -> tuple[dict[str, int], list[list[str]]]:
    """(vocab, merges) of GPT-2's first format: a JSON object of tokens, and merges in lines."""
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    require(isinstance(vocab, dict), "vocab.json should hold a JSON object")
    first, *lines, last = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    # Where these are missing, one version of transformers leaves out a merge and another does not.
    require(first.startswith("#version"), "the first line of merges.txt must begin with #version")
    require(last == "", "merges.txt must end with a line break")
    merges = [line.split(" ") for line in lines]
    wrong = [number for number, merge in enumerate(merges, 2) if len(merge) != 2]
    require(not wrong, f"line {wrong[:1]} of merges.txt is not two tokens with a space between them")
    return vocab, merges


def bpe_from_names(
    vocab: dict[str, int], merges: Iterable[Sequence[str]], added: Sequence[AddedToken]
) -> BPETokenizer:
    """vocab: {token, as Hugging Face writes it: id}; merges: pairs of such tokens."""
    require(all(type(i) is int for i in vocab.values()), "its vocab has ids that are not numbers")
    every = vocab | {token.content: token.id for token in added}
    require(sorted(every.values()) == list(range(len(every))), "its ids are not 0, 1, 2, ...")
    to_byte, added_names = _bytes_of_characters(), {token.content for token in added}
    pieces = [b""] * len(every)
    for name, i in every.items():
        if all(character in to_byte for character in name):
            pieces[i] = bytes([to_byte[character] for character in name])
        else:
            require(name in added_names, f"its token {name!r:.80} is not written with GPT-2's characters")
            pieces[i] = name.encode()
    for merge in merges:
        for name in (*merge, "".join(merge)):
            require(name in vocab, f"its merge {' '.join(merge)!r:.80} needs a token {name!r:.80}")
    return BPETokenizer(pieces, [(vocab[a], vocab[b]) for a, b in merges], added)


@functools.cache
def _bytes_of_characters() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_characters())}


# --- writing --------------------------------------------------------------------------------------


def to_json(tokenizer: CharTokenizer | BPETokenizer, with_end: bool = True) -> str:
    """The text of a tokenizer's tokenizer.json.

    with_end: if `end_ids` cannot be told from the tokens' names, store them among the model's settings, where
    Hugging Face's libraries overlook them.
    """
    if isinstance(tokenizer, CharTokenizer):
        model = {
            "type": "WordLevel",
            "vocab": {char: i for i, char in enumerate(tokenizer.chars)},
            "unk_token": "",
        }
        parts = {"pre_tokenizer": EVERY_CHARACTER, "decoder": {"type": "Fuse"}}
    else:
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {name: i for i, name in enumerate(token_names(tokenizer))},
            "merges": merge_lines(tokenizer),
        }
        parts = {"pre_tokenizer": BYTE_LEVEL, "decoder": BYTE_LEVEL}
    if with_end and tokenizer.end_ids != ends_by_name(tokenizer.added):
        model["end_ids"] = list(tokenizer.end_ids)
    added = [dataclasses.asdict(token) for token in tokenizer.added]
    return _tokenizer_json(model, **parts, added_tokens=added)


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
    for token in tokenizer.added:
        names[token.id] = token.content
    return names


def merge_lines(tokenizer: BPETokenizer) -> list[str]:
    """Every merge as Hugging Face writes it: the two tokens with a space between them."""
    names = token_names(tokenizer)
    return [f"{names[a]} {names[b]}" for a, b in tokenizer.merges]


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
