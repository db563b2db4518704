"""Bytes that are no UTF-8 text: recognised, named, and refused with what to do."""

import bz2
import gzip
import io
import lzma
import re
import shlex
import shutil
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest

from tests.support.texts import CHINESE, english
from tinygpt.config import UserError
from tinygpt.text.decoding import check_encoding, decode
from tinygpt.text.encodings import LANGUAGES
from tinygpt.text.formats import STDIN, NotText

RUSSIAN = (
    "Однажды утром старый рыбак вышел к морю и увидел, что лодка пропала. Ветер стих, вода была тёмная, и "
    "только чайки кричали над берегом. Он сел на камень, закурил трубку и стал ждать, пока взойдёт солнце."
)
JAPANESE = (
    "山のふもとに小さな家がありました。おじいさんは毎朝、"
    "川へ水をくみに行きます。夜はランプの下で本を読みました。"
)
KOREAN = (
    "산 아래에 작은 집이 있었다. 노인은 매일 아침 강에 가서 물을 길어 오고 밤에는 등불 아래에서 책을 읽었다."
)
TRADITIONAL = (
    "山上有一座小屋，屋裡住著一位老人。他們說這個地方沒有人來過，"
    "可是我們都知道，天還沒有亮的時候，門外就有人在等著。"
)
GERMAN = (
    "Der Müller zählt die Äpfel, bevor es regnet. Über der Brücke hängt ein großer, schöner Drachen; früh "
    "hört man Vögel."
)
FRENCH = (
    "Le garçon a oublié son cahier près de la fenêtre où l’été dernier, déjà, la vieille dame avait laissé "
    "tomber sa clé. « À bientôt », lui dit-elle d’une voix très légère ; la forêt s’éveillait, là-bas."
)
POLISH = (
    "Młynarz liczy jabłka, zanim spadnie deszcz. Święty źródlany potok płynie wśród łąk, a dzieci śpią już "
    "od świtu."
)
TYPESET = (
    "“It’s late,” she said — and that’s all… He’d forgotten; they’d gone. ‘Perhaps,’ he thought, “I’ll wait.”"
)


def refusal(raw, source="novel.txt", encoding=""):
    """The one line with which bytes are refused."""
    with pytest.raises(UserError) as info:
        decode(raw, source, encoding)
    line = str(info.value)
    assert "\n" not in line and len(line) < 600 and line.startswith(source), line
    return line


def first_wrong(raw):
    """The position of the first byte that no UTF-8 text has there."""
    try:
        end = len(raw.decode())
    except UnicodeDecodeError as error:
        end = error.start
    return min(end, raw.find(b"\0") % (len(raw) + 1))


RECOGNISED = {  # the encoding that must be named: texts, and Python's names of encodings they are written in
    "GBK": ([CHINESE * 9, CHINESE[:30], "中国" + CHINESE], ["gbk", "gb2312", "gb18030"]),
    "BIG5": ([TRADITIONAL, TRADITIONAL * 30, TRADITIONAL[:30]], ["big5", "cp950"]),
    "SHIFT_JIS": ([JAPANESE, JAPANESE[:20], "ASCII first. " * 99 + JAPANESE], ["shift_jis", "cp932"]),
    "EUC-JP": ([JAPANESE, JAPANESE * 50], ["euc_jp"]),
    "ISO-2022-JP": ([JAPANESE, "ASCII first. " * 99 + JAPANESE], ["iso2022_jp"]),
    "EUC-KR": ([KOREAN, KOREAN * 50], ["euc_kr", "cp949"]),
    "CP1251": ([RUSSIAN, RUSSIAN * 9], ["cp1251"]),
    "KOI8-R": ([RUSSIAN, RUSSIAN * 9], ["koi8_r"]),
    "CP866": ([RUSSIAN, RUSSIAN[:60]], ["cp866"]),
    "CP1252": ([GERMAN, FRENCH, TYPESET], ["cp1252"]),
    "MACINTOSH": ([GERMAN, FRENCH, TYPESET], ["mac_roman"]),
    "CP1250": ([POLISH], ["cp1250"]),
    "ISO-8859-2": ([POLISH], ["iso8859_2"]),
    "UTF-16LE": ([english()[:50], CHINESE, RUSSIAN, JAPANESE], ["utf-16-le"]),
    "UTF-16BE": ([english()[:50], CHINESE, KOREAN], ["utf-16-be"]),
    "UTF-16": ([english()[:50], CHINESE, RUSSIAN], ["utf-16"]),
    "UTF-32LE": ([english()[:50], CHINESE], ["utf-32-le"]),
    "UTF-32BE": ([english()[:50], CHINESE], ["utf-32-be"]),
    "UTF-32": ([english()[:50], CHINESE], ["utf-32"]),
}


