"""Characters and byte-pair encoding, against textbook versions and Hugging Face's `tokenizers`."""

import json
import re
import time
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.texts import CHINESE, english
from tinygpt.config import UserError
from tinygpt.text import bpe, data
from tinygpt.text.corpus import load_text
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer, byte_characters
from tinygpt.text.tokenizer_file import merge_lines, old_files, to_json, token_names
from tinygpt.text.tokenizer_folder import choose_tokenizer, load_tokenizer

MIXED = (
    english()[:20_000]
    + CHINESE * 20
    + "naïve café, 3½ 12³ Ⅷ\r\n\tdon't WE'LL _x_  y\u3000z\x1c\x85 😀👩‍🚀 aaaaaaaa\n" * 4
)
BPE = BPETokenizer.learn(MIXED, 400)


# --- textbook versions ----------------------------------------------------------------------------


def merged(word, pair, new):
    """A list of ids with every occurrence of the pair, from left to right, made one."""
    out = []
    for token in word:
        if out and (out[-1], token) == pair:
            out[-1] = new
        else:
            out.append(token)
    return out


def slow_learn(counts, n_merges):
    words, merges = {word: list(word.encode()) for word in counts}, []
    while len(merges) < n_merges:
        pairs = Counter()
        for word, ids in words.items():
            for pair in zip(ids, ids[1:], strict=False):
                pairs[pair] += counts[word]
        if not pairs or max(pairs.values()) < 2:
            break
        pair = min(pairs, key=lambda pair: (-pairs[pair], pair))
        words = {word: merged(ids, pair, 256 + len(merges)) for word, ids in words.items()}
        merges.append(pair)
    return merges


def slow_apply(word, ranks):
    ids = list(word.encode())
    while known := [pair for pair in zip(ids, ids[1:], strict=False) if pair in ranks]:
        pair = min(known, key=ranks.get)
        ids = merged(ids, pair, 256 + ranks[pair])
    return ids


few_letters = st.text("ab c中", max_size=60)


@given(few_letters, few_letters)
@example("aaaaaaaaaa aaaaa aaa", "aaaaaaa")
@settings(max_examples=300)
def test_learning_and_applying_equal_the_textbook(text, other):
    counts = Counter(bpe.split_words(text))
    merges = bpe.learn(counts, 20, np.arange(256))
    assert merges == slow_learn(counts, 20)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    words = list(bpe.split_words(other))
    got = bpe.apply(words, {pair: (rank, 256 + rank) for pair, rank in ranks.items()}, np.arange(256))
    assert got.tolist() == [i for word in words for i in slow_apply(word, ranks)]


def test_the_textbook_on_a_real_text():
    counts = Counter(bpe.split_words(MIXED))
    assert bpe.learn(counts, 150, np.arange(256)) == slow_learn(counts, 150)
    few = Counter(bpe.split_words(CHINESE * 2 + english()[:300]))
    assert bpe.learn(few, 500, np.arange(256)) == slow_learn(few, 500)  # until no pair occurs twice


def test_a_megabyte_takes_seconds():
    text = load_text("python")[1][:1_000_000]
    began = time.perf_counter()
    tokenizer = BPETokenizer.learn(text, 2048)
    learnt = time.perf_counter()
    ids = tokenizer.encode(text)
    assert learnt - began < 5 and time.perf_counter() - learnt < 2
    assert len(ids) < 0.45 * len(text) and tokenizer.decode(ids) == text


# --- properties -----------------------------------------------------------------------------------


@given(st.text())
@example("\r\n\x00\ufeff\u2028 \U0010ffff")
@settings(max_examples=200)
def test_encode_then_decode_is_the_identity(tmp_path_factory, text):
    """Also with the tokenizer that is read from its file."""
    file = tmp_path_factory.getbasetemp() / "identity.json"
    tokenizers = [BPE, CharTokenizer(text)] if text else [BPE]
    for tokenizer in tokenizers:
        file.write_text(to_json(tokenizer), encoding="utf-8")
        again = load_tokenizer(file)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and again.encode(text).tolist() == ids.tolist()
        assert again.pieces == tokenizer.pieces and to_json(again) == to_json(tokenizer)


@given(st.text())
def test_words_are_the_text_cut_up(text):
    words = list(bpe.split_words(text))
    assert "".join(words) == text and all(words)


def test_what_a_word_is():
    text = "Don't we'll 12a\u0660½  two\n\n x--y …中文，字 \u3000a\x1cb"
    expected = [
        "Don",
        "'t",
        " we",
        "'ll",
        " 12",
        "a",
        "\u0660½",
        " ",
        " two",
        "\n\n",
        " x",
        "--",
        "y",
        " …",
        "中文",
        "，",
        "字",
        " ",
    ]
    assert list(bpe.split_words(text)) == [*expected, "\u3000", "a", "\x1c", "b"]


