"""Where documents come from: two texts by name, files, folders, patterns, JSON Lines, standard input."""

import glob
import json
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tinygpt.config import UserError
from tinygpt.text.data import sha256_of
from tinygpt.text.decoding import check_encoding, decode, with_lf
from tinygpt.text.formats import STDIN, NotText
from tinygpt.text.tokenizer import END_OF_TEXT

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
STANDARD_LIBRARY_BYTES = 2_000_000  # enough to learn what Python looks like, and quick to encode
JSON_LINES = (".jsonl", ".ndjson")
NAMED_IN_A_NOTE = 5  # files that a note names before it only counts
Say = Callable[[str], object]


def load_documents(
    data: str | Sequence[str], encoding: str = "", text_key: str = "text", say: Say = lambda note: None
) -> tuple[str, list[str]]:
    """(name, documents) of what the setting `data` names: one source or several.

    A source is "shakespeare", "python", a file, a folder (all text files below it), a pattern such as
    "poems/*.txt", or "-" (standard input). Each file is a document. Of JSON Lines (*.jsonl) each line is one,
    under text_key. Files are UTF-8 or in `encoding`, as `decode` reads them.

    What a folder or a pattern holds beside texts is left out, and `say` gets a note about it. So it does
    about texts that may not be what they seem. UserError says what is wrong with a source.
    """
    check_encoding(encoding)
    sources = [data] if isinstance(data, str) else list(dict.fromkeys(data))
    reader = _Reader(encoding, text_key, say)
    documents = [document for source in sources for document in reader.documents(source)]
    reader.give_notes(documents)
    if not documents:
        raise UserError(f"{' '.join(sources)} has no text; give a file with text")
    name = _name(sources[0])
    return (name if len(sources) == 1 else f"{name}-and-{len(sources) - 1}-more"), documents


def load_text(source: str) -> tuple[str, str]:
    """(name, text) of a source that is a single document; see load_documents."""
    name, documents = load_documents(source)
    if len(documents) > 1:
        raise UserError(f"{source} has {len(documents)} documents; load_documents reads them")
    return name, documents[0]


def default_text(say: Say = print) -> tuple[str, str]:
    """(name, text) when no corpus was asked for: shakespeare, or python if that cannot be downloaded."""
    try:
        return load_text("shakespeare")
    except UserError as error:
        say(f"{error}. Going on with the source of Python's standard library (--data python).")
        return load_text("python")


def _name(source):
    """A name for what a source holds: of a file, a folder, or the last folder of a pattern."""
    if source == "-":
        return "stdin"
    if _is_pattern(source):
        source = re.split(r"[*?[]", source)[0]
        return Path(source).resolve().name if source.endswith("/") else Path(source).name or "texts"
    path = Path(source)
    return path.resolve().name if path.is_dir() else path.stem


def _is_pattern(source):
    return glob.has_magic(source) and not os.path.exists(source)


# --- files ----------------------------------------------------------------------------------------


class _Reader:
    """Reads sources, and remembers what the user should know about them."""

    def __init__(self, encoding: str, text_key: str, say: Say) -> None:
        self.encoding, self.text_key, self.say = encoding, text_key, say
        self.left_out = []  # what was found beside texts, with the reason
        self.surprises = {}  # {what may surprise about a text: the sources of such texts}
        self.seen = set()  # the files that were read: none counts twice
        self.has_json_lines = False

    def documents(self, source: str) -> Iterator[str]:
        """Yield the documents of a source."""
        if source == "shakespeare":
            yield decode(_shakespeare(), source)
        elif source == "python":
            yield _standard_library()
        elif source == "-":
            if sys.stdin.isatty():
                self.say("reading standard input; Ctrl-D on a line of its own ends it")
            yield from self._of_bytes(sys.stdin.buffer.read(), STDIN)
        elif os.path.isdir(source):
            yield from self._found(source, [source])
        elif _is_pattern(source):
            yield from self._found(source, sorted(glob.glob(source, recursive=True)))
        else:
            yield from self._of_file(source)

    def _found(self, source, paths):
        """The documents of files that were searched for, without what is no text."""
        found = False
        for path in self._files(paths):
            try:
                yield from self._of_file(path)
                found = True
            except NotText as error:
                self.left_out.append(f"{path} ({error.kind})")
        if not found:
            where = f"{source} matches" if _is_pattern(source) else f"{source} has"
            others = f" (left out: {_some(self.left_out)})" if self.left_out else ""
            raise UserError(f"{where} no text files{others}; give files with text, or another folder")

    def _files(self, paths):
        """The files of these paths, and all below the folders among them, sorted within each folder."""
        for path in paths:
            if os.path.isdir(path):
                entries = sorted(os.listdir(path))
                if {"config.toml", "ckpt"} <= set(entries):
                    self.left_out.append(f"{path} (a run of this program)")
                    continue
                self.left_out += [f"{Path(path, name)} (hidden)" for name in entries if name.startswith(".")]
                below = [os.path.join(path, name) for name in entries if not name.startswith(".")]
                linked = [each for each in below if os.path.islink(each) and os.path.isdir(each)]
                # It may lead back to where we are.
                self.left_out += [f"{each} (a link to a folder)" for each in linked]
                yield from self._files(each for each in below if each not in linked)
            elif os.path.isfile(path):
                yield path
            else:
                self.left_out.append(f"{path} (no regular file)")

    def _of_file(self, path):
        if (real := os.path.realpath(path)) in self.seen:
            return
        self.seen.add(real)
        try:
            with open(path, "rb") as file:
                raw = file.read()
        except OSError as error:
            advice = "give a text file, or one of the names shakespeare, python"
            raise UserError(f"cannot read {path}: {error.strerror}; {advice}") from None
        yield from self._of_bytes(raw, path)

    def _of_bytes(self, raw, source):
        text = decode(raw, source, self.encoding)
        if not text:
            raise NotText(f"{source} is empty; give a file with text", "empty")
        if source.lower().endswith(JSON_LINES):
            self.has_json_lines = True
            yield from json_lines(text, source, self.text_key)
            return
        if surprise := _surprise(text):
            self.surprises.setdefault(surprise, []).append(source)
        yield text

    def give_notes(self, documents: list[str]) -> None:
        """Tell what was left out, and what may surprise."""
        if self.left_out:
            self.say(f"left out: {_some(self.left_out)}")
        for surprise, sources in self.surprises.items():
            self.say(f"{_some(sources)}: {surprise}")
        if self.text_key != "text" and not self.has_json_lines:
            self.say(f"text_key {self.text_key!r} has no effect: no file is called *.jsonl")
        if any(END_OF_TEXT in document for document in documents):
            self.say(_about_written_ends(several=len(documents) > 1))