@pytest.mark.parametrize("name", RECOGNISED)
def test_encodings_are_recognised_and_read_when_named(name):
    texts, codecs = RECOGNISED[name]
    for text in texts:
        for codec in codecs:
            raw = text.encode(codec)
            line = refusal(raw)
            assert (
                f"give --encoding {name}, or convert it: iconv -f {name} -t UTF-8 novel.txt > novel.utf8.txt"
                in line
            )
            if name != "ISO-2022-JP":  # all its bytes are UTF-8
                at = first_wrong(raw)
                assert f"is not UTF-8 text: byte {at} is {raw[at]:#04x}" in line
            assert decode(raw, "novel.txt", name) == text
    assert f"pass it through iconv -f {name} -t UTF-8" in refusal(raw, STDIN)


@pytest.mark.skipif(not shutil.which("iconv"), reason="needs iconv")
def test_the_command_works_and_iconv_knows_every_name(tmp_path):
    known = subprocess.run(["iconv", "-l"], capture_output=True, text=True).stdout
    known = set(re.split(r"[/,\s]+", known))
    for name in {encoding for language in LANGUAGES for encoding in language.encodings}:
        assert name in known
        check_encoding(name)
    path = tmp_path / "my novel.txt"
    path.write_bytes(TRADITIONAL.encode("big5"))
    command = refusal(path.read_bytes(), str(path)).partition("convert it: ")[2]
    subprocess.run(command, shell=True, check=True)
    assert (tmp_path / "my novel.utf8.txt").read_text(encoding="utf-8") == TRADITIONAL


@pytest.mark.parametrize(
    ("raw", "possible"),
    [
        ("a café, a naïve résumé".encode("cp1252"), "CP1252 ('café,')"),
        (b"fine \xe4 bad" * 99, "CP1252 ('ä')"),
        ("Привет, как дела".encode("koi8_r"), "KOI8-R ('Привет,')"),
        ("中国".encode("gbk"), "GBK ('中国')"),
    ],
)
def test_little_evidence_names_what_is_possible(raw, possible):
    line = refusal(raw)
    assert "it may be" in line and possible in line and " or " in line and "--encoding" in line
    assert "cafй" not in line and "cafי" not in line  # letters of two alphabets in one word


def test_wrong_bytes_in_a_known_encoding():
    wrong = CHINESE.encode()[:60] + b"\xff" + CHINESE.encode()[60:]
    assert "byte 60 is 0xff; the rest is UTF-8 (1 wrong in all); without them: iconv -c" in refusal(wrong)
    cut = CHINESE.encode()[:61]
    assert "ends within a character; without that: head -c 60 novel.txt" in refusal(cut)
    assert "looks like GBK with some wrong bytes; without them: iconv -c -f GBK" in refusal(
        CHINESE.encode("gbk") + b"\xff"
    )
    assert "; without them: pass it through iconv -c -f UTF-8 -t UTF-8" in refusal(wrong, STDIN)
    nul = english().replace("miller", "mil\0ler", 2).encode()
    assert f"has NUL bytes (2 in all), first byte {nul.index(0)}; without them: tr -d" in refusal(nul)
    assert "is not ascii text: byte 3 is 0xc3; name another --encoding" in refusal(
        "abcé".encode(), encoding="ascii"
    )
    assert "character 1 is a NUL" in refusal("ab".encode("utf-16-le"), encoding="latin-1")


def zipped(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, english()[:500])
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("novel.txt"))
    return file.getvalue()


