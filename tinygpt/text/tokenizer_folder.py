"""The tokenizer of a folder, as Hugging Face's transformers read it.

A folder's tokenizer.json, or vocab.json with merges.txt, is not all: tokenizer_config.json,
special_tokens_map.json and added_tokens.json can add tokens or change how a text is read. What is found here
is what both version 4 and version 5 of transformers find. Where they differ, or where our tokenizers cannot
do the same, it is a UserError that names the setting.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.config import UserError, require
from tinygpt.text.added_tokens import FLAGS, AddedToken, Additions
from tinygpt.text.data import Parts
from tinygpt.text.tokenizer import END_OF_TEXT, BPETokenizer, CharTokenizer, Tokenizer
from tinygpt.text.tokenizer_file import (
    bpe_from_names,
    explaining,
    listed_tokens,
    load_file,
    read_old_files,
    tokenizer_from,
)

LARGEST_SETTINGS = 20_000_000  # bytes; they may list thousands of tokens
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MORE = ("additional_special_tokens", "extra_special_tokens")
GPT2_DEFAULTS = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
GPT2, ANY = "GPT2Tokenizer", "PreTrainedTokenizer"  # classes, without the "Fast" that may follow
CLASSES = {GPT2: GPT2, ANY: ANY, "TokenizersBackend": ANY}
OFF = (  # settings that change how a text is read
    "add_prefix_space",
    "add_bos_token",
    "add_eos_token",
    "split_special_tokens",
    "auto_map",
    "init_inputs",
    "fast_tokenizer_files",
)


def choose_tokenizer(name: str, vocab_size: int, documents: str | Sequence[str]) -> Tokenizer:
    """The tokenizer for a text: "char", "bpe" (learnt from the part to train on), or the path of one.

    For several documents, the first two get an end token.
    """
    parts = Parts(documents)
    if name == "char":
        return CharTokenizer(set().union(*parts.all.documents), end=parts.several)
    if name == "bpe":
        return BPETokenizer.learn(parts.train.documents, vocab_size, end=parts.several)
    return load_tokenizer(name)


def has_tokenizer(folder: str | Path) -> bool:
    """Whether `load_tokenizer` will find one there."""
    return any((Path(folder) / name).exists() for name in ("tokenizer.json", "vocab.json", "merges.txt"))


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json, or of a folder.

    UserError if a file cannot be read, or describes one that works in another way than ours.
    """
    path = Path(path)
    return _Folder(path).tokenizer() if path.is_dir() and has_tokenizer(path) else load_file(_file(path))


def _file(path: Path) -> Path:
    return path / "tokenizer.json" if path.is_dir() else path


