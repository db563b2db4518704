# %% [markdown]
# # 10. Bytes to tokens
#
# The GPT of notebook 7 read characters. GPT-2 reads **tokens**: pieces of words, found in a text by counting. Who cuts the
# text decides how long it is for the model, how many rows its tables have, and what its loss means. The method fits on one
# page. It is called **byte-pair encoding**, and it began as a way to make files smaller.
#
# **You will write** the counting of pairs (5 lines), a merge (9), the learning of a vocabulary (9), the way from bytes to
# tokens (6) and back (4), and a measure that compares models with different tokens (1). **You need** notebook 4.
# About 60 minutes.

# %%
import itertools
from collections import Counter

import numpy as np

from tinygpt.config import UserError
from tinygpt.text.bpe import split_words
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer
from workbook import corpus, tokens
from workbook.tokens import (
    bigram_surprises,
    check,
    encode_all,
    encode_words,
    longest_first,
    pieces_of,
    plot_bytes,
    plot_cuts,
    plot_merging,
    plot_sizes,
    plot_tree,
    plot_two_losses,
    word_ids,
)

# %% tags=["corpus"]
name, text = corpus.load()
cut = int(0.9 * len(text))
train, validation = text[:cut], text[cut:]

# %% [markdown]
# ## A character that was never seen
#
# Notebook 7's vocabulary had a row for each character of its text. What does it do with another one?

# %%
characters = CharTokenizer("To be, or not to be: that is the question.")
try:
    characters.encode("To bé")
except UserError as error:
    print(error)

# %% [markdown]
# It has no number for it. One row for each of the 150,000 characters of the world's scripts would help, but most of those
# rows would never learn anything. So go one level down. A computer keeps every text as **bytes**, numbers from 0 to 255, and
# the usual way to do this is called UTF-8. With 256 rows, any text of any language has a number for everything.
#
# **Predict.** How many bytes has each of these characters?

# %%
for character in "a", "é", "€", "你", "🙂":
    print(character, list(character.encode()))

# %%
plot_bytes("Aé€!")

# %% [markdown]
# The red bits say what kind of byte it is. A 0 in front: a character by itself, as in ASCII. 110, 1110 or 11110: the
# first of 2, 3 or 4 bytes. 10: a byte in the middle. So a reader that starts anywhere can find the next character.
#
# There is a price. A Chinese text now has three bytes for each character, and an English word of six letters is six steps
# for the model. Attention compares every step with every earlier one. Can we have shorter sequences, and still a number for
# everything?
#
# ## What often stands together
#
# *th*, *he*, *in*: some pairs of bytes come again and again. Give the most frequent pair a number of its own, 256, the
# first one after the bytes. Then the next pair, and so on. That is all.
#
# Words repeat in a text, so we keep each different word once, with the number of times that it occurs:
# `{ids: how often}`. The ids are a tuple, because a list cannot be a key.

# %%
print(word_ids("to be or not to be"))

# %% [markdown]
# Note that each word keeps the blank before it. Byte 32 is the blank.
#
# ### Exercise 1: count the pairs
#
# **Predict.** How often does the pair (97, 97) stand in (97, 97, 97, 97)?


# %%
def count_pairs(words):
    """{(a, b): how often b stands right after a}, for words {ids: how often}."""
    # BEGIN SOLUTION
    counts = Counter()
    for ids, n in words.items():
        for pair in zip(ids, ids[1:]):
            counts[pair] += n
    return counts
    # END SOLUTION


count_pairs = check(count_pairs)

# %% [markdown]
# <details><summary>Hint 1</summary><code>zip(ids, ids[1:])</code> gives the pairs of a word, one after the other.</details>
# <details><summary>Hint 2</summary>A <code>Counter()</code> begins with 0 for everything, so you can add to what is not there
# yet.</details>
# <details><summary>Hint 3</summary>A word that occurs n times adds n for each of its pairs:
# <code>counts[pair] += n</code>.</details>
# <details><summary>And the prediction?</summary>Three times. The places overlap. A merge can use only two of them, but
# it is the custom to count all three.</details>

