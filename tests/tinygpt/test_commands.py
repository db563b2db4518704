"""`python -m tinygpt` and texts as a user meets them."""

import json
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.support.commands import ROOT, refused
from tests.support.here import sample_here as sample
from tests.support.here import tinygpt_here as tinygpt
from tests.support.here import train_program_here as train
from tests.support.runs import SMOKE, metrics
from tests.support.texts import CHINESE, MIXED, english
from tinygpt import gpt2
from tinygpt.evaluate import batches
from tinygpt.run import checkpoint
from tinygpt.text import data


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run by characters and one by byte-pair encoding, on English and Chinese."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "mixed.txt").write_text(MIXED, encoding="utf-8")
    longer = SMOKE | dict(max_steps=40, data=folder / "mixed.txt")
    for name, extra in (("char", {}), ("bpe", dict(vocab_size=400))):
        result = train(**longer, tokenizer=name, out=folder / name, **extra)
        assert result.returncode == 0, result.stderr
    return folder


# --- training on any text -------------------------------------------------------------------------


def test_losses_come_in_bits_per_byte(runs):
    """The two runs saw the same validation text: per byte they are alike, though their tokens differ."""
    for name in ("char", "bpe"):
        bits = [line["val_bits_per_byte"] for line in metrics(runs / name, "evaluation")]
        assert 2 < bits[-1] < 0.9 * bits[0] < 6


def test_training_with_the_tokenizer_of_another_run(runs, tmp_path):
    folder = next((runs / "bpe" / "ckpt").glob("step_*"))
    for path in (folder, folder / "tokenizer.json"):
        shorter = SMOKE | dict(max_steps=1, eval_iters=1, sample_tokens=0)
        result = train(**shorter, data=runs / "mixed.txt", tokenizer=path, out=tmp_path / path.name)
        assert result.returncode == 0 and b"vocabulary of 400\n" in result.stdout


def test_byte_order_mark_and_line_ends(runs, tmp_path):
    """A byte order mark is dropped and CRLF becomes LF: the same data as without them."""
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbf" + MIXED.replace("\n", "\r\n").encode())
    result = train(**SMOKE | dict(max_steps=40), data=tmp_path / "windows.txt", out=tmp_path / "run")
    assert result.returncode == 0
    mine, theirs = (metrics(folder, "evaluation")[-1] for folder in (tmp_path / "run", runs / "char"))
    assert mine["val_loss"] == theirs["val_loss"]


def test_the_preset_for_chinese(tmp_path):
    (tmp_path / "hill.txt").write_text(CHINESE * 40, encoding="utf-8")
    short = dict(max_steps=2, eval_iters=1, threads=1)
    result = train(preset="zh", **short, data=tmp_path / "hill.txt", out=tmp_path / "run")
    assert result.returncode == 0 and b"preset zh on" in result.stdout, result.stderr
    assert len((tmp_path / "run" / "samples" / "step_000002.txt").read_text(encoding="utf-8")) == 200


TEXT_FAULTS = {  # name -> (content of text.txt, settings, what the error must say)
    "missing": (None, {}, "cannot read text.txt: No such file or directory; give a text file"),
    "empty": (b"", {}, "text.txt is empty; give a file with text"),
    "only a byte order mark": (b"\xef\xbb\xbf", {}, "text.txt is empty"),
    "not UTF-8": (b"fine \xe4 bad" * 99, {}, "text.txt is not UTF-8 text: byte 5 is 0xe4; it may be CP1252"),
    "UTF-16": ("text".encode("utf-16") * 99, {}, "text.txt is not UTF-8 text: byte 0 is 0xff"),
    "too short": (b"ab" * 50, {}, "too short for a context of 32; the longest possible is 9 (--block-size)"),
    "too short in tokens": (b"ab" * 400, dict(tokenizer="bpe"), "too short for a context of 32"),
    "a surrogate in UTF-8": (
        b"ab" * 99 + b"\xed\xa0\x80",
        {},
        "text.txt is not UTF-8 text: byte 198 is 0xed",
    ),
    "few tokens": (
        b"ab" * 99,
        dict(tokenizer="bpe", vocab_size=200),
        "vocab_size is 200; it must be at least 256",
    ),
    "no such tokenizer": (
        b"ab" * 999,
        dict(tokenizer="bep"),
        "cannot read bep: No such file or directory; a tokenizer is",
    ),
    "no tokenizer": (b"ab" * 999, dict(tokenizer="text.txt"), "text.txt cannot be used"),
}