def named_tokens(folder: Path) -> dict[str, str]:
    """{"eos_token": "<|endoftext|>", ...}: the tokens of a folder that have a part to play, by their part."""
    return _Folder(folder).parts()


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object in one of a folder's files of settings."""
    require(path.is_file(), f"{path} is missing or not a file")
    with explaining(path, damage="it is not JSON"):
        require(path.stat().st_size <= LARGEST_SETTINGS, f"it has more than {LARGEST_SETTINGS:,} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
        require(isinstance(value, dict), "it should hold a JSON object")
        return value


class _Folder:
    """The files of a folder that say something about its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model_settings = self._read("config.json")
        self.settings = self._read("tokenizer_config.json")
        self.kind, self.in_map = self._class(), {}
        if "added_tokens_decoder" not in self.settings:  # else transformers do not look at it
            self._add_special_tokens_map()

    def _read(self, name: str) -> dict[str, Any]:
        return read_settings(self.folder / name) if self._has(name) else {}

    def _refuse(self, name: str, fault: str) -> None:
        raise UserError(f"{self.folder / name} cannot be used: {fault}")

    def _class(self) -> str | None:
        """Which of transformers' classes reads the folder; None if it does not say."""
        for file, values in (("tokenizer_config.json", self.settings), ("config.json", self.model_settings)):
            if name := values.get("tokenizer_class"):
                if not isinstance(name, str) or name.removesuffix("Fast") not in CLASSES:
                    self._refuse(file, f"tokenizer_class is {name!r:.80}; only GPT-2's can be read")
                return CLASSES[name.removesuffix("Fast")]
        is_gpt2 = self.model_settings.get("model_type") == "gpt2" or not self._has("tokenizer.json")
        return GPT2 if is_gpt2 else None

    def _has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def _add_special_tokens_map(self) -> None:
        self.in_map = self._read("special_tokens_map.json")
        for name, value in self.in_map.items():
            if isinstance(value, list) and isinstance(self.settings.get(name), list):
                value = [*self.settings[name], *(v for v in value if v not in self.settings[name])]
            self.settings[name] = value

    def _file_of(self, name: str) -> str:
        return "special_tokens_map.json" if name in self.in_map else "tokenizer_config.json"

    def tokenizer(self) -> Tokenizer:
        """The tokenizer with all added tokens."""
        for name in OFF:
            if value := self.settings.get(name):
                self._refuse("tokenizer_config.json", f"{name} is {value!r:.80}, which cannot be done here")
        tokenizer = self._from_json() if self._has("tokenizer.json") else self._from_old_files()
        ends = end_ids(self.folder, tokenizer.vocab_size)
        eos = self.parts().get("eos_token")
        if ends is None and eos:
            ends = tuple(token.id for token in tokenizer.added if token.content == eos)
        if ends is not None:
            tokenizer.end_ids = ends
        return tokenizer

    def _from_json(self) -> Tokenizer:
        path = self.folder / "tokenizer.json"
        with explaining(path):
            value = json.loads(path.read_text(encoding="utf-8"))
            is_bpe, vocab = value["model"].get("type", "BPE") == "BPE", value["model"]["vocab"]
            in_file = listed_tokens(value)
            padding = value.get("padding") or {}
            if "pad_token" in padding:
                self.settings.setdefault("pad_token", padding["pad_token"])
        if self.kind == GPT2 and not is_bpe:
            advice = f"tokenizer_class must be {ANY}Fast for a tokenizer of another kind than GPT-2's"
            self._refuse("tokenizer_config.json", advice)
        added = self._added(vocab, in_file)
        with explaining(path):
            return tokenizer_from(value, added)

    def _from_old_files(self) -> Tokenizer:
        for name in ("vocab.json", "merges.txt"):
            require(self._has(name), f"{self.folder} has no tokenizer.json and no {name}")
        if self.kind != GPT2:
            self._refuse("tokenizer_config.json", f"tokenizer_class must be {GPT2} without a tokenizer.json")
        with explaining(self.folder / "vocab.json"):
            vocab, merges = read_old_files(self.folder)
        added = self._added(vocab, [])
        self._refuse_overlaps(added)
        with explaining(self.folder / "vocab.json"):
            return bpe_from_names(vocab, merges, added)

    def _added(self, vocab: dict[str, int], in_file: Sequence[AddedToken]) -> list[AddedToken]:
        """All added tokens: those of the tokenizer's file and those that other files list or name."""
        listed = self._listed(in_file)
        found = self._add_all(vocab, [*in_file, *listed])
        # Of GPT-2's class, version 5 takes only the listed ones, version 4 both.
        if self.kind == GPT2 and in_file and found != self._add_all(vocab, listed):
            self._refuse(self._list, f"{self._list_key} and tokenizer.json do not list the same tokens")
        return list(found.values())

    def _add_all(self, vocab: dict[str, int], tokens: Sequence[AddedToken]) -> dict[str, AddedToken]:
        additions = Additions(vocab)
        for token in tokens:
            new = additions.add(token.content, **{flag: getattr(token, flag) for flag in FLAGS})
            if new and new.id != token.id:
                fault = f"{self._list_key}: {token.content!r:.80} has the id {token.id}, but {new.id} is next"
                self._refuse(self._list, fault)
        for name, content, flags in self.named():
            if content not in additions.tokens:
                if name not in (*NAMED, *MORE):
                    fault = f"{name} {content!r:.80} is not one of the added tokens"
                    self._refuse(self._file_of(name), fault)
                additions.add(content, **flags)
        return additions.tokens

    @property
    def _list_key(self) -> str:
        return "added_tokens_decoder" if "added_tokens_decoder" in self.settings else "added_tokens"

    @property
    def _list(self) -> str:
        """The file that lists added tokens."""
        return "tokenizer_config.json" if "added_tokens_decoder" in self.settings else "added_tokens.json"

    def _listed(self, in_file: Sequence[AddedToken]) -> list[AddedToken]:
        """The tokens that settings list, in the order of their ids."""
        listed = {}
        if "added_tokens_decoder" in self.settings:
            with explaining(self.folder / self._list, damage="added_tokens_decoder does not list tokens"):
                for i, token in self.settings["added_tokens_decoder"].items():
                    listed[int(i)] = AddedToken(int(i), token["content"], **_flags(token))
        else:
            special = {content for _, content, _ in self.named()}
            for content, i in self._read(self._list).items():
                if type(i) is not int:
                    self._refuse(self._list, f"added_tokens: the id of {content!r:.80} is {i!r:.80}")
                is_special = content in special
                listed[i] = AddedToken(i, content, normalized=not is_special, special=is_special)
            listed |= {token.id: token for token in in_file}
        return [listed[i] for i in sorted(listed)]

    def named(self) -> Iterator[tuple[str, str, dict[str, bool]]]:
        """Yield (name, content, flags) of every token that settings name, in transformers' order."""
        settings = (GPT2_DEFAULTS if self.kind == GPT2 else {}) | self.settings
        others = [key for key in settings if key.endswith("_token") and isinstance(settings[key], str | dict)]
        for name in dict.fromkeys([*NAMED, *MORE, *others]):
            value = settings.get(name)
            if isinstance(value, dict) and name in MORE:
                name, value = f"{name} of", list(value.values())  # each with a name of its own
            for token in value if isinstance(value, list) else [value]:
                if isinstance(token, str):
                    yield name, token, {"normalized": False, "special": True}
                elif isinstance(token, dict) and isinstance(token.get("content"), str):
                    yield name, token["content"], _flags({**token, "special": True})
                elif token is not None:
                    self._refuse(self._file_of(name), f"{name} is {token!r:.80}, which is not a token")

    def parts(self) -> dict[str, str]:
        """{part: content} of the tokens that have a part to play, such as eos_token."""
        return {name: content for name, content, _ in self.named() if name in NAMED}

    def _refuse_overlaps(self, added: Sequence[AddedToken]) -> None:
        """Of four tokens that are named but not listed, version 4 looks last, version 5 first."""
        parts, listed = self.parts(), {token.content for token in self._listed([])}
        four = {parts[name] for name in ("bos_token", "eos_token", "unk_token", "pad_token") if name in parts}
        four -= listed
        for a, b in itertools.permutations(added, 2):
            if (a.content in four) != (b.content in four) and (
                a.single_word or _overlap(a.content, b.content)
            ):
                both = f"{a.content!r:.80} and {b.content!r:.80}"
                fault = f"{self._list_key}: {both} overlap, which only a tokenizer.json can order"
                self._refuse(self._list, fault)


def _flags(token: dict[str, Any]) -> dict[str, bool]:
    flags = {flag: bool(token[flag]) for flag in FLAGS if token.get(flag) is not None}
    special = flags.setdefault("special", False)
    return {"normalized": not special} | flags


def _overlap(a: str, b: str) -> bool:
    """Whether both can claim the same characters of a text, a not after b."""
    return b in a or any(a.endswith(b[:n]) for n in range(1, len(b)))


def end_ids(folder: Path, vocab_size: int) -> tuple[int, ...] | None:
    """The ids after which a text of a folder's model ends; None if its settings do not say.

    As in transformers, generation_config.json counts if it is there, else config.json.
    """
    for name in ("generation_config.json", "config.json"):
        if (folder / name).exists():
            values = read_settings(folder / name)
            if name == "generation_config.json" or "eos_token_id" in values:
                with explaining(folder / name):
                    return _ids(values.get("eos_token_id"), vocab_size)
    return None


def _ids(value: Any, vocab_size: int) -> tuple[int, ...]:
    """The ids in an eos_token_id: null, a number or a list. Those that can never come are left out."""
    ids = value if isinstance(value, list) else [] if value is None else [value]
    require(all(type(i) is int for i in ids), f"eos_token_id is {value!r:.80}; it must be an id or a list")
    return tuple(i for i in ids if 0 <= i < vocab_size)
