"""Files that hold no plain text: recognised by their first bytes, with the command that gets a text out."""

import io
import os
import re
import shlex
import zipfile

from tinygpt.config import UserError

STDIN = "standard input"
CONTROL = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # not tabs, line ends, or ESC, which colours lines
# What is wrapped around a text: the first bytes, the name, and the command that takes it off.
COMPRESSED = (
    (b"\x1f\x8b", "gzip", "gunzip -c"),
    (b"\x1f\x9d", "compress", "gunzip -c"),
    (b"BZh", "bzip2", "bunzip2 -c"),
    (b"\xfd7zXZ\0", "xz", "xz -dc"),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "zstd -dc"),
    (b"\x04\x22\x4d\x18", "LZ4", "lz4 -dc"),
    (b"LZIP", "lzip", "lzip -dc"),
)
# {file}, {text} and {folder} stand for names.
PANDOC = "pandoc {file} -t plain --wrap=none -o {text}"
OFFICE = "libreoffice --headless --convert-to txt:Text {file}"
UNZIP = "unzip {file} -d {folder}"
# Where in the file, the bytes there, the name, and a command, or "" if there is no text to get.
SIGNATURES = (
    (0, b"%PDF-", "a PDF", "pdftotext -enc UTF-8 {file} {text}"),
    (0, b"%!PS", "PostScript", "ps2ascii {file} {text}"),
    (0, b"{\\rtf", "rich text (RTF)", PANDOC),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", OFFICE),
    (0, b"AT&TFORM", "a DjVu scan", "djvutxt {file} {text}"),
    (60, b"BOOKMOBI", "a Kindle book", "ebook-convert {file} {text}"),
    (257, b"ustar", "a tar archive", "tar -xf {file}"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x {file}"),
    (0, b"Rar!\x1a\x07", "a RAR archive", "unrar x {file}"),
    (0, b"\x89PNG", "a PNG picture", ""),
    (0, b"\xff\xd8\xff", "a JPEG picture", ""),
    (0, b"GIF8", "a GIF picture", ""),
    (0, b"\x7fELF", "a program", ""),
    (0, b"MZ", "a Windows program", ""),
    (0, b"ID3", "sound (MP3)", ""),
    (0, b"OggS", "sound (Ogg)", ""),
    (0, b"RIFF", "sound or a picture (RIFF)", ""),
    (4, b"ftyp", "a film (MP4)", ""),
    (0, b"SQLite format 3\0", "an SQLite database", ""),
    (0, b"PAR1", "a Parquet table; write its texts as JSON Lines", ""),
    (0, b"ARROW1", "an Arrow table; write its texts as JSON Lines", ""),
    (0, b"\x93NUMPY", "a NumPy array", ""),
    (0, b"\x80\x04\x95", "a pickle", ""),
)
READABLE = (b"%PDF-", b"%!PS", b"{\\rtf")  # the formats above that can be valid UTF-8
ZIPPED = (  # a name in the archive, what the archive is then, and the command
    ("word/document.xml", "a Word document", PANDOC),
    ("META-INF/container.xml", "an EPUB book", PANDOC),
    ("content.xml", "an OpenDocument text", PANDOC),
    ("xl/workbook.xml", "an Excel table; save it as text", ""),
    ("ppt/presentation.xml", "a PowerPoint document; save it as text", ""),
)


class NotText(UserError):
    """A file with something else than text. `kind` says what, in a few words."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def refuse_other_formats(raw: bytes, source: str, only_readable: bool = False) -> None:
    """NotText if the bytes are those of a known format.

    only_readable: of a format that can be valid UTF-8 text, such as PDF.
    """
    if not only_readable:
        for start, name, tool in COMPRESSED:
            if raw.startswith(start):
                raise not_text(source, f"{name} data", _unpack(source, tool))
        if raw.startswith(b"PK\3\4"):
            raise not_text(source, *_zipped(raw, source))
    for at, magic, kind, command in SIGNATURES:
        if raw[at : at + len(magic)] == magic and (not only_readable or magic in READABLE):
            raise not_text(source, kind, _fill_in(command, source))


def not_text(source: str, kind: str, command: str = "") -> NotText:
    """The error for a file of another kind; command: what makes a text of it, if anything does."""
    kind, _, advice = kind.partition("; ")
    return NotText(f"{source} is {kind}, not text; {command or advice or 'give a text file'}", kind)


def is_binary(raw: bytes) -> bool:
    """Whether the bytes have a NUL, or too many other control characters for a text of one byte each."""
    start = raw[:100_000]
    return b"\0" in raw or len(CONTROL.findall(start)) > len(start) / 50


def _unpack(source, tool):
    if re.search(r"\.(tar\.\w+|t[gbx]z2?)$", source, re.IGNORECASE):
        return _fill_in("tar -xf {file}", source)
    text = os.path.splitext(source)[0]
    return through(tool, source, text if os.path.splitext(text)[1] else text + ".txt")


def through(tool: str, source: str, new: str) -> str:
    """How to send a file through a tool into a new file, or that standard input must go through it.

    tool: a command that reads the file whose name follows.
    """
    if not is_file(source):
        return f"pass it through {tool.removesuffix(' <')}"
    return f"{tool} {shlex.quote(source)} > {shlex.quote(_other(new, source))}"


def is_file(source: str) -> bool:
    """Whether bytes come from a file, not from standard input or from a flag such as --prompt."""
    return source != STDIN and not source.startswith("--")


def _other(new, source):
    """A name for a new file: never that of the source, which the command would empty before it is read."""
    stem, suffix = os.path.splitext(new)
    return f"{stem}-text{suffix}" if new == source else new


def _zipped(raw, source):
    try:
        names = zipfile.ZipFile(io.BytesIO(raw)).namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        names = []
    for name, kind, command in ZIPPED:
        if name in names:
            return kind, _fill_in(command, source)
    if any(name.endswith(("data.pkl", ".npy")) for name in names):
        return "a file of arrays", ""
    return "a zip archive", _fill_in(UNZIP, source)


def _fill_in(command, source):
    if not is_file(source):
        return ""
    stem = os.path.splitext(source)[0]
    names = {"file": source, "text": _other(stem + ".txt", source), "folder": _other(stem, source)}
    return command.format(**{name: shlex.quote(value) for name, value in names.items()})
