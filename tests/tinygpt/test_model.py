"""The GPT: sizes, names, gradients, causality, and that it learns."""

import numpy as np
import pytest

from autograd import AdamW, Stream, gradcheck
from tinygpt.config import ARCHITECTURES, GPTConfig, UserError
from tinygpt.model import GPT, Dropout


def small(architecture="reference", dropout=0.0, **shape):
    shape = dict(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8) | shape
    return GPT(GPTConfig(**shape, dropout=dropout, **ARCHITECTURES[architecture]), seed=3)


def batch(rows=2, length=8, vocab=11, seed=0):
    ids = np.random.default_rng(seed).integers(0, vocab, (rows, length + 1))
    return ids[:, :-1], ids[:, 1:].copy()


@pytest.mark.parametrize(("architecture", "count"), [("reference", 10_788_929), ("gpt2", 10_770_816)])
def test_parameter_count_at_the_reference_size(architecture, count):
    config = GPTConfig(65, 256, 6, 6, 384, 0.2, **ARCHITECTURES[architecture])
    assert GPT(config).num_parameters() == count


def test_names_are_those_of_gpt2():
    names = [name for name, _ in small("gpt2").named_parameters()]
    layer = [
        f"transformer.h.0.{part}.{kind}"
        for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        for kind in ("weight", "bias")
    ]
    assert names[:2] == ["transformer.wte.weight", "transformer.wpe.weight"]
    assert names[2:14] == layer
    assert names[-2:] == ["transformer.ln_f.weight", "transformer.ln_f.bias"]
    assert {"lm_head.weight", "lm_head.bias"} <= {name for name, _ in small("reference").named_parameters()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradients_of_the_whole_model(architecture, dropout):
    model = small(architecture, dropout)
    for p in model.parameters():
        # away from relu's corner, and with gradients of normal size
        p.data = p.data.astype(np.float64) * 5 + 0.01
    ids, targets = batch()
    targets[0, 3] = -1
    stream = Stream(1, step=2) if dropout else None
    loss = lambda *_: model.loss(ids, targets, stream)
    for seed in range(3):
        # A small step: each of the model's many relus has a corner that must not lie between the points.
        assert gradcheck(loss, *model.parameters(), mode="projected", step=3e-6, seed=seed)
    for p in model.parameters():  # each parameter alone, so that none hides behind the others
        assert gradcheck(loss, p, mode="projected", step=3e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_untrained_model_knows_nothing(architecture):
    model = small(architecture, vocab_size=65, n_embd=64, block_size=32)
    ids, targets = batch(8, 32, 65)
    # PyTorch's head makes logits of variance 1/3 from normalised channels, and half of that goes to the loss.
    expected = np.log(65) + (1 / 6 if model.config.torch_init else 0)
    assert float(model.loss(ids, targets)) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_batch_can_be_learnt_by_heart(architecture):
    model = small(architecture, n_embd=32)
    optimizer = AdamW(model.parameter_groups(0.0), lr=1e-2)
    ids, targets = batch(4)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(ids, targets)
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.05


def test_the_future_does_not_change_the_past():
    model, (ids, _) = small(n_embd=32), batch()
    changed = ids.copy()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    before, after = model(ids).data, model(changed).data
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert not np.array_equal(before[:, 5], after[:, 5])


def test_dropout_only_with_a_stream_and_by_its_place():
    model, (ids, targets) = small(dropout=0.5), batch()
    losses = [
        float(model.loss(ids, targets, stream)) for stream in (None, None, Stream(1), Stream(1), Stream(2))
    ]
    assert losses[0] == losses[1] and losses[2] == losses[3] and len(set(losses)) == 3


def test_no_two_dropout_layers_share_a_site():
    from tinygpt.model import Block, CausalSelfAttention, Dropout, Module

    def sites(module):
        for value in vars(module).values():
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, Module):
                    yield from [child.site] if isinstance(child, (Dropout, CausalSelfAttention)) else []
                    yield from sites(child)

    found = list(sites(small("gpt2", n_layer=3)))
    assert len(found) == len(set(found)) == 1 + 3 * Block.SITES


def test_same_seed_same_weights():
    a, b = small(), small()
    assert all(np.array_equal(p.data, q.data) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    matrix = GPT(GPTConfig(65, n_layer=2, scaled_init=True)).transformer.h[1].mlp
    assert matrix.c_fc.weight.data.std() == pytest.approx(0.02, rel=0.01)
    assert matrix.c_proj.weight.data.std() == pytest.approx(0.01, rel=0.01)


def test_weights_as_pytorchs_layers_begin():
    """Embeddings N(0, 1), all else uniform to 1/√(inputs), biases too; every array drawn by itself."""
    config = GPTConfig(65, 64, 2, 2, 96, **ARCHITECTURES["lecture"] | dict(qkv_bias=True))
    model = GPT(config, seed=3)
    for name, parameter in model.named_parameters():
        x, last = parameter.data, name.rpartition(".")[2]
        if ".ln_" in name:
            assert np.array_equal(x, np.full_like(x, last == "weight"))
        elif ".wte." in name or ".wpe." in name:
            assert x.std() == pytest.approx(1, rel=0.03) and abs(x.mean()) < 0.05
        else:
            limit = (4 * 96 if "mlp.c_proj" in name else 96) ** -0.5
            assert np.abs(x).max() <= limit and x.min() < -0.85 * limit and x.max() > 0.85 * limit
            assert x.std() == pytest.approx(limit / 3**0.5, rel=0.15)
    drawn = [p.data.flat[:5].tobytes() for name, p in model.named_parameters() if ".ln_" not in name]
    assert len(set(drawn)) == len(drawn)
    again, other = GPT(config, seed=3), GPT(config, seed=4)
    pairs = list(zip(model.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(np.array_equal(p.data, q.data) for p, q, _ in pairs)
    assert not any(np.array_equal(p.data, q.data) for p, _, q in pairs if p.data.std() > 0)


def test_context_is_limited():
    with pytest.raises(ValueError, match="9 tokens do not fit the context of 8"):
        small()(np.zeros((1, 9), int))


def test_ids_may_be_lists_and_arrays_of_any_integers():
    model, (ids, targets) = small(), batch()
    logits, loss = model(ids).data, float(model.loss(ids, targets))
    for convert in (np.ndarray.tolist, lambda x: tuple(map(tuple, x)), lambda x: x.astype(np.uint8)):
        np.testing.assert_array_equal(model(convert(ids)).data, logits)
        assert float(model.loss(convert(ids), convert(targets))) == loss


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            lambda ids: (ids[0], ids[0]),
            ValueError,
            r"ids of shape \(8,\); wanted \(B, T\), with at least one",
        ),
        (lambda ids: (ids[None], ids[None]), ValueError, r"ids of shape \(1, 2, 8\); wanted \(B, T\)"),
        (lambda ids: (ids[:0], ids[:0]), ValueError, r"ids of shape \(0, 8\); wanted \(B, T\)"),
        (lambda ids: (ids[:, :0], ids[:, :0]), ValueError, r"ids of shape \(2, 0\); wanted \(B, T\)"),
        (lambda ids: ([], []), ValueError, r"ids of shape \(0,\); wanted \(B, T\)"),
        (lambda ids: ([[1], [1, 2]], ids), ValueError, "some lists are longer than others"),
        (lambda ids: (ids, ids.T), ValueError, r"targets of shape \(8, 2\) do not fit .* \(2, 8\)"),
        (lambda ids: (ids, ids[:1]), ValueError, r"targets of shape \(1, 8\) do not fit .* \(2, 8\)"),
        (lambda ids: (ids, ids.reshape(-1)), ValueError, r"targets of shape \(16,\) do not fit .* \(2, 8\)"),
        (lambda ids: (ids * 1.0, ids), TypeError, "token ids must be plain integers, not float64"),
        (lambda ids: (ids, ids * 1.0), TypeError, "targets must be plain integers, not float64"),
        (lambda ids: (ids > 3, ids), TypeError, "token ids must be plain integers, not bool"),
        (lambda ids: (ids, ids, 5), TypeError, "dropout draws from a Stream, .*, not from 5"),
        (lambda ids: (ids + 11, ids), IndexError, "there are 11, from 0 to 10"),
        (lambda ids: (ids, ids - 12), IndexError, "there are 11, from 0 to 10"),
    ],
)
def test_batches_that_do_not_fit_are_refused(wrong, error, message):
    model, (ids, _) = small(), batch()
    ids, targets, *stream = wrong(ids)
    with pytest.raises(error, match=message):
        model.loss(ids, targets, *stream)
    if "targets" not in message and "from 0" not in message:
        with pytest.raises(error, match=message):
            model(ids, *stream)


def test_a_batch_may_be_refilled_before_backward():
    gradients = []
    for later in (None, 0):
        model, (ids, targets) = small(), batch()
        ids = ids.copy()
        loss = model.loss(ids, targets)
        if later is not None:
            ids[:], targets[:] = later, later
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_batch_in_which_no_target_counts():
    model, (ids, targets) = small(), batch()
    loss = model.loss(ids, np.full_like(targets, -1))
    loss.backward()
    assert np.isnan(loss.data)
    assert not any(p.grad.any() for p in model.parameters())  # NaN counts as any


@pytest.mark.parametrize("p", [-0.1, 1.5, 0.001, np.nan])
def test_rates_that_dropout_cannot_keep_to_are_refused(p):
    with pytest.raises(ValueError, match="dropout's p is"):
        Dropout(p, site=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(n_embd=10, n_head=4), "10 is not divisible by n_head 4"),
        (dict(dropout=1.0), "dropout is 1.0; it must be at least 0 and below 1"),
        (dict(n_layer=0), "n_layer is 0"),
    ],
)
def test_impossible_shapes_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        GPTConfig(**(dict(vocab_size=5) | wrong))


def test_weight_decay_groups():
    matrices, vectors = small().parameter_groups(0.1)
    assert {p.ndim for p in matrices["params"]} == {2} and {p.ndim for p in vectors["params"]} == {1}
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert small().parameter_groups(0.1, decay_vectors=True)[1]["weight_decay"] == 0.1


def test_module_gradient_flow_reaches_every_parameter():
    model, (ids, targets) = small("gpt2"), batch()
    model.loss(ids, targets).backward()
    assert all(p.grad is not None and np.abs(p.grad).max() > 0 for p in model.parameters())
