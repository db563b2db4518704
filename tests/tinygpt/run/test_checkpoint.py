"""What goes into a checkpoint comes out, bit for bit; what was not written by it never does."""

import dataclasses
import stat

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from autograd import AdamW
from tests.support.fuzz import load_everything, reseal, small_checkpoint
from tests.support.texts import CHINESE, english
from tinygpt.config import ARCHITECTURES, GPTConfig, TrainConfig, UserError
from tinygpt.model import GPT
from tinygpt.run import checkpoint
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer

TOKENIZERS = [CharTokenizer("ab\n"), CharTokenizer(CHINESE), BPETokenizer.learn(english()[:3000], 260)]
STATE = {"best": {}, "corpus": "字", "data_sha256": "", "machine": "cpu", "training_seconds": 0.1}


def training(tokenizer, architecture, n_layer=1, n_embd=4):
    config = GPTConfig(
        tokenizer.vocab_size,
        block_size=3,
        n_layer=n_layer,
        n_head=2,
        n_embd=n_embd,
        **ARCHITECTURES[architecture],
    )
    model = GPT(config)
    return model, AdamW(model.parameter_groups(0.1))


def arrays_of(optimizer):
    moments = [group[key] for group in optimizer.groups for key in ("m", "v")]
    return [p.data for p in optimizer.parameters()] + moments


@settings(max_examples=40)
@given(
    st.sampled_from(TOKENIZERS), st.sampled_from(sorted(ARCHITECTURES)), st.integers(1, 2),
    st.sampled_from([2, 4]), st.integers(0, 10**12), st.randoms(use_true_random=False),
)  # fmt: skip
def test_any_bits_survive_saving_and_loading(
    tmp_path_factory, tokenizer, architecture, n_layer, n_embd, step, random
):
    """Signs of zero, denormal numbers and payloads of NaN included."""
    model, optimizer = training(tokenizer, architecture, n_layer, n_embd)
    for array in arrays_of(optimizer):
        array[...] = np.frombuffer(random.randbytes(array.nbytes), np.float32).reshape(array.shape)
    optimizer.steps = step + 1
    state = STATE | {"step": step, "settings": dataclasses.asdict(TrainConfig(preset="smoke"))}
    folder = tmp_path_factory.mktemp("run")
    checkpoint.save(folder, model, optimizer, tokenizer, state)
    saved = checkpoint.load(folder)
    again, optimizer_again = training(tokenizer, architecture, n_layer, n_embd)
    saved.restore(again, optimizer_again)
    assert [a.tobytes() for a in arrays_of(optimizer_again)] == [a.tobytes() for a in arrays_of(optimizer)]
    assert optimizer_again.steps == step + 1 and saved.model_config() == model.config
    assert [p.data.tobytes() for p in saved.model().parameters()] == [
        p.data.tobytes() for p in model.parameters()
    ]
    assert saved.tokenizer().pieces == tokenizer.pieces
    assert {name: saved.state[name] for name in state} == state


def test_arrays_of_any_layout_are_saved(tmp_path):
    model, optimizer = training(TOKENIZERS[0], "reference")
    for p in model.parameters():
        p.data = np.asfortranarray(p.data + np.arange(p.size, dtype=np.float32).reshape(p.shape))
    state = STATE | {"step": 0, "settings": {}}
    checkpoint.save(tmp_path, model, optimizer, TOKENIZERS[0], state)
    for before, after in zip(model.parameters(), checkpoint.load(tmp_path).model().parameters(), strict=True):
        np.testing.assert_array_equal(after.data, before.data)


def test_who_may_read_the_folder_may_read_its_files(tmp_path):
    folder = small_checkpoint(tmp_path / "run")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    (tmp_path / "any").touch()
    assert modes == {stat.S_IMODE((tmp_path / "any").stat().st_mode)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_checkpoint(tmp_path_factory.mktemp("work") / "run")


@pytest.mark.parametrize("name", [*checkpoint.FILES, "state.json"])
@settings(max_examples=100)
@given(
    content=st.one_of(
        st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode(errors="replace"))
    )
)
def test_random_bytes_never_crash_the_loader(folder, name, content):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    try:
        (folder / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            checkpoint.load(folder)
        if name != "state.json":
            reseal(folder)
            with pytest.raises(UserError):
                load_everything(folder)
    finally:
        for path, right in before.items():
            (folder / path).write_bytes(right)


@given(st.binary(max_size=200))
def test_random_pointers_lead_nowhere_else(folder, content):
    (folder.parent / "latest").write_bytes(content)
    try:
        found = checkpoint.find(folder.parent / "latest")
        assert found.parent == folder.parent
    except UserError:
        pass


@pytest.mark.parametrize(
    "content", ["../../../etc\n", "/etc\n", "../elsewhere/step_000001\n", "/step_000001\n", ""]
)
def test_pointers_that_leave_the_folder_are_refused(folder, content):
    (folder.parent / "latest").write_text(content)
    with pytest.raises(UserError, match="latest"):
        checkpoint.find(folder.parent / "latest")
