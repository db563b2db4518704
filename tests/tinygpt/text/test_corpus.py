"""Where documents come from: names, files, folders, patterns, JSON Lines and standard input."""

import gzip
import hashlib
import io
import json
import os
import sys
import urllib.error

import pytest

from tests.support.texts import CHINESE
from tinygpt.config import UserError
from tinygpt.text import corpus
from tinygpt.text.corpus import load_documents, load_text


def write(folder, files):
    """Write {path: text or bytes} below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


POEMS = {"b.txt": "two", "a.txt": "one", "more/even/c.md": "four", "more/c.md": "three"}
OTHERS = {".DS_Store": "x", ".git/HEAD": "x", "cover.png": b"\x89PNG\r\n\x1a\n\0", "d.txt": ""}


@pytest.fixture
def poems(tmp_path, monkeypatch):
    """A folder with texts and other files; the current folder is the one that it is in."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "poems", POEMS | OTHERS)
    return tmp_path / "poems"


def notes_and(*arguments, **options):
    """(name, documents, notes) of load_documents."""
    notes = []
    name, documents = load_documents(*arguments, say=notes.append, **options)
    return name, documents, notes


# --- files, folders, patterns ---------------------------------------------------------------------


def test_a_file(tmp_path):
    def load(content):
        (tmp_path / "text.txt").write_bytes(content)
        return load_text(str(tmp_path / "text.txt"))

    assert load(CHINESE.encode()) == ("text", CHINESE)
    assert load(b"\xef\xbb\xbfone\r\ntwo\n") == ("text", "one\ntwo\n")
    with pytest.raises(UserError, match="text.txt is empty; give a file with text"):
        load(b"")
    with pytest.raises(UserError, match="byte 2 is 0xff"):
        load(b"ab\xff")
    with pytest.raises(UserError, match="cannot read .*nothing.txt: No such file or directory; give a text"):
        load_text(str(tmp_path / "nothing.txt"))


def test_a_folder(poems):
    """All text files below it in sorted order; what is left out is named."""
    name, documents, notes = notes_and("poems")
    assert (name, documents) == ("poems", ["one", "two", "three", "four"])
    (note,) = notes
    left_out = ".DS_Store (hidden), poems/.git (hidden), poems/cover.png (a PNG picture), poems/d.txt (empty)"
    assert note == f"left out: poems/{left_out}"
    write(poems, {".x": "", ".y": "", ".z": ""})
    assert notes_and("poems")[2][0].endswith("poems/.z (hidden) and 2 more")
    assert load_documents("poems/") == load_documents(str(poems)) == (name, documents)
    os.chdir(poems / "more")
    assert load_documents(".") == ("more", ["three", "four"]) and load_documents("..")[0] == "poems"
    with pytest.raises(UserError, match="poems has 4 documents; load_documents reads them"):
        load_text(str(poems))


def test_folders_without_texts(poems):
    (poems / "empty").mkdir()
    with pytest.raises(UserError, match="poems/empty has no text files; give files with text, or another"):
        load_documents("poems/empty")
    write(poems, {"packed/a.gz": gzip.compress(b"one"), "packed/b.gz": gzip.compress(b"two")})
    with pytest.raises(
        UserError, match=r"no text files \(left out: poems/packed/a.gz \(gzip data\), poems/pa"
    ):
        load_documents("poems/packed")


def test_a_text_in_another_encoding_is_not_left_out(poems):
    """It is a text of the user's, so it must not get lost."""
    (poems / "e.txt").write_bytes(CHINESE.encode("gbk"))
    with pytest.raises(UserError, match="poems/e.txt is not UTF-8 text: .* looks like GBK"):
        load_documents("poems")
    with pytest.raises(UserError, match="poems/e.txt is not UTF-8 text"):
        load_documents("poems/*")


def test_links_lead_nowhere_twice(poems):
    (poems / "loop").symlink_to(poems)
    (poems / "z.txt").symlink_to(poems / "a.txt")
    assert load_documents("poems")[1] == ["one", "two", "three", "four"]
    (note,) = notes_and("poems")[2]
    assert "poems/loop (a link to a folder)" in note and note.count("loop") == 1 and "more" not in note


