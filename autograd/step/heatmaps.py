"""Arrays as small matrices for a page: one list, in which equal arrays stand once."""

import base64
import math

import numpy as np

LARGEST = 64  # rows or columns: a larger matrix is shown as a thumbnail
THUMBNAIL = 32  # rows and columns, at most


class Heatmaps:
    """`list` is what a page gets, `number(array)` the place of an array in it."""

    def __init__(self):
        self.list, self._places = [], {}

    def number(self, array: np.ndarray | None) -> int | None:
        """Where the array stands in the list; it is added if it is new. None for None."""
        if array is None:
            return None
        key = (array.shape, array.dtype, array.tobytes())
        if key not in self._places:
            self._places[key] = len(self.list)
            self.list.append(packed(array))
        return self._places[key]


def packed(array: np.ndarray) -> dict:
    """An array as one matrix, packed: its first matrix if it has more, block means if that is large.

    The numbers are little-endian, row by row, in base64: f4 is float32; i2 are 16-bit integers, to be
    multiplied by `scale`, which keeps four digits of the largest. min, max and rms are of the whole array.
    """
    matrix, of = _one_matrix(array)
    thumbnail = max(matrix.shape) > LARGEST
    if thumbnail:
        matrix, blocks = _block_means(matrix)
        of = ", ".join(filter(None, [of, f"means of blocks of {blocks[0]} × {blocks[1]}"]))
    rows, columns = matrix.shape
    known = {"shape": list(array.shape), "rows": rows, "columns": columns, "thumbnail": thumbnail, "of": of}
    return known | _facts(array) | _numbers(matrix)


def _one_matrix(array):
    """(R, C) of any array, and words on which of its matrices it is."""
    if array.ndim < 2:
        return array.reshape(1, array.size), ""
    matrices = math.prod(array.shape[:-2])
    if matrices == 1 or array.size == 0:
        return array.reshape(-1, array.shape[-1]) if array.size else np.zeros((0, 0), array.dtype), ""
    return array[(0,) * (array.ndim - 2)], f"the first of {matrices} matrices"


def _block_means(matrix):
    """A matrix (R, C) of at most THUMBNAIL rows and columns, each the mean of a block; and the blocks' shape.

    The last block of a row or column may be smaller.
    """
    blocks = tuple(math.ceil(n / THUMBNAIL) for n in matrix.shape)
    sums, counts = matrix.astype(np.float64), np.ones(matrix.shape)
    with np.errstate(invalid="ignore"):  # of infinities
        for axis, block in enumerate(blocks):
            starts = np.arange(0, matrix.shape[axis], block)
            sums, counts = (np.add.reduceat(x, starts, axis) for x in (sums, counts))
    return sums / counts, blocks


def _facts(array):
    """Smallest, largest and root mean square. Of an empty array they are 0."""
    if array.size == 0:
        return {"min": 0.0, "max": 0.0, "rms": 0.0}
    x = array.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        facts = {"min": x.min(), "max": x.max(), "rms": np.sqrt((x * x).mean())}
    return {name: _json_number(value) for name, value in facts.items()}


def _json_number(value):
    """A number with seven digits. JSON has no NaN and infinity: they become text that Number() reads."""
    value = float(value)
    if math.isfinite(value):
        return float(f"{value:.7g}")
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _numbers(matrix):
    largest = float(np.abs(matrix).max(initial=0.0))
    if matrix.size <= 64 or not 1e-30 < largest < 1e30:
        with np.errstate(over="ignore"):
            return {"type": "f4", "data": _base64(matrix.astype("<f4"))}
    scale = largest / 32767
    return {"type": "i2", "scale": scale, "data": _base64(np.rint(matrix / scale).astype("<i2"))}


def _base64(array):
    return base64.b64encode(array.tobytes()).decode()
