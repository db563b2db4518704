"""Texts, splits and batches."""

import hashlib
import urllib.error

import numpy as np
import pytest

from autograd import Stream
from tests.support.texts import CHINESE, english
from tinygpt.config import UserError
from tinygpt.text import data
from tinygpt.text.tokenizer import CharTokenizer


def test_split_and_batches():
    text = english()
    tokenizer = CharTokenizer(text)
    dataset = data.Dataset(text, tokenizer, 16)
    assert tokenizer.decode(dataset.train) + tokenizer.decode(dataset.val) == text
    assert len(dataset.train) == int(0.9 * len(text)) and dataset.train.dtype == np.uint16
    ids, targets = dataset.batch("train", 8, Stream(1, step=3))
    assert ids.shape == targets.shape == (8, 16) and ids.dtype == np.int64
    np.testing.assert_array_equal(ids[:, 1:], targets[:, :-1])
    assert all(tokenizer.decode(row) in text for row in ids)
    np.testing.assert_array_equal(dataset.batch("train", 3, Stream(1, step=3))[0], ids[:3])
    assert not np.array_equal(dataset.batch("train", 8, Stream(1, step=4))[0], ids)


def test_every_window_can_be_drawn():
    dataset = data.Dataset("abcdefghij" * 10, CharTokenizer("abcdefghij"), 7)
    ids, targets = dataset.batch("val", 500, Stream(0))
    assert {int(row[0]) for row in ids} == {0, 1, 2} and targets.max() == 9


def test_large_vocabularies_need_more_than_16_bits():
    text = "".join(chr(0x4E00 + i) for i in range(20_000)) + "".join(chr(0x20000 + i) for i in range(50_000))
    assert data.Dataset(text, CharTokenizer(text), 8).train.dtype == np.uint32


def test_too_short_text_says_what_would_fit():
    with pytest.raises(
        UserError,
        match="100 tokens, 90 to train and 10 to validate.*context of 10; the longest possible is 9",
    ):
        data.Dataset("ab" * 50, CharTokenizer("ab"), 10)
    data.Dataset("ab" * 50, CharTokenizer("ab"), 9)


def test_files(tmp_path):
    def write(content):
        (tmp_path / "text.txt").write_bytes(content)
        return str(tmp_path / "text.txt")

    assert data.load_text(write(CHINESE.encode())) == ("text", CHINESE)
    assert data.load_text(write(b"\xef\xbb\xbfone\r\ntwo\n"))[1] == "one\ntwo\n"
    with pytest.raises(UserError, match="is empty"):
        data.load_text(write(b""))
    with pytest.raises(UserError, match="byte 2 is 0xff"):
        data.load_text(write(b"ab\xff"))
    for missing in (tmp_path / "nothing.txt", tmp_path):
        with pytest.raises(UserError, match="cannot read"):
            data.load_text(str(missing))


def test_standard_library_is_real_text():
    name, text = data.load_text("python")
    assert name == "python" and len(text) > 1_000_000 and "def " in text and text.isascii()


def test_shakespeare_is_downloaded_once_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGPT_DATA", str(tmp_path / "kept"))
    source = tmp_path / "served.txt"
    source.write_text("To be tested, or not to be tested.")
    monkeypatch.setattr(data, "SHAKESPEARE_URL", source.as_uri())
    with pytest.raises(UserError, match="another checksum"):
        data.load_text("shakespeare")
    assert not (tmp_path / "kept").exists()
    monkeypatch.setattr(data, "SHAKESPEARE_SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    assert data.load_text("shakespeare") == ("shakespeare", source.read_text())
    source.unlink()
    assert data.load_text("shakespeare")[1].startswith("To be")
    (tmp_path / "kept" / "tinyshakespeare.txt").write_text("damaged")
    with pytest.raises(UserError, match="damaged"):
        data.load_text("shakespeare")
    assert not (tmp_path / "kept" / "tinyshakespeare.txt").exists()


def test_without_a_network_the_default_says_so_and_goes_on(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TINYGPT_DATA", str(tmp_path))
    monkeypatch.setattr(data.urllib.request, "urlopen", unreachable)
    said = []
    assert data.default_text(said.append)[0] == "python"
    assert "no network" in said[0] and "--data python" in said[0]
    with pytest.raises(UserError, match="no network"):  # asked for by name, it is not replaced
        data.load_text("shakespeare")