# %% tags=["corpus"]
counts = count_pairs(word_ids(train))
for a, b in sorted(counts, key=counts.get)[-8:]:
    print(f"{bytes([a, b])!r}  {counts[a, b]:,} times")

# %% [markdown]
# ## Two become one
#
# ### Exercise 2: a merge
#
# Go through the ids from left to right. Where `pair` stands, write `new`; otherwise keep what is there.
#
# **Predict.** What becomes of 97 97 97 if (97, 97) is made 256?


# %%
def merge(ids, pair, new):
    """A list of the ids, in which each pair, from left to right, has become the id `new`."""
    # BEGIN SOLUTION
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged
    # END SOLUTION


merge = check(merge)

# %% [markdown]
# <details><summary>Hint 1</summary>A <code>while</code> loop with a place <code>i</code>, and an empty list to which you
# append.</details>
# <details><summary>Hint 2</summary><code>tuple(ids[i : i + 2]) == pair</code> is safe at the end, where only one id is
# left.</details>
# <details><summary>Hint 3</summary>After a pair go on by two places, otherwise by one.</details>
# <details><summary>And the prediction?</summary>256 97: the left two are taken first, and the third is left over.</details>

# %%
ids = list(b"the hat that sat")
print(ids)
print(merge(ids, tuple(b"at"), 256))

# %% [markdown]
# ## Learn a vocabulary
#
# Count, merge the most frequent pair in all words, count again. Each merge adds one token to the vocabulary. New tokens can
# be parts of later pairs: so *th* and *e* become *the*.
#
# Two rules make the result the same everywhere. Of equally frequent pairs, take the one with the smallest ids (first
# compare the first id, then the second). And stop when the best pair occurs fewer than 2 times: it would save nothing.
#
# ### Exercise 3: learn


# %%
def learn(words, n_merges):
    """{pair: new id} in the order of learning, at most n_merges; new ids 256, 257, ..."""
    # BEGIN SOLUTION
    merges = {}
    for new in range(256, 256 + n_merges):
        counts = count_pairs(words)
        best = max(counts, key=lambda pair: (counts[pair], -pair[0], -pair[1]), default=None)
        if best is None or counts[best] < 2:
            break
        words = {tuple(merge(ids, best, new)): n for ids, n in words.items()}
        merges[best] = new
    return merges
    # END SOLUTION


learn = check(learn)

# %% [markdown]
# <details><summary>Hint 1</summary>A loop over the new ids: <code>for new in range(256, 256 + n_merges)</code>. Inside: count,
# choose, merge, note.</details>
# <details><summary>Hint 2</summary><code>max(counts, key=...)</code> with the key <code>(counts[pair], -pair[0],
# -pair[1])</code>: first how often, then the smaller ids. If each word is one token, there are no pairs left, and
# <code>max</code> needs a <code>default</code>.</details>
# <details><summary>Hint 3</summary>All words, merged: <code>words = {tuple(merge(ids, best, new)): n for ids, n in
# words.items()}</code>. A new dictionary, so that the one you were given stays as it is.</details>
#
# Here is one small text as a single "word". Each row is a merge; the newest token is red.

# %%
line = "the hat that the bat sat at is the hat that the rat ate"
plot_merging(line, learn({tuple(line.encode()): 1}, 12))

# %% [markdown]
# The first merges save most: *at* stands in so many places. Each later one saves less. And look at what it makes in the end:
# tokens such as *hat that the*. Nobody will ever need this one again.
#
# ## Why no token goes over the end of a word
#
# Left alone, learning glues words together by accident, and glues signs to words: *dog*, *dog.*, *dog!* and *dog,* would be
# four tokens that know nothing of each other. So GPT-2 first cuts the text into words, by a fixed rule, and merges only
# inside of them. In plain words:
#
# - a word is a run of letters, or of digits, or of other signs, never mixed;
# - one blank before it belongs to it, so that a text in English needs no tokens for blanks;
# - endings such as *'s* and *'ll* are words of their own;
# - what is left are runs of white space.
#
# **Predict** where this one is cut.

