"""Tokens that were added to a vocabulary after it was learnt, and how they are found in a text.

The rules are those of Hugging Face's `tokenizers`. An added token stands for its own text wherever that
occurs, before anything is split into words. First the tokens that are not `normalized` are found, then, in
what is left, the others. Each time the leftmost counts, and of those that begin at one place the longest.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tinygpt.text.bpe import NEW_LETTERS, WHITE_SPACE

SPACES = re.compile(f"[\t-\r {WHITE_SPACE}]*")
# Letters and digits that Unicode puts elsewhere: letters in circles and squares, and two joiners.
MORE_OF_A_WORD = re.compile(
    f"[\u200c\u200d\u24b6-\u24e9\U0001f130-\U0001f149\U0001f150-\U0001f169\U0001f170-\U0001f189{NEW_LETTERS}]"
)


@dataclass(frozen=True)
class AddedToken:
    """A token with a text of its own, and how it is found: Hugging Face's fields, under their names.

    single_word: not inside a word. lstrip, rstrip: it takes the white space before or after it as well.
    normalized: it is looked for only after those that are not. special: it may be left out of a text.
    """

    id: int
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = True


FLAGS = tuple(field.name for field in dataclasses.fields(AddedToken) if field.type is bool)


class Additions:
    """What becomes of a vocabulary, {name: id}, when tokens are added to it one by one."""

    def __init__(self, vocab: dict[str, int]) -> None:
        self.vocab, self.tokens = vocab, {}  # tokens: {content: AddedToken}

    def add(self, content: str, **flags: bool) -> AddedToken | None:
        """Add a token, or give one that is there already these flags. None if there is nothing to add.

        A token keeps the id that its content has in the vocabulary. A new one gets the next free id.
        """
        if not content:
            return None
        if content in self.tokens:
            new = self.tokens[content].id
        else:
            new = self.vocab.get(content, max([len(self.vocab) - 1, *self._ids()]) + 1)
        self.tokens[content] = AddedToken(new, content, **flags)
        return self.tokens[content]

    def _ids(self) -> list[int]:
        return [token.id for token in self.tokens.values()]


def split(text: str, tokens: Sequence[AddedToken]) -> Iterator[tuple[str, int | None]]:
    """Yield the parts of a text in order, each with the id of the added token that it is, or None."""
    parts = iter([(text, None)])
    for normalized in (False, True):
        if chosen := [token for token in tokens if token.normalized == normalized]:
            parts = _split_each(parts, chosen)
    return parts


def _split_each(
    parts: Iterable[tuple[str, int | None]], tokens: Sequence[AddedToken]
) -> Iterator[tuple[str, int | None]]:
    by_content = {token.content: token for token in tokens}
    # Longest first, so that none is taken for a shorter one that it begins with.
    pattern = re.compile("|".join(map(re.escape, sorted(by_content, key=len, reverse=True))))
    for part, known in parts:
        if known is None:
            yield from _split_part(part, pattern, by_content)
        else:
            yield part, known


def _split_part(
    text: str, pattern: re.Pattern[str], tokens: dict[str, AddedToken]
) -> Iterator[tuple[str, int | None]]:
    done = 0
    for match in pattern.finditer(text):
        token, (start, stop) = tokens[match[0]], match.span()
        around = text[max(start - 1, 0) : start], text[stop : stop + 1]
        if token.single_word and any(map(_is_of_a_word, around)):
            continue
        if token.lstrip:
            start = _start_of_spaces(text, start, done)
        if token.rstrip:
            stop = SPACES.match(text, stop).end()
        if done < start:
            yield text[done:start], None
        # A token of white space may lie within what the token before it has taken; then it is found as well,
        # unless nothing is left of it.
        if start < stop:
            yield text[start:stop], token.id
        done = stop
    if done < len(text):
        yield text[done:], None


def _start_of_spaces(text: str, end: int, least: int) -> int:
    """Where the white space before a position begins, but not before `least`."""
    start = end
    while start > least and SPACES.fullmatch(text, start - 1, end):
        start -= 1
    return max(start, least)


def _is_of_a_word(character: str) -> bool:
    """Whether it is a letter, a mark, a digit or a connector such as _, as in Rust's regular expressions."""
    if not character:
        return False
    category = unicodedata.category(character)
    return (
        category[0] in "LM" or category in ("Nd", "Nl", "Pc") or MORE_OF_A_WORD.match(character) is not None
    )
