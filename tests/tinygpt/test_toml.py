"""Files of settings: what a run records reads back; what people write is read, or explained."""

import dataclasses
import math
import os
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import flags
from tests.support.runs import TINY, train_here
from tests.support.texts import english
from tinygpt import cli
from tinygpt.config import TrainConfig, UserError
from tinygpt.toml import _restored, _string, read_toml, to_toml

NAMES = [
    "novel.txt", "三国.txt", "emoji 🎈.txt", r"C:\Users\me\new\text.txt", 'a "quoted" name', "it's",
    "two\nlines", "tab\there", "bell\a", "del\x7f", "\x85\u2028", os.fsdecode(b"latin \xe9.txt"), "\ud83d",
    "nul\0", "\0d83d", "# no comment", "''' \"\"\"", "back\\", "\ufeffmark", "",
]  # fmt: skip


def assert_reads_back(text):
    written = f"key = {_string(text)}\n".encode()  # UTF-8 that any program can read
    assert _restored(tomllib.loads(written.decode())["key"]) == text


@pytest.mark.parametrize("name", NAMES)
def test_names_read_back(name):
    assert_reads_back(name)


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_any_text_reads_back(text):
    assert_reads_back(text)


@given(st.floats(1e-30, 1e30), st.integers(1, 2**62), st.booleans())
def test_numbers_read_back(rate, steps, switch):
    config = TrainConfig(preset="x", learning_rate=rate, max_steps=steps, detect_anomaly=switch)
    read = tomllib.loads(to_toml(config))
    assert (read["learning_rate"], read["max_steps"], read["detect_anomaly"]) == (rate, steps, switch)
    assert all(type(read[f.name]) is f.type for f in dataclasses.fields(config) if f.type in (int, float))
    assert math.copysign(1, read["min_lr"]) == -1


@pytest.mark.parametrize("name", ["emoji 🎈.txt", os.fsdecode(b"latin \xe9.txt"), 'tw"o\nlines.txt'])
def test_a_run_on_a_file_of_any_name(name, tmp_path):
    """Trained, resumed, and trained again with the settings that were recorded."""
    (tmp_path / name).write_text(english()[:5000], encoding="utf-8")
    train_here(
        **TINY | dict(max_steps=2, sample_tokens=0), data=tmp_path / name, out=tmp_path / "run", stop_after=1
    )
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text(encoding="utf-8"))
    train_here(resume=tmp_path / "run")
    train_here(config=tmp_path / "run" / "config.toml", out=tmp_path / "again")
    config = read_toml(tmp_path / "again" / "config.toml")
    assert os.path.samefile(config["data"], tmp_path / name)


WRITTEN = {  # how people's files look -> bytes
    "a byte order mark": b'\xef\xbb\xbfpreset = "smoke"\nmax_steps = 7',
    "Windows line ends": b'preset = "smoke"\r\nmax_steps = 7\r\n',
    "a comment": '# 設定\npreset = "smoke" # 試\nmax_steps = 7'.encode(),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_files_as_people_write_them(name, tmp_path):
    (tmp_path / "mine.toml").write_bytes(WRITTEN[name])
    config, *_ = cli.train_config(flags(config=tmp_path / "mine.toml"))
    assert (config.preset, config.max_steps) == ("smoke", 7)


IN_QUOTES = r"a path with \ stands in single quotes: data = 'C:\Users\me\novel.txt'"
FAULTS = {  # a file of settings -> what the error must say
    rb'data = "C:\Users\me.txt"': IN_QUOTES,
    rb'data = "C:\data\me.txt"': IN_QUOTES,
    rb'out = "C:\gpt"': IN_QUOTES,
    rb'out = "C:\runs"': r"which is not there; a path with \ stands in single quotes",
    rb'data = "C:\new\text.txt"': r"which is not there; a path with \ stands in single quotes",
    b"max_steps = 3\nmax_steps = 4": "the key is given twice",
    b"[train]\nmax_steps = 3": "[train] is a section; settings stand at the top of the file",
    "max_steps = 3".encode("utf-16"): "is UTF-16; save it as UTF-8",
    b'data = "caf\xe9.txt"': "is not UTF-8: byte 11; save it as UTF-8",
    b"data = novel.txt": "text stands in quotes",
    b"decay_vectors = True": "true and false have small letters",
    rb'data = "a\u0000b"': "data holds a NUL character",
}


@pytest.mark.parametrize("content", FAULTS)
def test_files_that_cannot_be_read(content, tmp_path):
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(UserError) as error:
        cli.train_config(flags(config=tmp_path / "mine.toml"))
    assert FAULTS[content] in str(error.value) and "\n" not in str(error.value)


def test_a_folder_is_no_file_of_settings(tmp_path):
    with pytest.raises(UserError, match=f"is a folder; give the file: {tmp_path}/config.toml"):
        cli.train_config(flags(config=tmp_path))


def test_the_home_folder(tmp_path, monkeypatch):
    """A shell puts it in for --out ~/run, but not for --out=~/run and not in a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "novel.txt").write_text(english()[:5000])
    (tmp_path / "mine.toml").write_text('preset = "smoke"\ndata = "~/novel.txt"\ntokenizer = "~/t.json"\n')
    words = ["--config=~/mine.toml", "--out=~/run", "--tokenizer=char", "--max-steps=1", "--eval-iters=1"]
    config, start, *_ = cli.train_config(words)
    assert (config.out, config.data) == (str(tmp_path / "run"), str(tmp_path / "novel.txt"))
    assert start.settings_file == str(tmp_path / "mine.toml")
    for word in ("--data=~/novel.txt", "--init-from=~/nowhere"):
        with pytest.raises(UserError) as error:
            cli.train_config([word, "--tokenizer=char", "--vocab-size=300"])
        assert str(tmp_path) in str(error.value) or "--vocab-size" in str(error.value)
    short = dict(max_steps=1, eval_iters=1, sample_tokens=0)
    train_here(config="~/mine.toml", out="~/run", tokenizer="char", **short)
    assert (tmp_path / "run" / "config.toml").is_file()
    train_here(resume="~/run", stop_after=1)