@pytest.mark.parametrize("name", TEXT_FAULTS)
def test_faults_of_texts(name, tmp_path, monkeypatch):
    content, settings, message = TEXT_FAULTS[name]
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    refused(train(**SMOKE, data="text.txt", **settings), message)
    assert not (tmp_path / "runs").exists()


def test_a_character_that_the_given_tokenizer_does_not_know(runs, tmp_path):
    """Named with its place in the file, here in the part for validation."""
    text = MIXED[:-5] + "\u20ac" + MIXED[-5:]
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    tokenizer = next((runs / "char" / "ckpt").glob("step_*"))
    result = train(**SMOKE, data=tmp_path / "text.txt", tokenizer=tokenizer)
    place = len(MIXED) - 5
    refused(result, f"character '\u20ac' at position {place} is not in this model's vocabulary")


# --- sampling -------------------------------------------------------------------------------------


def test_sampling(runs):
    first = sample(runs / "char", "--prompt", "The ", "--tokens", 50)
    assert first.startswith("The ") and len(first) == 4 + 50 + 1
    assert sample(runs / "char", "--prompt", "The ", "--tokens", 50) == first
    assert sample(runs / "char", "--prompt", "The ", "--tokens", 50, "--seed", 2) != first
    assert sample(next((runs / "char" / "ckpt").glob("step_*")), "--prompt", "The ", "--tokens", 50) == first
    halved = sample(runs / "char", "--prompt", "The ", "--tokens", 50, "--when-full", "halve")
    assert halved[:32] == first[:32] and len(halved) == len(first)
    greedy = [
        sample(runs / "bpe", "--tokens", 20, *flags)
        for flags in (["--temperature", 0], ["--top-k", 1], ["--top-p", 1e-9])
    ]
    assert greedy[0] == greedy[1] == greedy[2]


def test_the_prompt_comes_from_standard_input(runs):
    expected = sample(runs / "bpe", "--prompt", "山上\nThe", "--tokens", 20)
    assert expected.startswith("山上\nThe")
    for stdin in ("山上\nThe", "\ufeff山上\r\nThe"):
        assert sample(runs / "bpe", "--prompt", "-", "--tokens", 20, stdin=stdin.encode()) == expected
    assert sample(runs / "bpe", "--prompt", "-", "--tokens", 20) == sample(runs / "bpe", "--tokens", 20)


def test_several_samples(runs):
    text = sample(runs / "bpe", "--prompt", "The ", "--tokens", 40, "--samples", 3)
    parts = [part.split(" ---\n", 1)[1] for part in text.split("--- ")[1:]]
    assert len(set(parts)) == 3 and all(part.startswith("The ") for part in parts)
    assert parts[0] == sample(runs / "bpe", "--prompt", "The ", "--tokens", 40)


def test_stopping(runs):
    whole = sample(runs / "bpe", "--tokens", 80)
    stop = whole[30:33]
    stopped = sample(runs / "bpe", "--tokens", 80, "--stop", "never there", "--stop", stop)
    assert stopped == whole[: whole.index(stop)] + "\n"
    three = sample(runs / "bpe", "--tokens", 80, "--samples", 3, "--stop", "e", "--stop", "，")
    assert three.count("---") == 6 and "e" not in three and "，" not in three


