"""Texts of many kinds and several documents, through the command line's own functions."""

import gzip
import json
import tomllib

import pytest

from tests.support.commands import refused
from tests.support.here import sample_here, tinygpt_here, train_program_here
from tests.support.runs import TINY, metrics, outcome
from tests.support.texts import CHINESE, english
from tinygpt.run import checkpoint
from tinygpt.text.tokenizer import END_OF_TEXT

SHORT = TINY | dict(max_steps=2, eval_interval=2)
POEMS = [english()[i * 700 : i * 700 + 250 + 13 * i] for i in range(20)]


def train(*sources, streams=None, **settings):
    """train.py on these values of --data."""
    if sources:
        settings["data"] = list(sources)
    return train_program_here(streams, **SHORT | settings)


@pytest.fixture
def poems(tmp_path, monkeypatch):
    """A folder of documents in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "poems").mkdir()
    for i, poem in enumerate(POEMS):
        (tmp_path / "poems" / f"{i:02}.txt").write_text(poem, encoding="utf-8")
    return tmp_path / "poems"


def trained(run, result):
    """Check that a training ended well; its settings as they were recorded, and what it printed."""
    assert result.returncode == 0, result.stderr.decode()
    return tomllib.loads((run / "config.toml").read_text(encoding="utf-8")), result.stdout.decode()


def test_a_folder_trains_samples_evaluates_and_goes_on(poems, tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    for tokenizer in ("bpe", "char"):
        options = dict(tokenizer=tokenizer, max_steps=4, overwrite=True)
        if tokenizer == "bpe":
            options["vocab_size"] = 300
        settings, printed = trained(run, train("poems", **options, stop_after=2, out=run))
        assert settings["data"] == str(poems)
        assert "documents: 18 with" in printed and "bytes to train, 2 with" in printed
        trained(whole, train("poems", **options, out=whole))
        trained(run, train_program_here(resume=run, threads=1))
        assert outcome(run)[0] == outcome(whole)[0]

        found = checkpoint.load(run).tokenizer()
        assert found.end_ids == (found.vocab_size - 1,)
        described = json.loads((checkpoint.find(run) / "tokenizer.json").read_text(encoding="utf-8"))
        (added,) = described["added_tokens"]
        assert (added["content"], added["id"], added["special"]) == (END_OF_TEXT, *found.end_ids, True)
        assert END_OF_TEXT not in sample_here(run, "--tokens", 200)
        result = tinygpt_here("eval", run, "--split", "all")
        assert result.returncode == 0, result.stderr
        assert "poems, all: " in result.stdout.decode() and result.stderr == b""

    (poems / "07.txt").write_text("another text")
    refused(train_program_here(resume=run), "was trained on other data: poems with sha256")


def test_the_same_documents_in_other_forms(poems, tmp_path):
    """Files, a pattern, JSON Lines, and all of them from TOML: the same data, so the same losses."""
    lines = [json.dumps({"poem": poem, "n": i}) for i, poem in enumerate(POEMS)]
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    (tmp_path / "a.toml").write_text('data = ["poems/0*.txt", "poems/1*.txt"]')
    (tmp_path / "b.toml").write_text('data = "all.jsonl"\ntext_key = "poem"')
    ways = {
        "folder": train("poems", out="folder"),
        "pattern": train("poems/*.txt", out="pattern"),
        "json": train("all.jsonl", text_key="poem", out="json"),
        "two": train(config="a.toml", out="two"),
        "toml": train(config="b.toml", out="toml"),
    }
    recorded = {name: trained(tmp_path / name, result)[0] for name, result in ways.items()}
    losses = {name: metrics(tmp_path / name, "evaluation")[-1]["val_loss"] for name in ways}
    assert len(set(losses.values())) == 1, losses
    assert recorded["two"]["data"] == [str(poems / "0*.txt"), str(poems / "1*.txt")]
    assert recorded["json"]["text_key"] == recorded["toml"]["text_key"] == "poem"
    for name in ways:  # what was recorded is read again
        assert tinygpt_here("eval", name).stderr == b""
        assert train_program_here(resume=name, max_steps=3).returncode == 0


def test_standard_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = english()[:3000].encode()
    settings, _ = trained(tmp_path / "run", train("-", out="run", streams=dict(stdin=text)))
    assert settings["data"] == "-"
    refused(train_program_here(resume="run"), "was trained on standard input; give the same text once more")
    refused(tinygpt_here("eval", "run"), "was trained on standard input")
    again = train_program_here(dict(stdin=text), resume="run", data="-", max_steps=3)
    assert again.returncode == 0, again.stderr
    assert tinygpt_here("eval", "run", "--data", "-", stdin=text).stderr == b""
    refused(train("-", out="other", streams=dict(stdin=b"")), "standard input is empty")


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16-be", "utf-8-sig", "UTF_32"])
def test_an_encoding_is_recorded(encoding, tmp_path, monkeypatch):
    """Resuming and evaluating read the text as training did, and the encoding may change with the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hill.txt").write_bytes((CHINESE * 9).encode(encoding))
    settings, _ = trained(tmp_path / "run", train("hill.txt", encoding=encoding, out="run"))
    assert settings["encoding"] == encoding
    assert train_program_here(resume="run", max_steps=3).returncode == 0
    assert tinygpt_here("eval", "run").stderr == b""
    (tmp_path / "hill.txt").write_bytes((CHINESE * 9).encode())
    assert train_program_here(resume="run", encoding="utf-8", max_steps=4).returncode == 0


FAULTS = {  # content of text.txt, settings, what the error must say
    "GBK": (
        (CHINESE * 9).encode("gbk"),
        {},
        "looks like GBK; give --encoding GBK, or convert it: iconv -f GBK",
    ),
    "UTF-16 without a mark": (english()[:900].encode("utf-16-le"), {}, "as in UTF-16LE without a mark"),
    "gzip": (gzip.compress(b"words " * 99), {}, "is gzip data, not text; gunzip -c text.txt > "),
    "no such encoding": (
        b"words " * 99,
        dict(encoding="gbk2"),
        "encoding 'gbk2' is not one that Python knows",
    ),
    "another encoding": ("é".encode() * 99, dict(encoding="ascii"), "is not ascii text: byte 0 is 0xc3"),
    "no text at all": (b"\0\1\2\3" * 99, {}, "is binary data"),
    "an empty name": (b"words " * 99, dict(more=""), "data is ['text.txt', '']; it must be a name or path"),
    "one file of two": (b"words " * 99, dict(more="other.txt"), "cannot read other.txt: No such file"),
    "too few tokens": (b"words", dict(more="b.txt"), "too short for a context of 8"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_texts(name, tmp_path, monkeypatch):
    content, settings, message = FAULTS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_bytes(content)
    (tmp_path / "b.txt").write_text("w")
    sources = ["text.txt"] + [settings[key] for key in settings if key == "more"]
    settings = {key: value for key, value in settings.items() if key != "more"}
    refused(train(*sources, **settings), message)
    assert not (tmp_path / "runs").exists()


def test_a_list_in_toml_holds_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value, message in (
        ("[1]", "data must be str or a list of them, not [1]"),
        ("7", "data must be str or a list of them, not 7"),
    ):
        (tmp_path / "a.toml").write_text(f"data = {value}")
        refused(train(config="a.toml"), message)