def test_runs_are_no_texts(poems):
    write(poems / "run", {"config.toml": "a = 1", "samples/step_000000.txt": "a sample", "ckpt/latest": "x"})
    assert load_documents("poems")[1] == ["one", "two", "three", "four"]
    assert "poems/run (a run of this program)" in notes_and("poems/*")[2][0]


@pytest.mark.parametrize(
    ("pattern", "name", "documents"),
    [
        ("poems/*.txt", "poems", ["one", "two"]),
        ("poems/[ab].txt", "poems", ["one", "two"]),
        ("poems/?.txt", "poems", ["one", "two"]),
        ("poems/**/*.md", "poems", ["three", "four"]),
        ("po*", "po", ["one", "two", "three", "four"]),
        ("*/*.md", "texts", None),
    ],
)
def test_patterns(poems, pattern, name, documents):
    if documents is None:
        with pytest.raises(UserError, match=r"\*/\*.md matches no text files; give"):
            load_documents(pattern)
    else:
        assert load_documents(pattern) == (name, documents)


def test_a_file_whose_name_looks_like_a_pattern(poems):
    (poems / "e [1].txt").write_text("five")
    assert load_documents("poems/e [1].txt") == ("e [1]", ["five"])


def test_several_sources(poems):
    name, documents = load_documents(["poems/b.txt", "poems/*.txt", "poems/more", "poems/b.txt"])
    assert name == "b-and-2-more" and documents == ["two", "one", "three", "four"]  # each file once
    assert load_documents(["poems/more", "poems/**/*.md"])[1] == ["three", "four"]
    assert load_documents(["python", "poems/a.txt"])[1][1:] == ["one"]
    with pytest.raises(UserError, match=r"cover.png is a PNG picture, not text"):
        load_documents(["poems/a.txt", "poems/cover.png"])


def test_an_encoding(poems):
    for i, codec in enumerate(("gbk", "utf-16", "big5")):
        folder = poems / str(i)
        for name in ("a.txt", "b.txt"):
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(f"{name}，山上\r\n".encode(codec))
        assert load_documents(f"poems/{i}", codec)[1] == ["a.txt，山上\n", "b.txt，山上\n"]
    with pytest.raises(UserError, match="encoding 'latin-9000' is not one that Python knows"):
        load_documents("poems", "latin-9000")


def test_many_files(tmp_path):
    for i in range(300):
        (tmp_path / f"{i:04}.txt").write_text(f"document {i}")
    assert load_documents(str(tmp_path))[1] == [f"document {i}" for i in range(300)]


# --- JSON Lines -----------------------------------------------------------------------------------


def test_json_lines(poems):
    lines = [{"text": "one\r\nline"}, {"text": ""}, {"text": 'zwei \u2028 "drei"', "id": 7}]
    for end in ("\n", "\r\n", "\n\n"):
        (poems / "x.jsonl").write_bytes(
            end.join(json.dumps(line, ensure_ascii=False) for line in lines).encode()
        )
        assert load_documents("poems/x.jsonl") == ("x", ["one\nline", 'zwei \u2028 "drei"'])
    (poems / "y.NDJSON").write_text('{"body": "五", "text": 5}\n', encoding="utf-8")
    name, documents, notes = notes_and("poems/y.NDJSON", text_key="body")
    assert documents == ["五"] and notes == []
    name, documents, notes = notes_and("poems/a.txt", text_key="body")
    assert notes == ["text_key 'body' has no effect: no file is called *.jsonl"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"body": "x", "id": 1}',
            "has no key 'text', only 'body', 'id'; name that of the text with --text-key",
        ),
        ("{}", "has no key 'text', only none"),
        ('{"text": ["x"]}', """: 'text' is ["x"], not a text; see --text-key"""),
        ('{"text": null}', ": 'text' is null, not a text"),
        ('"x"', 'is not a JSON object, such as {"text": ...}'),
        ("some words", "is not JSON: Expecting value"),
        ('{"text": "x"', "is not JSON"),
        ('{"text": "\\ud800"}', r": '\ud800' is half of a surrogate pair"),
        ("[" * 100_000, "is not JSON: maximum recursion depth"),
    ],
)
def test_wrong_lines_are_named(poems, line, message):
    (poems / "x.jsonl").write_text('{"text": "one"}\n\n' + line + "\n")
    with pytest.raises(UserError) as info:
        load_documents("poems/x.jsonl")
    assert f"poems/x.jsonl, line 3{'' if message[0] == ':' else ' '}{message}" in str(info.value)