def test_ten_thousand_characters_to_a_file(runs, tmp_path):
    printed = sample(
        runs / "char", "--tokens", 10_000, "--when-full", "halve", "--out", tmp_path / "more.txt"
    )
    text = (tmp_path / "more.txt").read_bytes().decode()
    assert printed == "" and len(text) == 10_000 + 1
    assert text.startswith(sample(runs / "char", "--tokens", 200, "--when-full", "halve")[:-1])


def test_no_half_characters_are_printed(runs):
    """What arrives at any moment is whole: each piece that the program writes decodes by itself."""
    command = [sys.executable, "-m", "tinygpt", "sample", str(runs / "bpe")]
    command += ["--tokens", "60", "--prompt", "山", "--temperature", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    pieces = list(iter(lambda: os.read(process.stdout.fileno(), 65_536), b""))
    assert process.wait() == 0 and len(pieces) > 5
    for piece in pieces:
        piece.decode()


SAMPLING_FAULTS = {
    "unknown character": (
        ["--prompt", "Th\u00e9"],
        "character '\u00e9' at position 2 is not in this model's vocabulary",
    ),
    "temperature": (["--temperature", "-1"], "--temperature is -1.0; it must be at least 0"),
    "no temperature": (["--temperature", "nan"], "--temperature is nan; it must be at least 0"),
    "top-p 0": (["--top-p", "0"], "--top-p is 0.0; it must be more than 0 and at most 1"),
    "top-p 2": (["--top-p", "2"], "--top-p is 2.0; it must be more than 0 and at most 1"),
    "top-k": (["--top-k", "-1"], "--top-k is -1; it must be at least 0"),
    "tokens": (["--tokens", "0"], "--tokens is 0; it must be more than 0"),
    "samples": (["--samples", "0"], "--samples is 0; it must be more than 0"),
    "stop": (["--stop", ""], "--stop is ['']; it must be some text"),
    "when full": (["--when-full", "never"], "argument --when-full: invalid choice: 'never'"),
    "unknown flag": (["--tokns", "5"], "unknown flag --tokns; did you mean '--tokens'?"),
    "wrong type": (["--tokens", "many"], "argument --tokens: invalid int value: 'many'"),
    "device": (["--device", "tpu"], "unknown device 'tpu'"),
    "out": (["--out", "no/such/folder.txt"], "cannot write no/such/folder.txt: No such file or directory"),
    "bytes as prompt": (
        ["--prompt", b"ab\xff"],
        "--prompt is not UTF-8 text: invalid start byte at position 2",
    ),
}


@pytest.mark.parametrize("name", SAMPLING_FAULTS)
def test_faults_of_sampling(runs, name):
    arguments, message = SAMPLING_FAULTS[name]
    arguments = [os.fsdecode(a) if isinstance(a, bytes) else a for a in arguments]
    refused(tinygpt("sample", runs / "char", *arguments), message)


def test_prompts_that_are_no_text(runs):
    half = os.fsdecode(b"ab\xff")
    refused(
        tinygpt("sample", runs / "bpe", "--prompt", half),
        "--prompt is not UTF-8 text: invalid start byte at position 2",
    )
    refused(
        tinygpt("sample", runs / "bpe", "--prompt", "-", stdin=b"ab\xff"),
        "standard input is not UTF-8 text: byte 2",
    )


def test_notices_of_sampling(runs):
    result = tinygpt("sample", runs / "char", "--prompt", "the fox " * 9, "--tokens", "3", "--top-k", "999")
    assert result.returncode == 0
    assert b"only the last 32 of 72 prompt tokens fit" in result.stderr
    assert b"more than the vocabulary" in result.stderr


# --- evaluating -----------------------------------------------------------------------------------


def slow_loss(model, ids):
    """The mean over tokens, one window after the other."""
    T, total = model.config.block_size, 0.0
    for start in range(0, len(ids) - 1, T):
        window = ids[None, start : start + T + 1]
        total += float(model.loss(window[:, :-1], window[:, 1:])) * (window.shape[1] - 1)
    return total / (len(ids) - 1)


@pytest.mark.parametrize("split", ["val", "train", "all"])
@pytest.mark.parametrize("name", ["char", "bpe"])
def test_evaluating(runs, name, split):
    """The same figures as from the definition, token by token, over all of the part."""
    model, tokenizer = gpt2.load_model(runs / name)
    text = {"train": data.split(MIXED)[0], "val": data.split(MIXED)[1], "all": MIXED}[split]
    ids = np.asarray(tokenizer.encode(text), np.int64)
    loss = slow_loss(model, ids)
    bits = loss * (len(ids) - 1) / math.log(2) / len(tokenizer.decode(ids[1:]).encode())
    result = tinygpt("eval", runs / name, *(["--split", split] if split != "val" else []))
    printed = result.stdout.decode()
    assert result.returncode == 0, result.stderr
    assert printed.startswith(f"mixed, {split}: {len(ids):,} tokens, {len(text.encode()):,} bytes\n")
    loss_seen, perplexity, bits_seen = map(float, re.findall(r"\d+\.\d+", printed))
    assert (loss_seen, bits_seen) == (pytest.approx(loss, abs=1e-4), pytest.approx(bits, abs=1e-4))
    assert perplexity == pytest.approx(math.exp(loss), rel=1e-3)


@pytest.mark.parametrize("tokens", [2, 3, 32, 33, 34, 64, 65, 1500])
def test_every_token_is_predicted_once(tokens):
    ids = np.arange(tokens)
    seen = [
        pair
        for inputs, targets in batches(ids, 32)
        for row in zip(inputs, targets, strict=True)
        for pair in zip(*row, strict=True)
    ]
    assert seen == [(i, i + 1) for i in range(tokens - 1)]


def test_evaluating_another_text(runs, tmp_path):
    (tmp_path / "short.txt").write_text("T", encoding="utf-8")
    refused(
        tinygpt("eval", runs / "char", "--data", tmp_path / "short.txt", "--split", "all"),
        "it takes 2 to predict",
    )
    (tmp_path / "other.txt").write_text("The fox. " * 20 + "\u20ac", encoding="utf-8")
    message = "character '\u20ac' at position 180 is not in this model's vocabulary"
    refused(tinygpt("eval", runs / "char", "--data", tmp_path / "other.txt"), message)
    assert tinygpt("eval", runs / "bpe", "--data", tmp_path / "other.txt").returncode == 0
    refused(tinygpt("eval", runs / "bpe", "--data", tmp_path / "none.txt"), "cannot read")
    assert tinygpt("export", runs / "bpe", tmp_path / "gpt2", "--head-bias", "drop").returncode == 0
    refused(
        tinygpt("eval", tmp_path / "gpt2"), "does not say what it was trained on; give a text with --data"
    )


NOT_THE_SAME = {  # what is told: name -> (the text now, the --data, the flags, what the note says)
    "cut": (MIXED[: len(MIXED) // 2], None, [], "mixed is not what it was when RUN was trained on it"),
    "one letter": (MIXED[:-3] + "e" + MIXED[-2:], None, [], "mixed is not what it was when RUN was trained"),
    "longer": (MIXED + MIXED, None, ["--split", "all"], "mixed is not what it was when RUN was trained"),
    "its name": (MIXED[:-9], "mixed.txt", [], "mixed is not what it was when RUN was trained on it"),
    "another": (MIXED[100:9000], "other.txt", [], "RUN was trained on mixed, and this is other"),
    "train": (MIXED[::-1], "other.txt", ["--split", "train"], "RUN was trained on mixed, and this is other"),
}


@pytest.mark.parametrize("name", NOT_THE_SAME)
def test_evaluating_a_text_that_is_not_that_of_the_run(name, runs, tmp_path):
    """The run says what it was trained on, by its checksum. It is evaluated all the same."""
    text, given, flags, message = NOT_THE_SAME[name]
    run = shutil.copytree(runs / "char", tmp_path / "char")
    (tmp_path / (given or "mixed.txt")).write_text(text, encoding="utf-8")
    here = ["--data", tmp_path / given] if given else []
    if not given:  # the text that the run names is this one
        state = json.loads((checkpoint.find(run) / "state.json").read_text())
        state["settings"]["data"] = str(tmp_path / "mixed.txt")
        (checkpoint.find(run) / "state.json").write_text(checkpoint.seal(state))
    result = tinygpt("eval", run, *flags, *here)
    assert result.returncode == 0 and result.stdout.endswith(b"bits per byte\n")
    note = result.stderr.decode()
    assert note.startswith("note: " + message.replace("RUN", str(run))) and note.count("\n") == 1
    assert ("may hold text that the model was trained on" in note) == ("--split" not in flags)


def test_evaluating_the_same_text_tells_nothing(runs, tmp_path, monkeypatch):
    """Also under another name, with a mark and other line ends, and from another folder."""
    (tmp_path / "copy.txt").write_bytes(b"\xef\xbb\xbf" + MIXED.replace("\n", "\r\n").encode())
    expected = tinygpt("eval", runs / "char")
    for arguments in ([], ["--data", "copy.txt"], ["--data", runs / "mixed.txt"]):
        monkeypatch.chdir(tmp_path)
        result = tinygpt("eval", runs / "char", *arguments)
        assert (result.returncode, result.stderr) == (0, b"")
        assert result.stdout.splitlines()[1] == expected.stdout.splitlines()[1]
    swapped = tinygpt("eval", "--data", "copy.txt", runs / "char")
    assert swapped.stdout == tinygpt("eval", runs / "char", "--data", "copy.txt").stdout


def test_evaluating_several_documents(tmp_path):
    """Their ends are predicted too. They cost bits, but have no bytes."""
    (tmp_path / "poems").mkdir()
    for i in range(40):
        (tmp_path / "poems" / f"{i}.txt").write_text(english()[i * 50 :][:40], encoding="utf-8")
    trained = train(**SMOKE | dict(block_size=8), data=tmp_path / "poems", out=tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    result = tinygpt("eval", tmp_path / "run")
    assert (result.returncode, result.stderr) == (0, b"")
    tokens, size = (int(n) for n in re.findall(r"(\d+) (?:tokens|bytes)", result.stdout.decode()))
    documents = size // 40
    assert size == 40 * documents and tokens == size + documents and documents > 1
    loss, _, bits = map(float, re.findall(r"\d+\.\d+", result.stdout.decode()))
    assert bits == pytest.approx(loss * (tokens - 1) / math.log(2) / (size - 1), rel=1e-3)
    (tmp_path / "poems" / "41.txt").write_text("new", encoding="utf-8")
    assert b"poems is not what it was" in tinygpt("eval", tmp_path / "run").stderr


def test_a_run_on_standard_input_does_not_read_it_again(runs, tmp_path):
    run = shutil.copytree(runs / "char", tmp_path / "char")
    state = json.loads((checkpoint.find(run) / "state.json").read_text())
    state["settings"]["data"] = "-"
    (checkpoint.find(run) / "state.json").write_text(checkpoint.seal(state))
    refused(tinygpt("eval", run), "was trained on standard input; give the same text once more with --data")
    result = tinygpt("eval", run, "--data", "-", stdin=MIXED.encode())
    assert (result.returncode, result.stderr) == (0, b"")


def test_faults_of_commands(tmp_path):
    refused(tinygpt("sample", tmp_path / "nothing"), "has no checkpoint")
    refused(tinygpt("sampel"), "unknown command 'sampel'; did you mean 'sample'?")
    refused(tinygpt("sample"), "the following arguments are required: run")
    assert b"Write text" in tinygpt().stdout and b"--top-p" in tinygpt("sample", "--help").stdout