# %%
print(list(split_words("It's 3 o'clock, isn't it?\n\n  We'll see.")))

# %% [markdown]
# Nothing is lost: joined, the words are the text. Now learn from a real text. Your own code learns from its first 50,000
# characters here. The library does exactly the same, with arrays, so it can have all of them.

# %% tags=["corpus"]
start = word_ids(train[:50_000])
mine = learn(start, 120)
print("the same merges as the library:", mine == tokens.learn(start, 120))
print(*(tokens.visible(pieces_of(mine)[new]) for new in mine.values()))

# %% tags=["corpus"]
all_merges = tokens.learn(word_ids(train), 8192 - 256)
first_merges = lambda size: dict(itertools.islice(all_merges.items(), size - 256))
thousand = first_merges(1024)
pieces = pieces_of(thousand)
print("the longest of", len(pieces), "tokens:", sorted(pieces.values(), key=len)[-12:])

# %% [markdown]
# A vocabulary of 1,024 tokens is the beginning of one of 8,192: learn once, cut off where you like. Each token has a
# family tree of merges. Read these from below:

# %% tags=["corpus"]
family = [max((i for i in pieces if len(pieces[i]) == n), default=97) for n in (5, 7, 8)]
plot_tree(family, thousand)

# %% [markdown]
# Long tokens have parts that are tokens, too, some of them with no use but this one. They stay in the vocabulary.
#
# ## From a text to tokens
#
# Now there is a new text. Which tokens is it? There are many ways to cut a word into tokens of the vocabulary. The rule: do
# what learning would have done. Of all pairs in the word that have a merge, merge the one that was learnt **first** (the
# smallest new id), and repeat until no pair has a merge.
#
# ### Exercise 4: encode
#
# **Predict.** Why not simply take the longest token that fits, from the left?


# %%
def encode(ids, merges):
    """The tokens, as a list, of a word given as bytes (a list of ids); merges {pair: new id}."""
    # BEGIN SOLUTION
    while True:
        known = [pair for pair in zip(ids, ids[1:]) if pair in merges]
        if not known:
            return list(ids)
        first = min(known, key=merges.get)
        ids = merge(ids, first, merges[first])
    # END SOLUTION


encode = check(encode)

# %% [markdown]
# <details><summary>Hint 1</summary>In each round, list the pairs of the word that are in <code>merges</code>.</details>
# <details><summary>Hint 2</summary>The one that was learnt first: <code>min(known, key=merges.get)</code>.</details>
# <details><summary>Hint 3</summary><code>ids = merge(ids, first, merges[first])</code>; return when the list of known pairs is
# empty.</details>

# %% tags=["corpus"]
ways = {
    "in order of learning": lambda ids: encode(ids, thousand),
    "longest first": longest_first(thousand),
}
cuts = lambda word: {what: way(list(word.encode())) for what, way in ways.items()}
words = sorted(set(split_words(validation)))
differ = [word for word in words if len(set(map(tuple, cuts(word).values()))) > 1]
print(f"{len(differ):,} of {len(words):,} different words are cut in two ways")
word = next((word for word in (" master", " every") if word in differ), differ[0])
plot_cuts({what: [pieces[i] for i in ids] for what, ids in cuts(word).items()})

# %% [markdown]
# Both ways spell the same word, and neither is always shorter. But the model has only ever *read* the first. It knows what
# comes after those tokens. Cut in another way, the text is full of neighbours that it has never seen together. You will
# measure that below.
#
# ## And back
#
# Each id stands for some bytes: a byte for itself, a merged token for the bytes of its two parts, one after the other.
# Join all bytes, and read them as UTF-8.
#
# **Predict.** Is every token a piece of text?

# %%
chinese = """我们读文字，模型也读文字。我们一次读一个字，模型一次读一个词元。
词元可以是一个字，可以是两个字，也可以是半个字。常见的字合在一起，少见的字分成字节。
文字变成字节，字节变成词元，词元变成数字。模型只读数字。
数字变成词元，词元变成字节，字节变成文字。一个字也不少。
"""
chinese_merges = learn(word_ids(chinese), 40)
learnt = [tokens.visible(piece) for piece in pieces_of(chinese_merges).values()][256:]
for start in range(0, 40, 8):
    print(*learnt[start : start + 8], sep=" | ")

