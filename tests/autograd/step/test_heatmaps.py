"""How arrays are packed for a page: nothing is lost that a reader could see."""

import json

import numpy as np
import pytest

from autograd import step_through
from autograd.step.heatmaps import Heatmaps, packed
from tests.autograd.step.films import unpacked
from tests.autograd.step.losses import leaf
from tinygpt import stepping


@pytest.mark.parametrize("shape", [(), (3,), (5, 3), (64, 64), (2, 3, 7, 9), (1, 1, 70), (200,), (65, 3)])
def test_a_matrix_comes_back_with_four_digits(shape):
    array = np.random.default_rng(0).standard_normal(shape) * 1e3
    found = packed(array)
    matrix = array.reshape(1, -1) if array.ndim < 2 else array[(0,) * (array.ndim - 2)]
    if max(matrix.shape) <= 64:
        np.testing.assert_allclose(unpacked(found), matrix, rtol=0, atol=5e-5 * np.abs(matrix).max())
        assert not found["thumbnail"]
    assert found["shape"] == list(shape) and found["rows"] <= 64 and found["columns"] <= 64
    np.testing.assert_allclose(found["rms"], np.sqrt((array**2).mean()), rtol=1e-6)
    np.testing.assert_allclose([found["min"], found["max"]], [array.min(), array.max()], rtol=1e-6)
    assert found["of"].startswith("the first of 6 matrices") == (shape == (2, 3, 7, 9))


def test_a_thumbnail_holds_the_means_of_blocks():
    array = np.random.default_rng(0).standard_normal((100, 65))
    found = packed(array)
    assert (found["thumbnail"], found["of"]) == (True, "means of blocks of 4 × 3")
    expected = [[array[i : i + 4, j : j + 3].mean() for j in range(0, 65, 3)] for i in range(0, 100, 4)]
    np.testing.assert_allclose(unpacked(found), expected, atol=1e-4)


def test_what_is_not_finite():
    found = packed(np.array([[np.nan, np.inf, -np.inf, 1.0]] * 20))
    np.testing.assert_array_equal(unpacked(found)[0], [np.nan, np.inf, -np.inf, 1])
    assert (found["min"], packed(np.array([-np.inf, 1]))["min"]) == ("NaN", "-Infinity")
    np.testing.assert_allclose(unpacked(packed(np.full((10, 10), 1e-40))), 1e-40, rtol=1e-3)


def test_equal_arrays_stand_once():
    arrays = Heatmaps()
    numbers = [arrays.number(np.zeros(shape)) for shape in ((2, 3), (2, 3), (3, 2))]
    assert numbers == [0, 0, 1] and len(arrays.list) == 2 and arrays.number(None) is None


def test_a_film_as_json():
    film = json.loads(json.dumps(step_through(stepping.block).as_json(), allow_nan=False))
    assert {"title", "nodes", "steps", "sources", "arrays"} == film.keys()
    inside = next(node["inside"] for node in film["nodes"] if node["name"] == "causal_attention")
    assert {"title", "nodes", "steps"} == inside.keys()
    places = set()

    def collect(film):
        for node in film["nodes"]:
            places.add(node["value"])
            if node["inside"]:
                collect(node["inside"])
        for step in film["steps"]:
            places.update(step.get(name) for name in ("incoming", "contribution", "total"))
            assert step.get("source") is None or step["source"] in sources

    sources = film["sources"]
    collect(film)
    assert places - {None} == set(range(len(film["arrays"])))


def test_the_numbers_of_a_small_film():
    film = step_through(lambda: (leaf(1) * 2.0).sum()).as_json()
    step = next(step for step in film["steps"] if step["kind"] == "backward")
    assert unpacked(film["arrays"][step["total"]]).tolist() == [[1]]
    assert step["lines"] and step["source"] in film["sources"]
