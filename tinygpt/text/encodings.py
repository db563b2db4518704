"""Which encoding a text that is not UTF-8 may be in.

Read in the wrong encoding, a text has characters that hardly occur in its language. So each encoding is
judged by how likely the characters are that it makes of the bytes. A language is described by its usual
characters: together they have a certain share of a text, and all others share the rest.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass

SAMPLE = 20_000  # bytes that are looked at
SURE = 12.0  # nats by which the best encoding must be likelier than any that gives another text
ASCII_COST = -3.0  # log probability of an ASCII character: about as in English
IMPOSSIBLE = "\ufffd"  # stands for a character that cannot be there


@dataclass(frozen=True)
class Language:
    """The usual characters of a language beyond ASCII, and which share of all those they have."""

    usual: str
    share: float
    others: int  # how many other characters there are
    encodings: tuple[str, ...]  # by names that Python and iconv both know, the commonest first
    mixes: bool = True  # whether its characters stand beside ASCII letters, as in "café"

    def likelihood(self, text: str) -> float:
        """The log probability of a text's characters."""
        if not self.mixes:
            text = BESIDE_ASCII.sub(IMPOSSIBLE, text)
        usual = set(self.usual)
        each_usual = math.log(self.share / len(usual))
        each_other = math.log((1 - self.share) / self.others)
        total = 0.0
        for character, count in Counter(text).items():
            if character == IMPOSSIBLE:
                total += count * 2 * each_other
            elif character < "\x80":
                total += count * ASCII_COST
            else:
                total += count * (each_usual if character in usual else each_other)
        return total


BESIDE_ASCII = re.compile(r"(?<=[A-Za-z])[^\W\x00-\x7f]|[^\W\x00-\x7f](?=[A-Za-z])")


def _range(first, last):
    return "".join(map(chr, range(ord(first), ord(last) + 1)))


def _wide(usual, share, *encodings):
    return Language(usual, share, 20_000, encodings)


def _latin(usual, *encodings):
    return Language(usual, 0.92, 1000, encodings or WESTERN)


def _own(usual, *encodings):
    return Language(usual, 0.92, 1000, encodings, mixes=False)


WESTERN = ("CP1252", "ISO-8859-1", "ISO-8859-15", "MACINTOSH", "CP850", "CP437")
CENTRAL = ("CP1250", "ISO-8859-2", "CP852")
RUSSIAN = ("CP1251", "KOI8-R", "CP866", "ISO-8859-5", "MAC-CYRILLIC")
WIDE_SIGNS = "，。、；：？！“”‘’「」『』《》（）—…　"
# The commonest characters of Chinese, simplified and traditional.
CHINESE = WIDE_SIGNS + (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家"
    "种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十"
    "民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西月"
    "话合回代内信表化老给世位次度门任常先海通教儿原东声提立及比水名真走入几口气更打女变四何安少才反太再必山金曰吾乃矣"
    "這個們來為國說時會對於著過發後裡種經麼學現當沒動還進樣開從實軍無與長機關點業將兩間問並應戰頭體見給產話門兒東聲幾氣變"
)
KOREAN = WIDE_SIGNS + (
    "이다는에을가의고하지은도를로한사자기서어나그인아리시대수있라정보해일들만제부여전장스안었주것과상으무구동원게마우모조"
    "신소오거비국면유생러니경세미성치간선실교방적진연내야분물음습드영말요되였했던저바호공관계식회문"
)
LANGUAGES = (
    _wide(CHINESE, 0.6, "GBK", "GB18030", "BIG5", "CP950"),
    _wide(
        WIDE_SIGNS + "ー・々" + _range("ぁ", "ん") + _range("ァ", "ヶ"), 0.6, "SHIFT_JIS", "CP932", "EUC-JP"
    ),
    _wide(KOREAN, 0.5, "EUC-KR", "CP949"),
    _own(_range("а", "я") + "ё—«»…", *RUSSIAN),
    _own(_range("а", "я") + "іїєґ’—«»", "CP1251", "KOI8-U"),
    _own(_range("ά", "ώ") + "«»", "CP1253", "ISO-8859-7"),
    _own(_range("א", "ת"), "CP1255", "ISO-8859-8"),
    _own(_range("ء", "ي") + "،؟", "CP1256", "ISO-8859-6"),
    _own(_range("ก", "ฺ") + _range("เ", "๎"), "CP874", "TIS-620"),
    _latin("‘’“”–—…é£•"),  # English
    _latin("éèàêçùâîôûëïœÉÈÀÊÇ«»’…–—\xa0"),  # French
    _latin("äöüßÄÖÜ„“”–"),  # German
    _latin("áéíóúñü¿¡ÁÉÍÓÚÑ«»—"),  # Spanish
    _latin("ãáàâçéêíóôõúÃÁÀÂÇÉÊÍÓÕÚ—"),  # Portuguese
    _latin("àèéìòùÀÈÉ’“”"),  # Italian
    _latin("åäöæøéÅÄÖÆØ”–"),  # the languages of Scandinavia
    _latin("áéíóúýþðæöÁÉÍÓÚÞÐÆÖ"),  # Icelandic
    _latin("ąćęłńóśźżĄĆĘŁŃÓŚŹŻ„”–", *CENTRAL),  # Polish
    _latin("áčďéěíňóřšťúůýžÁČĎÉÍŘŠŤÚŽľĺŕôä„“", *CENTRAL),  # Czech and Slovak
    _latin("áéíóöőúüűÁÉÍÓÖŐÚÜŰ„”–", *CENTRAL),  # Hungarian
    _latin("ăâîşţĂÂÎŞŢ„”–", *CENTRAL),  # Romanian
    _latin("čćđšžČĆĐŠŽ„”–", *CENTRAL),  # Croatian
    _latin("ıİşŞğĞüÜöÖçÇâ", "CP1254", "ISO-8859-9"),  # Turkish
    _latin("ąčęėįšųūžĄČĘĖĮŠŲŪŽ„“", "CP1257", "ISO-8859-13"),  # Lithuanian
    _latin("āčēģīķļņšūžĀČĒĢĪĶĻŅŠŪŽ", "CP1257", "ISO-8859-13"),  # Latvian
)
CONTROL_CHARACTERS = set(_range("\0", "\x1f")) - set("\t\r\n\f\x1b")
ANY_USUAL = set(_range(" ", "~") + "\t\r\n").union(*(language.usual for language in LANGUAGES))


