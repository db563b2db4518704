"""From the bytes of a file to its text: UTF-8, or an encoding that the user has named, but never a guess.

A text in another encoding is refused. The error says where the first wrong byte is, which encoding it
probably is, and how to go on.
"""

import os
import re

from tinygpt.config import UserError
from tinygpt.text.bpe import code_points
from tinygpt.text.encodings import can_read, guess, guess_wide_units
from tinygpt.text.formats import is_binary, is_file, not_text, refuse_other_formats, through

MARKS = (  # the longer ones first, as that of UTF-32 begins with that of UTF-16
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"\x84\x31\x95\x33", "GB18030"),
)
# How ISO-2022-JP changes to Japanese characters. All its bytes are ASCII.
ISO_2022_JP = re.compile(rb"\x1b\$[@B]")


def decode(raw: bytes, source: str, encoding: str = "") -> str:
    """The text of bytes in an encoding (UTF-8 if none is named), with LF at the end of every line.

    A byte order mark is dropped. source: where the bytes come from, for errors: NotText for what is no text,
    UserError for other wrong bytes.
    """
    text = _decode_as(raw, source, encoding) if encoding else _decode_utf8(raw, source)
    return with_lf(text.removeprefix("\ufeff"))


def with_lf(text: str) -> str:
    """A text with LF at the end of every line, for CRLF (Windows) and CR (old Macs)."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_encoding(encoding: str) -> None:
    """UserError unless it is the name of an encoding of text, or empty."""
    try:
        b"a".decode(encoding or "utf-8")
    except UnicodeDecodeError:
        pass  # one byte is not a whole character there
    except Exception:  # codecs that are none of text raise errors of their own
        raise UserError(
            f"encoding {encoding!r:.80} is not one that Python knows; examples: gb18030, big5, shift_jis, "
            "cp1252, utf-16"
        ) from None


def _decode_as(raw, source, encoding):
    refuse_other_formats(raw, source, only_readable=not is_binary(raw))
    try:
        text = raw.decode(encoding)
    except UnicodeError as error:
        place = f": byte {error.start} is {raw[error.start]:#04x}" if hasattr(error, "start") else ""
        raise UserError(f"{source} is not {encoding} text{place}; name another --encoding") from None
    if "\0" in text:
        at = text.index("\0")
        raise UserError(f"{source} is not {encoding} text: character {at} is a NUL; name another --encoding")
    return text


def _decode_utf8(raw, source):
    text, error = "", None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as first:
        error = first
    is_clean = error is None and b"\0" not in raw
    refuse_other_formats(raw, source, only_readable=is_clean)
    if not is_clean:
        raise _not_utf8(raw, source, error)
    if match := ISO_2022_JP.search(raw):
        raise UserError(
            f"{source} is Japanese in ISO-2022-JP from byte {match.start()}; {_use('ISO-2022-JP', source)}"
        )
    return text


def _not_utf8(raw, source, error):
    """The UserError for bytes with a NUL or, at `error`, something else that is not UTF-8."""
    at = min([raw.find(b"\0") % (len(raw) + 1), error.start if error else len(raw)])
    place = f"byte {at} is {raw[at]:#04x}"
    wrong = f"{source} is not UTF-8 text: {place}"
    marked = next((name for mark, name in MARKS if raw.startswith(mark)), None)
    if marked:
        return UserError(f"{wrong}, and it begins with the mark of {marked}; {_use(marked, source)}")
    if name := guess_wide_units(raw):
        return UserError(f"{wrong}, as in {name} without a mark; {_use(name, source)}")
    nuls = raw.count(b"\0")
    if error is None and nuls < len(raw) / 1000:
        command = through("tr -d '\\000' <", source, _new_name(source))
        return UserError(f"{source} has NUL bytes ({nuls} in all), first byte {at}; without them: {command}")
    if is_binary(raw):
        return not_text(source, f"binary data ({place})")
    is_cut = error.end == len(raw) and error.reason == "unexpected end of data"
    if is_cut and not raw[:at].isascii():
        command = through(f"head -c {at}", source, _new_name(source))
        return UserError(f"{wrong}, as it ends within a character; without that: {command}")
    if count := _few_wrong(raw):
        command = through("iconv -c -f UTF-8 -t UTF-8", source, _new_name(source))
        return UserError(f"{wrong}; the rest is UTF-8 ({count} wrong in all); without them: {command}")
    return UserError(f"{wrong}; {_advice(raw, source)}")


def _few_wrong(raw):
    """In how many places bytes are wrong in a text that otherwise is UTF-8 beyond doubt; 0 if it is not."""
    text = raw.decode("utf-8", "replace")
    wrong = text.count("\ufffd") - raw.count("\ufffd".encode())
    beyond_ascii = int((code_points(text) > 0x7F).sum()) - wrong
    return wrong if 20 * wrong <= beyond_ascii else 0


def _advice(raw, source):
    """What to do with a text whose encoding must be guessed."""
    found = guess(raw)
    if not found.sure:
        by_excerpt = {}
        for name in found.encodings:
            by_excerpt.setdefault(_excerpt(raw, name), name)
        # Those with control characters last.
        words = sorted(by_excerpt, key=lambda word: not word.isprintable())[:3]
        readings = " or ".join(f"{by_excerpt[word]} ({word!r})" for word in words)
        how = "give the right one with --encoding" if is_file(source) else "pass it as UTF-8"
        return f"it may be {readings}; {how}"
    name = found.encodings[0]
    if not can_read(raw, name):
        command = through(f"iconv -c -f {name} -t UTF-8", source, _new_name(source))
        return f"it looks like {name} with some wrong bytes; without them: {command}"
    return f"it looks like {name}; {_use(name, source)}"


def _excerpt(raw, encoding):
    """The first word that is not ASCII, as an encoding reads it."""
    first = re.search(rb"[\x80-\xff]", raw).start()
    before = raw[max(0, first - 8) : first].split()
    is_inside = before and not raw[first - 1 : first].isspace()
    text = ((before[-1] if is_inside else b"") + raw[first : first + 16]).decode(encoding, "replace")
    return text.split()[0][:10]


def _use(name, source):
    """What to do with a text whose encoding is known."""
    command = through(f"iconv -f {name} -t UTF-8", source, _new_name(source))
    return f"give --encoding {name}, or convert it: {command}" if is_file(source) else command


def _new_name(source):
    """A name for a file with what is right of a text."""
    stem, suffix = os.path.splitext(source)
    return f"{stem}.utf8{suffix or '.txt'}"