def test_learning():
    assert len(set(BPE.pieces)) == BPE.vocab_size == 400
    assert BPETokenizer.learn("", 500).vocab_size == 256  # no pair occurs twice
    assert BPETokenizer.learn("ab ab", 500).pieces[256:] == [b"ab"]  # "ab" and " ab" share the pair a, b
    with pytest.raises(UserError, match="vocab_size is 255; it must be at least 256"):
        BPETokenizer.learn("text", 255)


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(UserError, match=r"'\\udc80' at position 12 is half of a surrogate pair"):
        BPE.encode("ab\udc80", offset=10)
    with pytest.raises(UserError, match=r"'\\ud800' at position 1 is not in this model's vocabulary"):
        CharTokenizer("ab").encode("a\ud800")


def test_ids_outside_the_vocabulary():
    for ids in ([0, 400], [-1]):
        with pytest.raises(IndexError, match="from 0 to 399"):
            BPE.decode(ids)
    assert BPE.decode([]) == "" and BPE.decode(BPE.encode("中")[:1]) == "\ufffd"


def test_unknown_character_is_named_with_its_place():
    with pytest.raises(UserError, match="'é' at position 13 "):
        CharTokenizer("caf").encode("café", offset=10)
    with pytest.raises(IndexError, match="from 0 to 2"):
        CharTokenizer("abc").decode([0, 3])


def test_both_parts_of_a_text_are_encoded_by_themselves():
    train, val = data.split(MIXED)
    dataset = data.Dataset(MIXED, BPE, 8)
    assert train + val == MIXED and len(train) == int(0.9 * len(MIXED))
    assert (
        dataset.train.tolist() == BPE.encode(train).tolist()
        and dataset.val.tolist() == BPE.encode(val).tolist()
    )
    assert dataset.bytes == {"train": len(train.encode()), "val": len(val.encode())}


def test_bits_per_byte():
    """Where every byte is equally likely it takes 8 bits; a character among 32 takes 5."""
    dataset = data.Dataset(MIXED, BPETokenizer.learn("", 256), 8)
    assert dataset.bits_per_byte("val", np.log(256)) == pytest.approx(8)
    text = CHINESE[:32] * 20  # 32 characters of 3 bytes each, but for a line break
    dataset = data.Dataset(text, CharTokenizer(text), 8)
    assert dataset.bits_per_byte("train", np.log(32)) == pytest.approx(5 * 576 / dataset.bytes["train"])


# --- choosing and files ---------------------------------------------------------------------------


def test_choosing(tmp_path):
    (tmp_path / "mine.json").write_text(to_json(BPE), encoding="utf-8")
    assert choose_tokenizer("char", 2048, "hello").chars == "ehlo"
    text = "ab" * 900 + "xyz" * 50  # the last 10 % is not for learning
    assert (
        b"xyz" not in choose_tokenizer("bpe", 300, text).pieces
        and b"xyz" in BPETokenizer.learn(text, 300).pieces
    )
    assert choose_tokenizer(str(tmp_path / "mine.json"), 2048, "hello").pieces == BPE.pieces
    (tmp_path / "tokenizer.json").write_text(to_json(CharTokenizer("hello")), encoding="utf-8")
    assert choose_tokenizer(str(tmp_path), 2048, "").chars == "ehlo"
    with pytest.raises(
        UserError, match="cannot read .*bep: No such file or directory; a tokenizer is char, bpe, or"
    ):
        choose_tokenizer("bep", 2048, "")