# %% [markdown]
# Some are characters, some are words (词元 means token). Others, shown in hexadecimal, are two of the three bytes of a
# character: the first two are often shared by many. Some even hold the end of one character and the beginning of the next.
# Such a token alone is no text at all. If a model stops in the middle of a character, there is no third
# byte. `errors="replace"` then writes the sign � in its place; without it, Python would raise an error.
#
# ### Exercise 5: decode


# %%
def decode(ids, merges):
    """The text of some ids; merges {pair: new id} in the order of learning."""
    # BEGIN SOLUTION
    pieces = {i: bytes([i]) for i in range(256)}
    for (a, b), new in merges.items():
        pieces[new] = pieces[a] + pieces[b]
    return b"".join(pieces[i] for i in ids).decode("utf-8", errors="replace")
    # END SOLUTION


decode = check(decode)

# %% [markdown]
# <details><summary>Hint 1</summary>A dictionary with the bytes of each id. The first 256: <code>{i: bytes([i]) for i in
# range(256)}</code>.</details>
# <details><summary>Hint 2</summary>Then go through the merges in order: the bytes of <code>new</code> are those of a, then
# those of b.</details>
# <details><summary>Hint 3</summary>First join, then decode once: <code>b"".join(pieces[i] for i in ids).decode("utf-8",
# errors="replace")</code>.</details>

# %%
ids = list(encode_words(chinese, lambda word: encode(word, chinese_merges)))
print(f"{len(chinese)} characters, {len(chinese.encode())} bytes, {len(ids)} tokens")
print("and back again:", decode(ids, chinese_merges) == chinese)
print("each token by itself:", "".join(decode([i], chinese_merges) for i in ids)[:33])

# %% [markdown]
# The last line is what you get if you print a model's tokens one by one, as they come. A chat program must wait until
# a character is whole.
#
# ## How many tokens?
#
# The size of the vocabulary is yours to choose. A larger one makes the text shorter, so the same window of the model
# holds more of it. But each token needs a row of $C$ numbers in the model's table, and the last tokens are rare.
#
# **Predict.** From 256 to 512 tokens the text shrinks to about a half. How many tokens are needed to halve it again?

# %% tags=["corpus"]
sizes = [256, 512, 1024, 2048, 4096, 8192]
# encode_all gives what your encode gives, by the library, for all words at once
read = {size: encode_all(train, first_merges(size)) for size in sizes}
bytes_per_token = [len(train.encode()) / len(read[size]) for size in sizes]
often = {size: np.bincount(read[size], minlength=size)[256:] for size in sizes}
rare = [np.mean(often[size] < 20) if size > 256 else 0.0 for size in sizes]
C, L = 128, 3  # notebook 7's model; a block has 12 C² weights
for size, length in zip(sizes, bytes_per_token):
    print(f"{size:5,} tokens: {length:.2f} bytes each")
plot_sizes(sizes, bytes_per_token, rare, C, 12 * L * C**2)

# %% [markdown]
# The gain flattens out, since a text has few frequent words and many rare ones. Halving the text again takes
# more than 8,192 tokens. The cost grows along a straight line. (The sizes double from point to point, so here it looks
# curved.) With 8,192 tokens the table alone would be larger than all three
# blocks of notebook 7's model. And most of its last rows would be seen a few times in all. They stay close to the random
# numbers that they began with. GPT-2 had 40 gigabytes of text for its 50,257
# tokens.
#
# ## Which model is better?
#
# Two models, two vocabularies. One has a loss of 2.5 per token, the other 4.1. Which one has understood more? You cannot
# know from this! A token of the second stands for more text, so there is more in it to be surprised at. To make it fair,
# add up the surprises over the *same text*, and divide by something that does not depend on the tokenizer: the bytes. By
# habit this is given in bits, where one bit is $\ln 2$ nats:
#
# $$\text{bits per byte} = \frac{\sum_i -\ln p_i}{\ln 2 \cdot \text{number of bytes}}$$
#
# ### Exercise 6: bits per byte


