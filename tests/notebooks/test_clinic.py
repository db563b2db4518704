"""The models of notebooks 7 to 9: patients show the signs that notebook 9 names, a saved model is opened."""

import numpy as np
import pytest

import autograd as ag
from tests.support.texts import english
from workbook import clinic, gpt, inside

TEXT = english()
CHARACTERS = sorted(set(TEXT))
IDS = np.array([CHARACTERS.index(c) for c in TEXT])
GUESSING = np.log(len(CHARACTERS))


def record(steps=30, **parts):
    return clinic.train(IDS, CHARACTERS, steps, **parts)


@pytest.fixture(scope="module")
def healthy():
    return record()


def test_the_healthy_one_is_healthy(healthy):
    assert abs(healthy.losses[0] - GUESSING) < 0.1 and healthy.losses[-1] < healthy.losses[0] - 0.5
    assert healthy.ratios.min() > 1e-3 and healthy.ratios.max() < 0.2


def test_patient_a_begins_far_above_guessing():
    assert record(2, **clinic.PATIENTS["A"]).losses[0] > 2 * GUESSING


def test_patient_b_piles_gradients_up(healthy):
    sick = record(**clinic.PATIENTS["B"])
    assert sick.losses[0] == healthy.losses[0]
    assert (sick.gradient_sizes[-1] > 3 * healthy.gradient_sizes[-1]).all()


def test_patient_c_sees_the_next_character():
    p = clinic.parameters_of(len(CHARACTERS), clinic.initial, 0)

    def first_logits(ids, mask):
        logits, _ = clinic.forward(np.array([ids]), p, clinic.block, mask)
        return logits.data[0, 0]

    sick, right = clinic.PATIENTS["C"]["hidden"](2), clinic.hidden(2)
    assert not np.array_equal(first_logits([1, 2], sick), first_logits([1, 3], sick))
    assert np.array_equal(first_logits([1, 2], right), first_logits([1, 3], right))


def test_gradients_are_recorded_even_if_the_update_forgets_them_at_its_end(healthy):
    def update(loss, optimizer):
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    np.testing.assert_array_equal(record(2, update=update).gradient_sizes, healthy.gradient_sizes[:2])


def test_patient_d_has_gradients_but_no_updates():
    sick = record(3, **clinic.PATIENTS["D"])
    assert (sick.gradient_sizes > 0).all()
    assert (sick.ratios[:, 0] > 0).all() and (sick.ratios[:, 1:] == 0).all()


def test_patient_e_falls_all_the_way(healthy):
    sick = record(**clinic.PATIENTS["E"])
    assert (sick.ratios[0] > 0.5).all() and (sick.ratios[-1] < sick.ratios[0] / 50).all()


def test_patient_f_loses_the_gradient_on_its_way_back():
    sizes = record(**clinic.PATIENTS["F"]).gradient_sizes[-1]
    assert sizes[-1] > 1000 * sizes[0]


def test_a_dashboard_can_be_drawn_where_updates_are_zero(healthy):
    sick = record(2, **clinic.PATIENTS["D"])
    picture = clinic.dashboard(sick, healthy, {"guessing": GUESSING}, "patient D")
    assert picture._repr_png_().startswith(b"\x89PNG")


def test_a_model_saved_by_notebook_7_is_opened_by_notebook_8(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpt, "FOLDER", tmp_path / "gpt")
    monkeypatch.setattr(inside, "FOLDER", tmp_path / "gpt")
    V, T, C, n_layer, n_head = len(CHARACTERS), 6, 8, 2, 2
    rng = np.random.default_rng(0)
    first = lambda name, shape: gpt.initial(name, shape, n_layer, rng).astype(np.float32)
    shapes = gpt.gpt_shapes(V, T, C, n_layer)
    p = {name: ag.Tensor(first(name, shape), requires_grad=True) for name, shape in shapes.items()}
    model = gpt.library_model(p, V, T, C, n_layer, n_head)
    gpt.save(model, ag.AdamW(model.parameters()), CHARACTERS, 7)
    opened, tokenizer = inside.open_model(TEXT)
    assert "after 7 steps" in capsys.readouterr().out and tokenizer.chars == "".join(CHARACTERS)
    ours = gpt.gpt(IDS[None, :T], p, n_layer, n_head).data
    np.testing.assert_allclose(opened(IDS[None, :T]).data, ours, atol=1e-6)


def test_notebook_8_sees_the_weights_that_attention_uses():
    qkv = np.random.default_rng(0).normal(size=(2, 5, 12))
    weights = inside.attention_weights(qkv, 2)  # (B, H, T, T)
    values = qkv[..., 8:].reshape(2, 5, 2, 2).swapaxes(1, 2)  # (B, T, C) -> (B, H, T, D)
    out = (weights @ values).swapaxes(1, 2).reshape(2, 5, 4)
    np.testing.assert_allclose(out, ag.causal_attention.raw(qkv, 2)[0], atol=1e-12)
