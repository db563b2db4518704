"""Random numbers without hidden state: a seed and a place give the same bits on every device.

The generator is Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), which
NumPy provides: it scrambles a counter with a key. So what sequence 17 of step 3 draws does not depend on how
the batch is divided or on which thread works on it, and a resumed run needs no saved random state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

BYTES_PER_BLOCK = 32  # Philox4x64 turns one counter into four 64-bit words


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

        shape[0] counts rows. p is rounded to a multiple of 1/256 below 1: each element takes one random byte.
        """
        dropped = self.drop_threshold(p)
        draw = self.random_bytes(shape[0], int(np.prod(shape[1:], dtype=int)))
        return (draw >= dropped).reshape(shape), 256 / (256 - dropped)

    @staticmethod
    def drop_threshold(p: float) -> int:
        """Random bytes below this number mean: drop."""
        return min(round(p * 256), 255)

    def integers(self, rows: int, high: int) -> np.ndarray:
        """int64 (rows), uniform in [0, high)."""
        words = self.random_bytes(rows, 8).copy().view("<u8")[:, 0]  # (rows, 8) bytes -> (rows) words
        return (words % high).astype(np.int64)

    def uniform(self, rows: int) -> np.ndarray:
        """float64 (rows), uniform in [0, 1)."""
        words = self.random_bytes(rows, 8).copy().view("<u8")[:, 0]
        return (words >> np.uint64(11)) * 2.0**-53

    def normal(self, shape: tuple[int, ...], std: float) -> np.ndarray:
        """float32 of any shape, normal with mean 0, for initial weights."""
        return self._generator(0).standard_normal(shape, dtype=np.float32) * np.float32(std)

    def key(self) -> tuple[int, int]:
        """The two 64-bit words that the generator is keyed with."""
        return self.seed % 2**64, (self.step * 2**16 + self.site) % 2**64

    def _generator(self, counter):
        return np.random.Generator(np.random.Philox(key=np.array(self.key(), np.uint64), counter=counter))