def test_gpt2s_old_files(tmp_path):
    (tmp_path / "merges.txt").write_text(old_files(BPE)["merges.txt"], encoding="utf-8")
    vocab = json.loads(old_files(BPE)["vocab.json"])
    (tmp_path / "vocab.json").write_text(json.dumps(vocab | {"<|endoftext|>": 400}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode(MIXED).tolist() == BPE.encode(MIXED).tolist()
    ids = tokenizer.encode("the end<|endoftext|>The fox")
    assert (
        ids.tolist().count(400) == 1 and tokenizer.decode(ids, show_end=True) == "the end<|endoftext|>The fox"
    )
    assert tokenizer.decode(ids) == "the endThe fox"


def changed(**parts):
    value = json.loads(to_json(BPE))
    for path, new in parts.items():
        *outer, last = path.split("__")
        inner = value
        for key in outer:
            inner = inner[key]
        inner[last] = new
    return json.dumps(value)


ADDED = {"content": "<end>", "id": 400}
UNUSABLE = {
    "empty": ("", "damaged"),
    "a list": ("[]", "damaged"),
    "an object": ("{}", "damaged"),
    "deep": ("[" * 99_999, "damaged"),
    "other model": (changed(model__type="Unigram"), "neither characters nor byte-level BPE"),
    "prefix space": (changed(pre_tokenizer__add_prefix_space=True), "not split as GPT-2's"),
    "other splitter": (changed(pre_tokenizer__type="Whitespace"), "not split as GPT-2's"),
    "normalizer": (changed(normalizer={"type": "NFC"}), "it has a normalizer"),
    "dropout": (changed(model__dropout=0.1), "its dropout is 0.1"),
    "adds tokens": (
        changed(post_processor={"type": "TemplateProcessing", "special_tokens": {"<s>": 1}}),
        "its post_processor changes the text",
    ),
    "hole in the ids": (changed(added_tokens=[ADDED | {"id": 402}]), "has the id 402, but 400 is next"),
    "other decoder": (changed(decoder={"type": "Fuse"}), "its decoder is not that of GPT-2"),
    "numbers as text": (changed(model__vocab={"a": "0"}), "ids that are not numbers"),
    "no bytes": (changed(model__vocab={"a": 0}, model__merges=[]), "does not have all 256 bytes"),
    "merges out of order": (changed(model__merges=merge_lines(BPE)[::-1]), "not in the order of learning"),
    "half a merge": (changed(model__merges=["a"]), "damaged"),
    "unknown merge": (changed(model__merges=["a zz"]), "its merge 'a zz' needs a token 'zz'"),
    "half a surrogate": (
        to_json(CharTokenizer("ab")).replace('"a"', '"\\ud800"'),
        "half of a surrogate pair",
    ),
    "two characters": (
        to_json(CharTokenizer("ab")).replace('"a"', '"aa"'),
        "not single characters in sorted order",
    ),
    "unsorted": (
        to_json(CharTokenizer("ab")).replace('"a"', '"c"'),
        "not single characters in sorted order",
    ),
    "no characters": (
        to_json(CharTokenizer("a")).replace('"a": 0', ""),
        "not single characters in sorted order",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_files_that_cannot_be_used(name, tmp_path):
    text, message = UNUSABLE[name]
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "tokenizer.json")) + ".*" + message):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("key", ["truncation", "padding"])
def test_a_file_that_cuts_texts_short_or_fills_them_up(key, tmp_path):
    """It counts where a file is given, as in `tokenizers`. In a folder it does not, as in transformers."""
    (tmp_path / "tokenizer.json").write_text(changed(**{key: {"max_length": 5}}))
    with pytest.raises(UserError, match=f"its {key} shortens or fills up texts"):
        load_tokenizer(tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path).encode(MIXED).tolist() == BPE.encode(MIXED).tolist()


# --- the yardstick --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hf():
    return pytest.importorskip("tokenizers")


def test_the_same_tokens_are_learnt(hf):
    theirs = hf.Tokenizer(hf.models.BPE())
    theirs.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = hf.pre_tokenizers.ByteLevel.alphabet()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=900, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    theirs.train_from_iterator([MIXED], trainer)
    assert theirs.get_vocab() == {
        name: i for i, name in enumerate(token_names(BPETokenizer.learn(MIXED, 900)))
    }


def test_the_same_ids_and_texts(hf):
    """Of arbitrary Unicode, with our files in their loader."""
    special = BPETokenizer([*BPE.pieces, b"<|endoftext|>", b"<|end"], BPE.merges, (400, 401))
    theirs = {tokenizer: hf.Tokenizer.from_str(to_json(tokenizer)) for tokenizer in (BPE, special)}
    characters = st.characters(codec="utf-8") | st.sampled_from(" \n\r'stdlve0½中，\u0301\u3000")
    texts = st.lists(
        st.text(characters) | st.sampled_from(["<|endoftext|>", "<|end", "'re", " the", MIXED[:300]])
    ).map("".join)

    @given(texts)
    @settings(max_examples=400)
    def check(text):
        for ours, yardstick in theirs.items():
            ids = ours.encode(text).tolist()
            assert (
                yardstick.encode(text).ids == ids and yardstick.decode(ids, skip_special_tokens=False) == text
            )
            for part in (ids[1:], ids[:-1], ids[::-1]):  # where characters are broken
                assert yardstick.decode(part, skip_special_tokens=False) == ours.decode(part, show_end=True)
        if text:
            for end in (False, True):
                ours = CharTokenizer(text, end)
                yardstick = hf.Tokenizer.from_str(to_json(ours))
                ids = ours.encode(text).tolist()
                assert yardstick.encode(text).ids == ids
                assert yardstick.decode(ids, skip_special_tokens=False) == text
                assert yardstick.decode(ids) == ours.decode(ids)

    check()


def test_every_character_is_of_the_same_kind(hf):
    """Exhaustive over the first four planes; all beyond is unassigned or private."""
    split = hf.pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    for character in map(chr, range(0x40000)):
        if unicodedata.category(character) not in ("Co", "Cs"):
            text = f"{character}a{character}1{character}.{character}"
            assert [text[slice(*span)] for _, span in split(text)] == list(bpe.split_words(text)), hex(
                ord(character)
            )


def test_byte_characters(hf):
    assert sorted(byte_characters()) == sorted(hf.pre_tokenizers.ByteLevel.alphabet())
