"""Counter-based random numbers: the same bits for the same place, however they are drawn."""

import numpy as np

from autograd import Stream

MASK = 2**64 - 1


def philox4x64(counter, key):
    """Ten rounds of Philox4x64 with Python's integers, as published. The CUDA kernels do the same."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c[0], 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * c[2], 2**64)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


def test_bytes_are_philox():
    """Block b of a row is the cipher of counter row * blocks + b + 1 (NumPy counts up before it draws)."""
    stream = Stream(seed=12345, step=7, site=3, row=2)
    drawn = stream.random_bytes(2, 64)
    key = (12345, 7 * 2**16 + 3)
    for row in range(2):
        words = [w for block in range(2) for w in philox4x64(((2 + row) * 2 + block + 1, 0, 0, 0), key)]
        assert drawn[row].tobytes() == np.array(words, "<u8").tobytes()


def test_rows_do_not_depend_on_how_they_are_drawn():
    stream = Stream(1, step=2, site=3)
    whole = stream.keep_mask((6, 5, 7), 0.3)[0]
    for cut in (1, 2, 4):
        parts = [
            stream.at(row=start).keep_mask((min(cut, 6 - start), 5, 7), 0.3)[0] for start in range(0, 6, cut)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_every_coordinate_matters():
    places = [Stream(1), Stream(2), Stream(1, step=1), Stream(1, site=1), Stream(1, row=1), Stream(-1)]
    draws = {place.random_bytes(1, 64).tobytes() for place in places}
    assert len(draws) == len(places)
    assert Stream(1).random_bytes(1, 64).tobytes() in draws


def test_distributions():
    stream = Stream(0)
    uniform, integers = stream.uniform(100_000), stream.integers(100_000, 10)
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.005
    assert np.abs(np.bincount(integers, minlength=10) / 10_000 - 1).max() < 0.05
    normal = stream.normal((100_000,), 0.02)
    assert normal.dtype == np.float32 and abs(normal.std() - 0.02) < 2e-4 and abs(normal.mean()) < 2e-4


def test_keep_probability_and_scale():
    for p in (0.0, 0.1, 0.2, 0.5, 0.99):
        keep, scale = Stream(4).keep_mask((100, 1000), p)
        assert abs(keep.mean() - (1 - p)) < 0.008
        assert abs(keep.mean() * scale - 1) < (0.01 if p < 0.9 else 0.2)
