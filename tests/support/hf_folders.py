"""A matrix of small GPT-2 folders: settings of the model x forms of the weights x files of the tokenizer.

Each part of a folder says what is wrong with it: the key that a refusal must name, or nothing. A folder is
refused if one of its parts is. `write` needs NumPy and safetensors only; libraries that read folders are for
the tests.
"""

import copy
import functools
import json
import random
from dataclasses import dataclass, field

import numpy as np
from safetensors.numpy import save_file

from tests.support.models import sharp_model
from tests.support.texts import MIXED
from tinygpt.text.tokenizer import BPETokenizer
from tinygpt.text.tokenizer_file import merge_lines, token_names

EOT = "<|endoftext|>"
MODEL_TOKENS = 310  # more than any of the tokenizers has
TEXT = f"a\nb\n\nc the fox{EOT} the_other  <pad>é 中文 😀 <x>y <x>  <x>z\t"
TEXT += f"naïve <s>Ġthe\u00a0{EOT}\n<end> <pad>, x"


def token(i, content, **flags):
    """An added token as in tokenizer.json."""
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": i, "content": content} | usual | flags


NORMAL = {"normalized": True, "special": False}


@functools.cache
def vocabulary():
    """(vocab, merges) of 300 tokens, the last of which is <|endoftext|>."""
    learnt = BPETokenizer.learn(MIXED, 299)
    vocab = {name: i for i, name in enumerate(token_names(learnt))}
    return vocab | {EOT: 299}, merge_lines(learnt)


def tokenizer_json(added=(), **parts):
    """The content of a tokenizer.json: GPT-2's kind, with <|endoftext|> and more added tokens."""
    vocab, merges = vocabulary()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    model |= {"vocab": dict(vocab), "merges": merges} | parts.pop("model", {})
    usual = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None}
    usual |= {"added_tokens": [token(299, EOT), *added], "pre_tokenizer": byte_level}
    return usual | {"post_processor": None, "decoder": byte_level, "model": model} | parts


def characters_json(added=()):
    """The content of a tokenizer.json of characters, as our export writes it."""
    vocab = {character: i for i, character in enumerate(sorted(set(TEXT)))}
    split = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": ""}
    added = [token(len(vocab) + i, content) for i, content in enumerate(added)]
    parts = {"model": model, "pre_tokenizer": split, "decoder": {"type": "Fuse"}}
    return tokenizer_json() | parts | {"added_tokens": added}