# --- standard input -------------------------------------------------------------------------------


class Stdin:
    def __init__(self, content):
        self.buffer = io.BytesIO(content)

    def isatty(self):
        return False


def test_standard_input(monkeypatch):
    for content, encoding in ((CHINESE.encode(), ""), (CHINESE.encode("utf-16"), "utf-16")):
        monkeypatch.setattr(sys, "stdin", Stdin(content))
        assert load_documents("-", encoding) == ("stdin", [CHINESE])
    for content, message in ((b"", "standard input is empty"), (gzip.compress(b"x"), "gzip data, not text")):
        monkeypatch.setattr(sys, "stdin", Stdin(content))
        with pytest.raises(UserError, match=message):
            load_documents("-")


# --- what may surprise ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("a.html", "<!DOCTYPE html>\n<p>Once", "a.html: this is HTML or XML, and its tags are learnt too"),
        ("b.htm", "\n <HTML lang=en>", "is HTML or XML"),
        ("c.xml", '<?xml version="1.0"?>', "is HTML or XML"),
        (
            "d.json",
            '[{"text": "x"}]',
            "d.json: this looks like JSON, and its brackets and keys",
        ),
        ("e.txt", '{"text": "x"}\n{"text": "y"}', "looks like JSON"),
        ("f.txt", ("QUJD" * 19 + "\n") * 5 + "eHl6MTIz\n", "looks like base64; base64 -d"),
        ("g.txt", "Once <|endoftext|> upon", "has <|endoftext|> written in it; only a tokenizer that has"),
        ("h.txt", "ACGT" * 19 + "\n", None),
        ("i.txt", "<3 is a heart", None),
        ("j.txt", "[Enter ROMEO]", None),
    ],
)
def test_notes_on_texts(tmp_path, name, text, note):
    (tmp_path / name).write_text(text)
    _, documents, notes = notes_and(str(tmp_path / name))
    assert documents == [text] and len(notes) == (note is not None)
    assert note is None or note in notes[0]


def test_a_note_on_many_texts_is_one(tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.html").write_text("<html>")
    (note,) = notes_and(str(tmp_path / "**"))[2]
    assert note.count("html:") == 0 and note.count(".html") == 5 and "4.html and 4 more: this is HTML" in note


# --- texts by name --------------------------------------------------------------------------------


def test_standard_library_is_real_text():
    name, text = load_text("python")
    assert name == "python" and len(text) > 1_000_000 and "def " in text and text.isascii()


def test_shakespeare_is_downloaded_once_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGPT_DATA", str(tmp_path / "kept"))
    source = tmp_path / "served.txt"
    source.write_text("To be tested, or not to be tested.")
    monkeypatch.setattr(corpus, "SHAKESPEARE_URL", source.as_uri())
    with pytest.raises(UserError, match="another checksum"):
        load_text("shakespeare")
    assert not (tmp_path / "kept").exists()
    monkeypatch.setattr(corpus, "SHAKESPEARE_SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    assert load_text("shakespeare") == ("shakespeare", source.read_text())
    source.unlink()
    assert load_text("shakespeare")[1].startswith("To be")
    mine = tmp_path / "kept" / "tinyshakespeare.txt"
    mine.write_text("my own notes on it")
    with pytest.raises(UserError, match="is not Tiny Shakespeare.*move it away.*--data"):
        load_text("shakespeare")
    assert mine.read_text() == "my own notes on it"


def test_without_a_network_the_default_says_so_and_goes_on(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TINYGPT_DATA", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    said = []
    assert corpus.default_text(said.append)[0] == "python"
    assert "no network" in said[0] and "--data python" in said[0]
    with pytest.raises(UserError, match="no network"):  # asked for by name, it is not replaced
        load_text("shakespeare")
