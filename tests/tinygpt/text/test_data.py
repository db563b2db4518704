"""Parts of texts, and batches."""

import numpy as np
import pytest

from autograd import Stream
from tests.support.texts import english
from tinygpt.config import UserError
from tinygpt.text import data
from tinygpt.text.tokenizer import END_OF_TEXT, BPETokenizer, CharTokenizer
from tinygpt.text.tokenizer_folder import choose_tokenizer


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


# --- several documents ----------------------------------------------------------------------------


def share(documents):
    """Which part of all characters is to validate, after checking that no document was cut or lost."""
    train, val = data.split_documents(documents)
    assert train and val and sorted([*train, *val]) == sorted(documents)
    assert [d for d in documents if d in set(train)] == train, "they keep their order"
    assert data.split_documents(documents) == (train, val)
    return sum(map(len, val)) / sum(map(len, documents))


def of_lengths(*lengths):
    """Different documents of these lengths."""
    return [f"{i:04}" + "x" * (length - 4) for i, length in enumerate(lengths)]


@pytest.mark.parametrize(
    ("lengths", "least", "most"),
    [
        ([100] * 20, 0.1, 0.1),
        ([100] * 7, 1 / 7, 1 / 7),
        (range(10, 500, 3), 0.09, 0.11),
        (range(500, 10, -3), 0.09, 0.11),
        ([50, 900], 50 / 950, 50 / 950),
        ([900, 50], 50 / 950, 50 / 950),
        ([2000, 2000, 5], 0.4, 0.6),  # five characters would be too little
        ([1000, *[40] * 20], 0.05, 0.1),
        ([*[40] * 20, 1000], 0.05, 0.1),
    ],
)
def test_documents_stay_whole(lengths, least, most):
    assert least <= share(of_lengths(*lengths)) <= most


def test_long_and_short_documents_are_in_both_parts():
    train, val = data.split_documents(of_lengths(*[30] * 50, *[3000] * 20))
    assert {len(document) for document in train} == {len(document) for document in val} == {30, 3000}


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_every_document_ends_with_one_token(kind):
    documents = [english()[i * 500 : i * 500 + 300 + 7 * i] for i in range(30)]
    documents[3] = f"A document about {END_OF_TEXT} tokens."  # which does not end there
    tokenizer = choose_tokenizer(kind, 320, documents)
    (end,) = tokenizer.end_ids
    assert tokenizer.vocab_size == end + 1 <= 320 and tokenizer.pieces[end] == END_OF_TEXT.encode()
    dataset, parts = data.Dataset(documents, tokenizer, 8), data.Parts(documents)
    for name, part in (("train", parts.train), ("val", parts.val)):
        ids = getattr(dataset, name)
        pieces = np.split(ids, np.flatnonzero(ids == end) + 1)
        assert len(pieces) == len(part.documents) + 1 and len(pieces[-1]) == 0
        for piece, document in zip(pieces, part.documents, strict=False):
            assert piece.tolist() == [*tokenizer.encode_documents([document])]
            assert tokenizer.decode(piece) == document
            assert tokenizer.decode(piece, show_end=True) == document + END_OF_TEXT
        assert dataset.bytes[name] == sum(len(document.encode()) for document in part.documents)
    assert data.checksum(documents) == dataset.sha256 != data.checksum(documents[::-1])
    assert data.checksum(["".join(documents)]) == data.sha256_of("".join(documents).encode())


def test_a_single_document_has_no_end():
    text = english()[:5000]
    for kind in ("char", "bpe"):
        tokenizer = choose_tokenizer(kind, 300, [text])
        assert tokenizer.end_ids == () and END_OF_TEXT.encode() not in tokenizer.pieces
        dataset, same = data.Dataset([text], tokenizer, 8), data.Dataset(text, tokenizer, 8)
        assert dataset.train.tolist() == same.train.tolist() == tokenizer.encode(text[:4500]).tolist()
        assert dataset.sha256 == data.sha256_of(text.encode()) and dataset.report == ""


def test_pairs_are_learnt_within_documents_of_the_part_to_train_on():
    documents = ["ab"] * 20 + ["zzzzzzzzzzzzzzzz"]
    train, val = data.split_documents(documents)
    learnt = BPETokenizer.learn(train, 300, end=True)
    assert choose_tokenizer("bpe", 300, documents).pieces == learnt.pieces
    assert b"ab" in learnt.pieces and b"abab" not in learnt.pieces
    with pytest.raises(UserError, match="vocab_size is 256; it must be at least 257, .* the end of a doc"):
        choose_tokenizer("bpe", 256, documents)


def test_many_documents_are_encoded_as_one_by_one():
    words = english().split()
    documents = [" ".join(words[i : i + 1 + i % 5]) for i in range(0, 3000, 3)] + ["", "中文", "\n"]
    for tokenizer in (BPETokenizer.learn(documents, 300, end=True), choose_tokenizer("char", 0, documents)):
        each = [[*tokenizer.encode(document), tokenizer.end_ids[0]] for document in documents]
        assert tokenizer.encode_documents(documents).tolist() == sum(each, [])
    without = BPETokenizer.learn(documents, 300)  # has no end token
    assert without.encode_documents(["ab", "c"]).tolist() == [*without.encode("ab"), *without.encode("c")]


def test_a_character_without_an_id_is_named_with_its_document():
    tokenizer = CharTokenizer("abc", end=True)
    with pytest.raises(UserError, match="'x' at position 1 is not .* of 3 characters; .* begins with 'bxa'"):
        tokenizer.encode_documents(["abc", "bxa", "c"])
