"""Random numbers without hidden state: a seed and a place give the same bits on every device.

The generator is Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), which
NumPy provides: it scrambles a counter with a key. So what sequence 17 of step 3 draws does not depend on how
the batch is divided or on which thread works on it, and a resumed run needs no saved random state.
"""

from __future__ import annotations

import math
import numbers
import operator
from dataclasses import dataclass, fields, replace

import numpy as np

BYTES_PER_BLOCK = 32  # Philox4x64 turns one counter into four 64-bit words


def check_dropout_rate(p: float) -> None:
    """Raise ValueError unless p is a probability that dropout can work with.

    Dropout spends one random byte per element, so p is rounded to a multiple of 1/256. A p that would become
    0 or 1, and is neither, is refused: nothing would be dropped, or nothing kept.
    """
    is_number = isinstance(p, numbers.Real) and not isinstance(p, bool)
    if not is_number or not 0 <= p <= 1:
        raise ValueError(f"dropout's p is {p!r}; it must be a number from 0 to 1")
    if p not in (0, 1) and round(p * 256) in (0, 256):
        raise ValueError(
            f"dropout's p is {p}; it is rounded to a multiple of 1/256, so it must be 0, 1, or above 1/512 "
            "and below 511/512"
        )


def check_stream(stream: Stream) -> None:
    """Raise TypeError unless it is a Stream."""
    if not isinstance(stream, Stream):
        raise TypeError(f"dropout draws from a Stream, such as Stream(seed=0, step=7), not from {stream!r}")


def check_dropout(p: float, stream: Stream | None) -> None:
    """As check_dropout_rate; and as check_stream, if there is something to draw."""
    check_dropout_rate(p)
    if p:
        check_stream(stream)


@dataclass(frozen=True)
class Stream:
    """A place in the random space.

    seed and step name the run and the moment. site, below 65,536, keeps the users within a step apart: each
    dropout layer has one of its own. row is the number of the first row (a sequence of the batch) that the
    next draw belongs to.
    """

    seed: int
    step: int = 0
    site: int = 0
    row: int = 0

    def __post_init__(self):
        for field in fields(self):  # NumPy's integers become Python's, which neither overflow nor promote
            object.__setattr__(self, field.name, operator.index(getattr(self, field.name)))

    def at(self, **place: int) -> Stream:
        """The same stream at another step, site or row."""
        return replace(self, **place)

    def random_bytes(self, rows: int, per_row: int) -> np.ndarray:
        """uint8 (rows, per_row).

        Every row starts a new block, so it does not depend on the rows drawn with it.
        """
        blocks = -(-per_row // BYTES_PER_BLOCK)
        generator = self._generator(self.row * blocks)
        words = generator.integers(2**64 - 1, size=(rows, 4 * blocks), dtype=np.uint64, endpoint=True)
        return words.astype("<u8", copy=False).view(np.uint8)[:, :per_row]

    def keep_mask(self, shape: tuple[int, ...], p: float) -> tuple[np.ndarray, float]:
        """What dropout multiplies by: a boolean array, False with probability p, and 1 / (1 - p).

        shape[0] counts rows; () is one row. p is rounded to a multiple of 1/256: each element takes one
        random byte. Raises ValueError as check_dropout_rate does.
        """
        dropped = self.drop_threshold(p)
        draw = self.random_bytes(math.prod(shape[:1]), math.prod(shape[1:]))
        return (draw >= dropped).reshape(shape), self.keep_scale(dropped)

    @staticmethod
    def drop_threshold(p: float) -> int:
        """Random bytes below this number, from 0 to 256, mean: drop."""
        check_dropout_rate(p)
        return round(p * 256)

    @staticmethod
    def keep_scale(dropped: int) -> float:
        """1 / (1 - p) for the threshold of p; 1 if everything is dropped, since nothing is left to scale."""
        return 256 / (256 - dropped) if dropped < 256 else 1.0

    def integers(self, rows: int, high: int) -> np.ndarray:
        """int64 (rows), uniform in [0, high)."""
        words = self.random_bytes(rows, 8).copy().view("<u8")[:, 0]  # (rows, 8) bytes -> (rows) words
        return (words % np.uint64(high)).astype(np.int64)

    def uniform(self, rows: int) -> np.ndarray:
        """float64 (rows), uniform in [0, 1)."""
        words = self.random_bytes(rows, 8).copy().view("<u8")[:, 0]
        return (words >> np.uint64(11)) * 2.0**-53

    def normal(self, shape: tuple[int, ...], std: float) -> np.ndarray:
        """float32 of any shape, normal with mean 0, for initial weights."""
        return self._generator(0).standard_normal(shape, dtype=np.float32) * np.float32(std)

    def symmetric(self, shape: tuple[int, ...], limit: float) -> np.ndarray:
        """float32 of any shape, uniform between -limit and limit, for initial weights."""
        return (2 * self._generator(0).random(shape, dtype=np.float32) - 1) * np.float32(limit)

    def key(self) -> tuple[int, int]:
        """The two 64-bit words that the generator is keyed with."""
        return self.seed % 2**64, (self.step * 2**16 + self.site) % 2**64

    def _generator(self, counter):
        return np.random.Generator(np.random.Philox(key=np.array(self.key(), np.uint64), counter=counter))
