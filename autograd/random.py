"""Random numbers without hidden state: a seed and a place always give the same bits, on any device, in any
order.

The generator is Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), which
NumPy provides: a keyed scrambling of a counter. So what sequence 17 of step 3 gets does not depend on how the
batch is cut up or on which thread works on it, and a resumed run needs no saved random state.
"""

from dataclasses import dataclass, replace

import numpy as np

BYTES_PER_BLOCK = 32  # Philox4x64 turns one counter into four 64-bit words


@dataclass(frozen=True)
class Stream:
    """A place in the random space.

    seed and step name the run and the moment; site tells the users within a step apart (one per dropout layer
    and so on, below 65,536); row is the number of the first row (a sequence of the batch) that the next draw
    belongs to.
    """

    seed: int
    step: int = 0
    site: int = 0
    row: int = 0

    def at(self, **place):
        """The same stream at another step, site or row."""
        return replace(self, **place)

    def random_bytes(self, rows, per_row):
        """uint8 (rows, per_row).

        Every row starts a new block, so it does not depend on the rows drawn with it.
        """
        blocks = -(-per_row // BYTES_PER_BLOCK)
        words = self._generator(self.row * blocks).integers(
            2**64 - 1, size=(rows, 4 * blocks), dtype=np.uint64, endpoint=True
        )
        return words.astype("<u8", copy=False).view(np.uint8)[:, :per_row]

    def keep_mask(self, shape, p):
        """A boolean array, False with probability p, and the factor 1 / (probability of True) that dropout
        scales by.

        shape[0] counts rows. p is rounded to a multiple of 1/256 below 1, because one random byte per element
        is enough.
        """
        dropped = self.drop_threshold(p)
        draw = self.random_bytes(shape[0], int(np.prod(shape[1:], dtype=int)))
        return (draw >= dropped).reshape(shape), 256 / (256 - dropped)

    @staticmethod
    def drop_threshold(p):
        """Random bytes below this number mean: drop."""
        return min(round(p * 256), 255)

    def integers(self, rows, high):
        """int64 (rows), uniform in [0, high)."""
        words = self.random_bytes(rows, 8).copy().view("<u8")[:, 0]  # (rows, 8) bytes -> (rows) words
        return (words % high).astype(np.int64)

    def uniform(self, rows):
        """float64 (rows), uniform in [0, 1)."""
        words = self.random_bytes(rows, 8).copy().view("<u8")[:, 0]
        return (words >> np.uint64(11)) * 2.0**-53

    def normal(self, shape, std):
        """float32 of any shape, normal with mean 0, for initial weights."""
        return self._generator(0).standard_normal(shape, dtype=np.float32) * np.float32(std)

    def key(self):
        """The two 64-bit words that the generator is keyed with."""
        return self.seed % 2**64, (self.step * 2**16 + self.site) % 2**64

    def _generator(self, counter):
        return np.random.Generator(np.random.Philox(key=np.array(self.key(), np.uint64), counter=counter))