@dataclass(frozen=True)
class Guess:
    """Encodings that a text may be in, the likeliest first. sure: there is only one, beyond doubt."""

    encodings: list[str]
    sure: bool


def guess(raw: bytes) -> Guess:
    """The encodings in which bytes that are neither ASCII nor UTF-8 may be a text."""
    sample = _words(raw)
    texts, scores = {}, {}
    for language in LANGUAGES:
        for encoding in language.encodings:
            if encoding not in texts:
                texts[encoding] = sample.decode(encoding, "replace")
            score = language.likelihood(texts[encoding])
            scores[encoding] = max(score, scores.get(encoding, -math.inf))
    groups = {}  # text: the encodings that give it
    for encoding in sorted(scores, key=scores.get, reverse=True):
        groups.setdefault(texts[encoding], []).append(encoding)
    best, second = [scores[group[0]] for group in groups.values()][:2]
    high = sum(byte >= 0x80 for byte in sample)
    at_random = high * math.log(1 / 128) + (len(sample) - high) * ASCII_COST
    if best > at_random and best - second > SURE:
        group = next(iter(groups.values()))
        return Guess([_readable(raw, group) or group[0]], sure=True)
    readable = [_readable(raw, group) for group in list(groups.values())[:8]]
    return Guess([encoding for encoding in readable if encoding], sure=False)


def _readable(raw, group):
    """The first of several encodings that can read all of the bytes, or None."""
    return next((encoding for encoding in group if can_read(raw, encoding)), None)


def guess_wide_units(raw: bytes) -> str | None:
    """UTF-16 or UTF-32, with units of 2 or 4 bytes and no mark at the start, or None if it is neither.

    A text of these has zeros in every unit below U+0100, or for other scripts is full of usual characters.
    """
    for encoding in ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE"):
        text = raw[: SAMPLE // 4 * 4].decode(encoding, "replace")
        counts = Counter(text)
        found = ANY_USUAL & counts.keys()
        usual = sum(counts[character] for character in found)
        controls = sum(counts[character] for character in CONTROL_CHARACTERS)
        if len(found) >= 3 and usual > 0.25 * len(text) and controls < 0.02 * len(text):
            return encoding
    return None


def can_read(raw: bytes, encoding: str) -> bool:
    """Whether all of the bytes are characters of an encoding."""
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _words(raw):
    """The different words beyond ASCII from where these begin, with spaces between them.

    A word that comes again says nothing new about the encoding.
    """
    first = re.search(rb"[\x80-\xff]", raw).start()
    words = raw[max(0, first - 20) : first + SAMPLE].split()
    return b" ".join(dict.fromkeys(word for word in words if not word.isascii()))