# %%
def bits_per_byte(surprises, text):
    """From the surprise of each token in nats, an array; together the tokens are the text."""
    # BEGIN SOLUTION
    return surprises.sum() / np.log(2) / len(text.encode())
    # END SOLUTION


bits_per_byte = check(bits_per_byte)

# %% [markdown]
# <details><summary>Hint 1</summary>The sum, not the mean: how many tokens there are must not matter.</details>
# <details><summary>Hint 2</summary>The bytes of a text: <code>len(text.encode())</code>. <code>len(text)</code> counts
# characters.</details>
# <details><summary>Hint 3</summary>From nats to bits: divide by <code>np.log(2)</code>.</details>
#
# Let us try it. For each size, take notebook 4's bigram, made by counting pairs (of tokens now). It has read the training
# text, and is measured on the rest.
#
# **Predict** both curves: the loss per token, and the bits per byte.

# %% tags=["corpus"]
surprises = {}
for size in sizes:
    unseen = encode_all(validation, first_merges(size))
    surprises[size] = bigram_surprises(read[size], unseen, size)
per_token = [surprises[size].mean() for size in sizes]
per_byte = [bits_per_byte(surprises[size], validation) for size in sizes]
for size, loss, bits in zip(sizes, per_token, per_byte):
    print(f"{size:5,} tokens: {loss:.2f} nats per token, {bits:.2f} bits per byte")
plot_two_losses(sizes, per_token, per_byte)

# %% [markdown]
# The same models! On the left each one looks worse than the one before. On the right you see the truth: with longer
# tokens a bigram remembers more, until its pairs become too rare to be counted. Never compare losses per token
# between tokenizers.
#
# On the unseen part of Shakespeare, notebook 7's GPT had 1.74 nats per character. There a character is one byte, so that is
# $1.74 / \ln 2 = 2.51$ bits per byte. It reads single characters, and yet it beats all of these.
#
# ## Tokens that are not text
#
# A model reads many documents, one after the other. It needs a sign where one ends. GPT-2 calls it `<|endoftext|>`: one
# more id, at the end of the vocabulary, which no merge makes. It has a name, but the name is only for people.
#
# **Predict.** A document contains the 13 characters `<|endoftext|>`. Should they become the end token?

# %%
tokenizer = BPETokenizer.learn([line, chinese], 300, end=True)
document = "the hat<|endoftext|>"
print("the end token:      ", *tokenizer.end_ids)
print("two documents:      ", *tokenizer.encode_documents(["the hat", "the rat"]))
print("with the name in it:", *tokenizer.encode_documents([document]))
print("as a prompt:        ", *tokenizer.encode(document))

# %% [markdown]
# In a document it stays text, in pieces, and the end token comes only where the document really ends. Otherwise anyone who
# can write a web page could end it for the model, and begin another that looks like a command. In a prompt it *is* the
# token, since there the user may want just that. Such a token is a switch, not a word: put ids where you mean ids, and never
# build them by gluing texts of others together.
#
# ## Break it and watch
#
# **First: another way to cut.** The bigram below has read tokens in the order of learning. Then it is asked to read the
# same unseen text, cut longest first, or not merged at all. **Predict** its bits per byte.

# %% tags=["corpus"]
spellings = {what: encode_words(validation, way) for what, way in ways.items()}
spellings["only bytes"] = encode_words(validation, list)
for what, ids in spellings.items():
    bits = bits_per_byte(bigram_surprises(read[1024], ids, 1024), validation)
    print(f"{what:21}{len(ids):7,} tokens, {bits:5.2f} bits per byte", end="; ")
    print("the same text:", decode(ids, thousand) == validation)
merged = spellings["in order of learning"]
print("yours are the library's ids:", np.array_equal(merged, encode_all(validation, thousand)))