def _about_written_ends(several):
    if several:
        return f"a document has the characters {END_OF_TEXT}; they stay characters and do not end it"
    return (
        f"the text has {END_OF_TEXT} written in it; only a tokenizer that has that token, such as GPT-2's, "
        "reads it as the end of a document; else give each document a file, or a line of a .jsonl file"
    )


def _some(names):
    """The first of several names, each once, and how many more there are."""
    names = list(dict.fromkeys(names))
    more = len(names) - NAMED_IN_A_NOTE
    return ", ".join(names[:NAMED_IN_A_NOTE]) + (f" and {more} more" if more > 0 else "")


def json_lines(text: str, source: str, key: str) -> Iterator[str]:
    """Yield the texts under `key` of JSON objects, one on each line. Empty lines and empty texts are skipped.

    UserError names the first line that has none.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{source}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place} is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise UserError(f"{place} is not a JSON object, such as {{{json.dumps(key)}: ...}}")
        if key not in value:
            keys = ", ".join(map(repr, list(value)[:10])) or "none"
            raise UserError(f"{place} has no key {key!r}, only {keys}; name that of the text with --text-key")
        document = value[key]
        if not isinstance(document, str):
            raise UserError(f"{place}: {key!r} is {json.dumps(document)[:60]}, not a text; see --text-key")
        try:
            document.encode()
        except UnicodeEncodeError as error:
            half = document[error.start]
            raise UserError(f"{place}: {half!r} is half of a surrogate pair, not text") from None
        if document:
            yield with_lf(document)


def _surprise(text):
    """What the user may not know about a text that is more than the words of one, or None."""
    start = text[:4000].lstrip()
    if re.match(r"<(!doctype html|html|\?xml)\b", start, re.IGNORECASE):
        return "this is HTML or XML, and its tags are learnt too; pandoc, lynx -dump or w3m -dump remove them"
    if re.match(r'\{\s*"|\[\s*[{"]', start):
        return (
            "this looks like JSON, and its brackets and keys are learnt too; of a file called *.jsonl, with "
            "an object on each line, only the texts are learnt (--text-key)"
        )
    of_one_length = re.fullmatch(r"([A-Za-z0-9+/]{76}\n|[A-Za-z0-9+/]{64}\n){3,}[A-Za-z0-9+/\n=]*", start)
    if of_one_length and re.search("[a-z].*[0-9+/]", start):
        return "this looks like base64; base64 -d turns it back into what it was"
    return None


# --- texts by name --------------------------------------------------------------------------------


def _shakespeare() -> bytes:
    """The bytes of Tiny Shakespeare, downloaded once into $TINYGPT_DATA or data/ and checked."""
    path = Path(os.environ.get("TINYGPT_DATA", "data")) / "tinyshakespeare.txt"
    if path.exists():
        raw = path.read_bytes()
        if sha256_of(raw) != SHAKESPEARE_SHA256:
            raise UserError(
                f"{path} is not Tiny Shakespeare (its checksum differs); move it away to download that, or "
                f"train on it with --data {path}"
            )
        return raw
    import urllib.request  # slow to import, and seldom needed

    try:
        with urllib.request.urlopen(SHAKESPEARE_URL, timeout=10) as response:
            raw = response.read()
    except OSError as error:
        raise UserError(f"cannot download {SHAKESPEARE_URL} ({getattr(error, 'reason', error)})") from None
    if sha256_of(raw) != SHAKESPEARE_SHA256:
        raise UserError(
            f"the download from {SHAKESPEARE_URL} has another checksum than Tiny Shakespeare; it was not kept"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(raw)
    part.replace(path)
    return raw


def _standard_library() -> str:
    """The modules of this Python's standard library that are plain ASCII, up to STANDARD_LIBRARY_BYTES."""
    parts, size = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        raw = path.read_bytes()
        if raw.isascii() and size < STANDARD_LIBRARY_BYTES:
            parts.append(with_lf(raw.decode()))
            size += len(raw)
    if not parts:
        raise UserError("this Python has no source of its standard library; give a text file with --data")
    return "".join(parts)