# --- the parts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One aspect of a folder. refused: the key that the refusal names, or "" if the folder is read.

    files: {file name: its JSON content or text}; settings: of config.json; weights: the form they have.
    """

    name: str
    refused: str = ""
    files: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    weights: str = ""

    def __str__(self):
        return self.name


GPT2 = {"tokenizer_class": "GPT2Tokenizer"}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}


def _json(name, added=(), refused="", config=GPT2, more=None, **parts):
    """A tokenizer of tokenizer.json and tokenizer_config.json."""
    files = {"tokenizer.json": tokenizer_json(added, **parts), "tokenizer_config.json": config}
    return Part(name, refused, files | (more or {}))


def _old(
    name, refused="", config=None, more=None, vocab=None, merges=None, config_name="tokenizer_config.json"
):
    """A tokenizer of vocab.json and merges.txt."""
    usual, lines = vocabulary()
    text = "\n".join(["#version: 0.2", *lines, ""]) if merges is None else merges(lines)
    files = {"vocab.json": dict(usual) if vocab is None else vocab(dict(usual)), "merges.txt": text}
    return Part(name, refused, files | ({} if config is None else {config_name: config}) | (more or {}))


def _pair(first, second):
    return [token(300, "<x>", **first), token(301, "<x>y", **second)]


ADDED = [
    _json("line break", [token(300, "\n", **NORMAL)]),
    _json("line break, not normalized", [token(300, "\n")]),
    _json("line break, any class", [token(300, "\n", **NORMAL)], config=FAST),
    _json("in the vocabulary", [token(vocabulary()[0]["the"], "the", **NORMAL)]),
    _json("a name of a byte", [token(vocabulary()[0]["é"], "é", **NORMAL)]),
    _json("written as a token with a space", [token(vocabulary()[0]["Ġthe"], "Ġthe")]),
    _json("Chinese", [token(300, "中文")]),
    _json("a Latin word", [token(300, "naïve", **NORMAL)]),
    _json("emoji", [token(300, "😀")]),
    _json("a word with its space", [token(300, " the", **NORMAL)]),
    _json("two spaces", [token(300, "  ")]),
    _json("padding", [token(300, "<pad>")]),
    _json("padding, lstrip", [token(300, "<pad>", lstrip=True)]),
    _json("padding, rstrip", [token(300, "<x>", rstrip=True)]),
    _json("both strips", [token(300, "<x>", lstrip=True, rstrip=True)]),
    _json("strips and line breaks", [token(300, "<end>", lstrip=True), token(301, "\n")]),
    _json("rstrip over a token", [token(300, "<x>", rstrip=True), token(301, " "), token(302, "\t")]),
    _json("rstrip before line breaks", [token(vocabulary()[0]["b"], "b", rstrip=True), token(300, "\n")]),
    _json("single word", [token(vocabulary()[0]["the"], "the", single_word=True)]),
    _json("single word beside signs", [token(300, "<x>", single_word=True)]),
    _json("special and special", _pair({}, {})),
    _json("special and normal", _pair({}, NORMAL)),
    _json("normal and special", _pair(NORMAL, {})),
    _json("normal and normal", _pair(NORMAL, NORMAL)),
    _json("special, any class", _pair({}, NORMAL), config=FAST),
    _json("chained", [token(300, ">y"), token(301, "<x"), token(302, "y <")]),
    _json("end of text with strips", added_tokens=[token(299, EOT, lstrip=True, rstrip=True)]),
    _json("end of text, normal", added_tokens=[token(299, EOT, **NORMAL)]),
    _json("a wrong id", [token(305, "<pad>")], refused="added_tokens"),
    _json("ids in another order", [token(301, "<x>"), token(300, "<s>")], refused="added_tokens"),
]

DECODER = {"299": {k: v for k, v in token(299, EOT).items() if k != "id"}}
PAD = {k: v for k, v in token(300, "<pad>").items() if k != "id"}
TEMPLATE = {"type": "TemplateProcessing", "pair": [], "special_tokens": {}}
A, B = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
TEMPLATE |= {"single": [A], "pair": [A, B]}
START = {"id": EOT, "ids": [299], "tokens": [EOT]}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
CUT = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
FILL = {"strategy": {"Fixed": 200}, "direction": "Right", "pad_to_multiple_of": None}
FILL |= {"pad_id": 299, "pad_type_id": 0, "pad_token": EOT}

TOKENIZERS = [
    _json("GPT-2's class"),
    _json("GPT-2's fast class", config={"tokenizer_class": "GPT2TokenizerFast"}),
    _json("any fast class", config=FAST),
    Part("no settings", files={"tokenizer.json": tokenizer_json()}),
    _json("Roberta's class", refused="tokenizer_class", config={"tokenizer_class": "RobertaTokenizer"}),
    _json("Llama's class", refused="tokenizer_class", config={"tokenizer_class": "LlamaTokenizerFast"}),
    Part(
        "Bart's class in config.json",
        "tokenizer_class",
        {"tokenizer.json": tokenizer_json()},
        {"tokenizer_class": "BartTokenizer"},
    ),
    _json("prefix space", refused="add_prefix_space", config=GPT2 | {"add_prefix_space": True}),
    _json("no prefix space", config=GPT2 | {"add_prefix_space": False, "add_bos_token": False}),
    _json(
        "prefix space in the file", refused="pre_tokenizer", pre_tokenizer=BYTES | {"add_prefix_space": True}
    ),
    _json("no regex", refused="pre_tokenizer", pre_tokenizer=BYTES | {"use_regex": False}),
    _json("no pre-tokenizer", refused="pre_tokenizer", pre_tokenizer=None),
    _json("offsets not trimmed", pre_tokenizer=BYTES | {"trim_offsets": False}),
    _json("bos", refused="add_bos_token", config=GPT2 | {"add_bos_token": True}),
    _json("eos", refused="add_eos_token", config=FAST | {"add_eos_token": True}),
    _json(
        "special tokens split", refused="split_special_tokens", config=GPT2 | {"split_special_tokens": True}
    ),
    _json(
        "code of its own", refused="auto_map", config=GPT2 | {"auto_map": {"AutoTokenizer": ["a.B", None]}}
    ),
    _json("NFC", refused="normalizer", normalizer={"type": "NFC"}),
    _json("lower case", refused="normalizer", config=FAST, normalizer={"type": "Lowercase"}),
    _json("template", post_processor=TEMPLATE),
    _json("template, any class", post_processor=TEMPLATE, config=FAST),
    _json("unused special token", post_processor=TEMPLATE | {"special_tokens": {EOT: START}}),
    _json("template twice", refused="post_processor", post_processor=TEMPLATE | {"single": [A, A]}),
    _json(
        "template with bos",
        refused="post_processor",
        post_processor=TEMPLATE
        | {"single": [{"SpecialToken": {"id": EOT, "type_id": 0}}, A], "special_tokens": {EOT: START}},
    ),
    _json("bytes as post-processor", post_processor=BYTES),
    _json("several post-processors", post_processor={"type": "Sequence", "processors": [BYTES, TEMPLATE]}),
    _json(
        "Roberta's post-processor",
        refused="post_processor",
        post_processor={
            "type": "RobertaProcessing",
            "sep": [EOT, 299],
            "cls": [EOT, 299],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
    ),
    _json("truncation", truncation=CUT),
    _json("truncation, any class", truncation=CUT, config=FAST),
    _json("filled up", padding=FILL),
    _json("filled up with a new token", padding=FILL | {"pad_token": "[PAD]"}, config=FAST),
    _json("other decoder", refused="decoder", decoder={"type": "Fuse"}),
    _json("dropout", refused="dropout", model={"dropout": 0.5}),
    _json("merges ignored", refused="ignore_merges", model={"ignore_merges": True}),
    _json("unknown token", model={"unk_token": EOT}),
    _json("merges as pairs", model={"merges": [m.split(" ") for m in vocabulary()[1]]}),
    _json("a pad token", config=GPT2 | {"pad_token": "<pad>"}),
    _json("a pad token, any class", config=FAST | {"pad_token": "<pad>", "eos_token": EOT}),
    _json(
        "a pad token with strips",
        config=GPT2 | {"pad_token": {"__type": "AddedToken"} | PAD | {"lstrip": True}},
    ),
    _json("eos in the vocabulary", config=GPT2 | {"eos_token": "the"}),
    _json("another eos", config=GPT2 | {"eos_token": "<end>", "bos_token": "<s>", "unk_token": EOT}),
    _json("null tokens", config=GPT2 | dict.fromkeys(("bos_token", "eos_token", "unk_token"))),
    _json("<|endoftext|> by default", added_tokens=[]),
    _json("no token by default", added_tokens=[], config=FAST),
    _json("more special tokens", config=GPT2 | {"additional_special_tokens": ["<x>", "<s>"]}),
    _json("a token of another part", refused="image_token", config=GPT2 | {"image_token": "<x>"}),
    _json("a known token of another part", config=GPT2 | {"image_token": EOT}),
    _json("decoder the same", config=GPT2 | {"added_tokens_decoder": DECODER}),
    _json("decoder with more", config=GPT2 | {"added_tokens_decoder": DECODER | {"300": PAD}}),
    _json(
        "decoder with other flags",
        config=GPT2 | {"added_tokens_decoder": {"299": DECODER["299"] | {"lstrip": True}}},
    ),
    _json(
        "decoder with less",
        [token(300, "<pad>")],
        "added_tokens_decoder",
        GPT2 | {"added_tokens_decoder": DECODER},
    ),
    _json(
        "decoder with less, any class", [token(300, "<pad>")], config=FAST | {"added_tokens_decoder": DECODER}
    ),
    _json(
        "decoder with a wrong id",
        refused="added_tokens_decoder",
        config=GPT2 | {"added_tokens_decoder": DECODER | {"309": PAD}},
    ),
    _json("special map", more={"special_tokens_map.json": {"pad_token": "<pad>"}}),
    _json("special map with strips", more={"special_tokens_map.json": {"pad_token": PAD | {"rstrip": True}}}),
    _json(
        "special map that does not count",
        config=GPT2 | {"added_tokens_decoder": DECODER},
        more={"special_tokens_map.json": {"pad_token": "<pad>"}},
    ),
    _json(
        "special map with more",
        more={"special_tokens_map.json": {"additional_special_tokens": ["<x>", "<s>"]}},
    ),
    _json(
        "other settings",
        config=GPT2
        | {
            "clean_up_tokenization_spaces": True,
            "model_max_length": 5,
            "errors": "replace",
            "padding_side": "left",
            "chat_template": "{{ x }}",
        },
    ),
    _old("old files"),
    _old("old files with settings", config=GPT2 | {"model_max_length": 16}),
    _old("old files, added_tokens.json", more={"added_tokens.json": {"<pad>": 300}}),
    _old("old files, two in added_tokens.json", more={"added_tokens.json": {"<x>": 301, "<pad>": 300}}),
    _old("old files, a wrong id", "added_tokens", more={"added_tokens.json": {"<pad>": 307}}),
    _old(
        "old files, special map", more={"special_tokens_map.json": {"pad_token": "<pad>", "eos_token": EOT}}
    ),
    _old("old files, decoder", config=GPT2 | {"added_tokens_decoder": DECODER | {"300": PAD}}),
    _old("old files, prefix space", "add_prefix_space", config=GPT2 | {"add_prefix_space": True}),
    _old("old files, bos", "add_bos_token", config=GPT2 | {"add_bos_token": True}),
    _old("old files, names in vocab.json", config=GPT2 | {"bos_token": "the", "eos_token": "Ġthe"}),
    _old("old files, overlap", "overlap", more={"added_tokens.json": {"endoftext|> the": 300}}),
    _old(
        "old files, overlap of listed tokens",
        config=GPT2 | {"added_tokens_decoder": DECODER | {"300": {"content": "endoftext|> the"}}},
    ),
    _old("old files, overlap of named tokens", config=GPT2 | {"pad_token": "endoftext|> the"}),
    _old("old files, no <|endoftext|>", vocab=lambda vocab: {k: i for k, i in vocab.items() if k != EOT}),
    _old("old files, any class", "tokenizer_class", config=FAST),
    _old("old files, no header", "#version", merges=lambda lines: "\n".join([*lines, ""])),
    _old(
        "old files, no last line break",
        "line break",
        merges=lambda lines: "\n".join(["#version: 0.2", *lines]),
    ),
    Part("characters", files={"tokenizer.json": characters_json(), "tokenizer_config.json": FAST}),
    Part(
        "characters and padding",
        files={"tokenizer.json": characters_json(["<pad>"]), "tokenizer_config.json": FAST},
    ),
    Part(
        "characters, GPT-2's class",
        "tokenizer_class",
        {"tokenizer.json": characters_json(), "tokenizer_config.json": GPT2},
    ),
    Part("no tokenizer"),
]

CONFIGS = [
    Part("usual"),
    Part("ReLU", settings={"activation_function": "relu"}),
    Part("another tanh form", settings={"activation_function": "gelu_pytorch_tanh"}),
    Part("a fast form", settings={"activation_function": "gelu_fast"}),
    Part("exact GELU", "activation_function", settings={"activation_function": "gelu"}),
    Part("SiLU", "activation_function", settings={"activation_function": "silu"}),
    Part("n_inner", settings={"n_inner": 64}),
    Part("other n_inner", "n_inner", settings={"n_inner": 32}),
    Part("other epsilon", "layer_norm_epsilon", settings={"layer_norm_epsilon": 1e-6}),
    Part("no scaling", "scale_attn_weights", settings={"scale_attn_weights": False}),
    Part("by layer", "scale_attn_by_inverse_layer_idx", settings={"scale_attn_by_inverse_layer_idx": True}),
    Part("reordered", settings={"reorder_and_upcast_attn": True}),
    Part("cross attention", "add_cross_attention", settings={"add_cross_attention": True}),
    Part("not causal", "is_causal", settings={"is_causal": False}),
    Part("quantized", "quantization_config", settings={"quantization_config": {"load_in_8bit": True}}),
    Part("pruned", "pruned_heads", settings={"pruned_heads": {"0": [1]}}),
    Part("code of its own", "auto_map", settings={"auto_map": {"AutoModelForCausalLM": "a.B"}}),
    Part("for classes", "architectures", settings={"architectures": ["GPT2ForSequenceClassification"]}),
    Part("base model", settings={"architectures": ["GPT2Model"]}),
    Part("no architectures", settings={"architectures": None}),
    Part("same alias", settings={"num_attention_heads": 2}),
    Part("other alias of heads", "num_attention_heads", settings={"num_attention_heads": 4}),
    Part("other alias of layers", "num_hidden_layers", settings={"num_hidden_layers": 1}),
    Part("other alias of channels", "hidden_size", settings={"hidden_size": 8}),
    Part("other alias of positions", "max_position_embeddings", settings={"max_position_embeddings": 4}),
    Part(
        "only aliases", settings={"n_head": ..., "num_attention_heads": 2, "n_embd": ..., "hidden_size": 16}
    ),
    Part("heads by default", "n_head", settings={"n_head": ...}),
    Part("text for a size", "n_layer", settings={"n_layer": "2"}),
    Part("other model", "model_type", settings={"model_type": "gpt_neo"}),
    Part("tied by default", settings={"tie_word_embeddings": ...}),
    Part("odd tie", "tie_word_embeddings", settings={"tie_word_embeddings": None}),
    Part(
        "dropout and labels",
        settings={"resid_pdrop": 0.3, "id2label": {str(i): "x" * 99 for i in range(2000)}},
    ),
    Part("one end", settings={"eos_token_id": 299}),
    Part("two ends", settings={"eos_token_id": [299, 5]}),
    Part(
        "ends for generation",
        settings={"eos_token_id": 7},
        files={"generation_config.json": {"eos_token_id": [8, 299]}},
    ),
    Part(
        "no ends for generation",
        settings={"eos_token_id": 7},
        files={"generation_config.json": {"do_sample": True}},
    ),
]

WEIGHTS = [
    Part("float32"),
    *(
        Part(form, weights=form)
        for form in ("float16", "bfloat16", "float64", "shards", "shards in bfloat16")
    ),
    *(Part(form, weights=form) for form in ("no prefix", "masks", "head twice", "head twice in bfloat16")),
    Part("own head", weights="own head", settings={"tie_word_embeddings": False}),
    Part("own head, tied", "lm_head.weight", weights="own head"),
    Part(
        "own head, tied by default",
        "lm_head.weight",
        weights="own head",
        settings={"tie_word_embeddings": ...},
    ),
    Part("no head, not tied", "lm_head.weight", settings={"tie_word_embeddings": False}),
    Part("a tensor more", "transformer.h.0.extra", weights="extra"),
    Part("a tensor less", "transformer.ln_f.bias", weights="less"),
    Part("integers", "I32", weights="integers"),
    Part("a pickle", "pytorch_model.bin", weights="pickle"),
    Part("pickles", "pytorch_model.bin.index.json", weights="pickles"),
    Part("TensorFlow's", "tf_model.h5", weights="tensorflow"),
    Part("an adapter beside", "adapter_config.json", {"adapter_config.json": {"peft_type": "LORA"}}),
    Part(
        "an adapter alone",
        "adapter_config.json",
        {"adapter_config.json": {"peft_type": "LORA"}},
        weights="none",
    ),
]


# --- folders --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """A folder of parts, usually three: settings, weights, tokenizer. The later count more."""

    parts: tuple[Part, ...]

    @property
    def name(self):
        return " / ".join(part.name for part in self.parts)

    @property
    def refused(self):
        """The keys of which a refusal must name one; none if the folder is to be read."""
        return [part.refused for part in self.parts if part.refused]


USUAL = (CONFIGS[0], WEIGHTS[0], TOKENIZERS[0])


def singles():
    """A folder for every part, the rest of which is usual."""
    for i, parts in enumerate((CONFIGS, WEIGHTS, TOKENIZERS + ADDED)):
        for part in parts:
            yield Folder((*USUAL[:i], part, *USUAL[i + 1 :]))


def matrix(size=320):
    """So many different folders: every part alone, then parts mixed at random, most of which are read."""
    folders = {folder.name: folder for folder in singles()}
    draw = random.Random(15)
    while len(folders) < size:
        parts = [draw.choice(kind) for kind in (CONFIGS, WEIGHTS, TOKENIZERS + ADDED)]
        if sum(bool(part.refused) for part in parts) <= draw.choice((0, 0, 1)) and _go_together(parts):
            folder = Folder(tuple(parts))
            folders[folder.name] = folder
    return list(folders.values())


def _go_together(parts):
    """Whether no two parts set the same setting, or write the same file, in two ways."""
    keys = [key for part in parts for key in (*part.settings, *part.files)]
    return len(keys) == len(set(keys))


def write(folder, path):
    """Write a Folder to a path."""
    path.mkdir(parents=True)
    settings = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": MODEL_TOKENS,
        "n_positions": 128,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 16,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    files = {}
    for part in folder.parts:
        settings |= part.settings
        files |= copy.deepcopy(part.files)
    form = next((part.weights for part in folder.parts if part.weights), "")
    if form != "none":
        files["config.json"] = {key: value for key, value in settings.items() if value is not ...}
        _write_weights(form, path)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / name).write_text(text, encoding="utf-8", newline="\n")


@functools.cache
def _weights():
    model = sharp_model("gpt2", vocab_size=MODEL_TOKENS, block_size=128, n_layer=2, n_head=2, n_embd=16)
    return {name: p.data for name, p in model.named_parameters()}


def _write_weights(form, path):
    weights = dict(_weights())
    embedding = weights["transformer.wte.weight"]
    if form == "no prefix":
        weights = {name.removeprefix("transformer."): array for name, array in weights.items()}
    elif form == "masks":
        weights |= {f"transformer.h.{i}.attn.bias": np.ones((1, 1, 128, 128), np.uint8) for i in range(2)}
    elif form.startswith("head twice"):
        weights["lm_head.weight"] = embedding.copy()
    elif form == "own head":
        weights["lm_head.weight"] = embedding[::-1].copy()
    elif form == "extra":
        weights["transformer.h.0.extra"] = np.ones(3, np.float32)
    elif form == "less":
        del weights["transformer.ln_f.bias"]
    elif form in ("pickle", "pickles", "tensorflow"):
        names = {
            "pickle": "pytorch_model.bin",
            "pickles": "pytorch_model.bin.index.json",
            "tensorflow": "tf_model.h5",
        }
        (path / names[form]).write_text("{}")
        return
    elif form in ("float16", "float64"):
        weights = {name: array.astype(form) for name, array in weights.items()}
    elif form == "integers":
        weights = {name: array.astype(np.int32) for name, array in weights.items()}
    shards = [weights]
    if form.startswith("shards"):
        names = list(weights)
        shards = [{name: weights[name] for name in names[i::2]} for i in range(2)]
    files = ["model.safetensors"]
    if len(shards) > 1:
        files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
        where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        index = {"metadata": {}, "weight_map": where}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
    for file, shard in zip(files, shards, strict=True):
        shard = {name: np.ascontiguousarray(array) for name, array in shard.items()}
        if form.endswith("bfloat16"):
            write_bfloat16(shard, path / file)
        else:
            save_file(shard, path / file, metadata={"format": "pt"})


def write_bfloat16(weights, path):
    """A safetensors file in bfloat16: the upper two bytes of each float32, which NumPy cannot name."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in weights.items():
        halves = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(data), len(data) + len(halves)]
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": offsets}
        data += halves
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