TEXT = english()[:3000].encode()
PACKED = bytes(range(256)) * 9  # stands for what another program has packed
TOKENS = np.random.default_rng(0).integers(0, 200, 999).astype("<u2")  # ids, as other programs store them
FORMATS = {  # file: (content, what it is, the command)
    "novel.txt.gz": (gzip.compress(TEXT), "gzip data", "gunzip -c novel.txt.gz > novel.txt"),
    "novel.gz": (gzip.compress(b""), "gzip data", "gunzip -c novel.gz > novel.txt"),
    "my novel": (gzip.compress(TEXT), "gzip data", "gunzip -c 'my novel' > 'my novel.txt'"),
    "novel.txt": (gzip.compress(TEXT), "gzip data", "gunzip -c novel.txt > novel-text.txt"),
    "pdf.txt": (b"%PDF-1.7\n" + TEXT, "a PDF", "pdftotext -enc UTF-8 pdf.txt pdf-text.txt"),
    "poems": (zipped("a.txt"), "a zip archive", "unzip poems -d poems-text"),
    STDIN: (gzip.compress(TEXT), "gzip data", "pass it through gunzip -c"),
    "--prompt": (b"%PDF-1.7\n", "a PDF", "give a text file"),
    "poems.tar.gz": (gzip.compress(tarred()), "gzip data", "tar -xf poems.tar.gz"),
    "novel.txt.bz2": (bz2.compress(TEXT), "bzip2 data", "bunzip2 -c novel.txt.bz2 > novel.txt"),
    "novel.txt.xz": (lzma.compress(TEXT), "xz data", "xz -dc novel.txt.xz > novel.txt"),
    "novel.zst": (b"\x28\xb5\x2f\xfd" + PACKED, "Zstandard data", "zstd -dc novel.zst > novel.txt"),
    "poems.zip": (zipped("a.txt", "b.txt"), "a zip archive", "unzip poems.zip -d poems"),
    "empty.zip": (zipped("a.txt")[:40], "a zip archive", "unzip empty.zip -d empty"),
    "poems.tar": (tarred(), "a tar archive", "tar -xf poems.tar"),
    "poems.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(9), "a 7z archive", "7z x poems.7z"),
    "a.pdf": (b"%PDF-1.7\n" + TEXT, "a PDF", "pdftotext -enc UTF-8 a.pdf a.txt"),
    "b.pdf": (b"%PDF-1.4\n\xe2\xe3\xcf\xd3\0" + TEXT, "a PDF", "pdftotext -enc UTF-8 b.pdf b.txt"),
    "a.docx": (zipped("word/document.xml"), "a Word document", "pandoc a.docx -t plain --wrap=none -o a.txt"),
    "a.epub": (zipped("META-INF/container.xml"), "an EPUB book", "pandoc a.epub"),
    "a.odt": (zipped("content.xml"), "an OpenDocument text", "pandoc a.odt"),
    "a.rtf": (b"{\\rtf1\\ansi " + TEXT, "rich text (RTF)", "pandoc a.rtf"),
    "a.doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an old Office document", "libreoffice"),
    "model.pt": (zipped("archive/data.pkl"), "a file of arrays", "give a text file"),
    "cover.png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG picture", "give a text file"),
    "t.parquet": (b"PAR1" + bytes(50), "a Parquet table", "write its texts as JSON Lines"),
    "train.bin": (TOKENS.tobytes(), "binary data (byte 0 is 0xaa)", "give a text file"),
    "noise": (PACKED, "binary data (byte 0 is 0x00)", "give a text file"),
    "scan": (bytes(range(1, 256)) * 9, "binary data (byte 127 is 0x80)", "give a text file"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_other_formats(name):
    raw, kind, command = FORMATS[name]
    for encoding in ("", "latin-1"):
        if encoding and "binary" in kind:
            continue  # every byte is a character of latin-1, only NULs are refused
        with pytest.raises(NotText) as info:
            decode(raw, name, encoding)
        assert info.value.kind == kind and f"{name} is {kind}, not text; {command}" in str(info.value)


def test_texts_that_begin_like_another_format_are_texts():
    for start in ("BZh, said the bee. ", "MZ", "GIF89a is a format", "RIFF", "ID3", "LZIP", "PAR1", "7z"):
        assert decode((start + CHINESE).encode(), "novel.txt") == start + CHINESE


@pytest.mark.parametrize("encoding", ["", "utf-8", "cp1252", "utf-16", "utf-16-be"])
def test_line_ends_and_marks(encoding):
    """CRLF (Windows) and CR (old Macs) become LF, a mark is dropped."""
    for mark in ("", "\ufeff"):
        if mark and encoding == "cp1252":
            continue
        for end in ("\n", "\r\n", "\r"):
            raw = (mark + f"one{end}two{end}{end}three").encode(encoding or "utf-8")
            assert decode(raw, "novel.txt", encoding) == "one\ntwo\n\nthree"


@pytest.mark.parametrize(
    "name", ["klingon", "rot13", "base64", "hex", "zlib", "", "UTF_16 LE", "\0", "undefined"]
)
def test_names_of_encodings(name):
    if name in ("", "UTF_16 LE"):
        check_encoding(name)
        return
    with pytest.raises(UserError, match="is not one that Python knows; examples: gb18030"):
        check_encoding(name)


def test_shell_quotes():
    line = refusal(CHINESE.encode("gbk"), "it's mine.txt")
    words = shlex.split(line.partition("convert it: ")[2])
    assert words[-3:] == ["it's mine.txt", ">", "it's mine.utf8.txt"]
