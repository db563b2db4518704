"""Small texts written for these tests."""

import itertools

WHO = ["The miller", "A quiet fox", "My neighbour", "The old clock", "Nobody", "Every child"]
WHO += ["The ferry", "Her brother"]
DOES = ["counts", "forgets", "follows", "paints", "carries", "breaks", "remembers", "hides"]
WHAT = ["the river", "a red kite", "seven apples", "the last letter", "his own shadow"]
WHAT += ["the garden gate", "an echo"]
WHEN = ["at noon", "before the rain", "in winter", "without a word", "again and again", "on the way home"]


def english():
    """2,688 different sentences in a fixed, mixed order: about 120,000 characters."""
    sentences = [f"{a} {b} {c} {d}." for a, b, c, d in itertools.product(WHO, DOES, WHAT, WHEN)]
    mixed = [sentences[(i * 1009) % len(sentences)] for i in range(len(sentences))]
    return "\n".join(mixed) + "\n"


CHINESE = (
    "山上有一座小屋，屋里住着一位老人。老人每天早晨去河边打水，晚上点灯读书。\n风来了，雨来了，他都不怕。\n"
)
MIXED = CHINESE * 60 + english()[:20_000]