# %% [markdown]
# All three are the same text. Longest first even takes a few tokens less. But the model has learnt another spelling, and is
# surprised all the time. With bytes only it does worse than guessing, which costs 8 bits a byte. Whoever trains with one tokenizer and samples with another, or only with its merges in another order, gets such a
# loss and no error message.
#
# **Second: no words.** Learn from the whole text as one long word. The tokens may go anywhere.

# %% tags=["corpus"]
one_word = lambda text: [text]
free = tokens.learn({tuple(train.encode()): 1}, 1024 - 256)
print("the longest tokens:", sorted(pieces_of(free).values(), key=len)[-6:])
with_the = [piece for piece in pieces_of(free).values() if b"the" in piece]
print("tokens with `the` in them:", len(with_the), "as", with_the[:8])
a, b = encode_all(train, free, one_word), encode_all(validation, free, one_word)
bits = bits_per_byte(bigram_surprises(a, b, 1024), validation)
print(f"without words {len(b):,} tokens, {bits:.2f} bits per byte")
print(f"with words    {len(merged):,} tokens, {per_byte[sizes.index(1024)]:.2f} bits per byte")

# %% [markdown]
# Fewer tokens, as you would expect if merges may go anywhere. But the same word now comes in many forms, with a blank before
# it, behind it, on both sides, and the model has to learn each of them by itself. Shorter is not better.
#
# **Third: a language that it has never seen.** The vocabulary of the Shakespeare meets Chinese, and the other way round.

# %% tags=["corpus"]
texts = {"Shakespeare": validation[:2000], "Chinese": chinese}
vocabularies = {"Shakespeare": thousand, "Chinese": chinese_merges}
for (what, given), (source, merges) in itertools.product(texts.items(), vocabularies.items()):
    length = len(given) / len(encode_all(given, merges))
    print(f"{what}, with merges learnt from {source}: {length:.2f} characters a token")

# %% [markdown]
# Nothing fails, since there are bytes for everything. But a reader of Chinese pays about three tokens for each character,
# in time and in money, if the vocabulary was learnt from English.
#
# ## In the library
#
# [`tinygpt/text/bpe.py`](../tinygpt/text/bpe.py) has `learn` and `apply`. They do what you wrote, for all words at once:
# a pair is merged at all its places by a few operations on arrays. A heap keeps the most frequent pair on top, so that not
# everything is counted again after each merge. [`tinygpt/text/tokenizer.py`](../tinygpt/text/tokenizer.py) puts the end token and the decoding around it. It numbers
# the bytes as GPT-2 does, which begins with `!` and puts the blank at 220. So its ids for bytes are others than yours; they
# are names and no more. Given its numbers, does your code give its ids?


# %% tags=["corpus"]
def with_its_numbers(library, text):
    """What your `encode` makes of a text with a library tokenizer's merges and its ids of bytes."""
    number = {piece: i for i, piece in enumerate(library.pieces)}
    merges = {pair: 256 + rank for rank, pair in enumerate(library.merges)}
    return encode_words(text, lambda w: encode([number[bytes([b])] for b in w], merges))


for what, given in ("Shakespeare", train[:30_000]), ("Chinese", chinese):
    library = BPETokenizer.learn(given, 512)
    ids = library.encode(given)
    print(f"{what}: {len(ids):,} tokens;", end=" ")
    print("the same ids:", np.array_equal(with_its_numbers(library, given), ids), end="; ")
    print("and back again:", library.decode(ids) == given)

# %% [markdown]
# `python train.py --tokenizer bpe --vocab-size 1024` trains a GPT on such tokens, and reports bits per byte.
#
# ## What you have now
#
# - A tokenizer that you wrote yourself: learnt by counting, applied in the order of learning, exact for any text.
# - A token is a piece of bytes. It need not be a word, nor even a character.
# - More tokens: shorter texts, larger tables, rarer rows. Losses per token compare nothing; bits per byte do.
# - Special tokens are ids, not text.
#
# Next: [11. From slow to fast](11_from_slow_to_fast.ipynb).
