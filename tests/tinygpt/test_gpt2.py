"""GPT-2's format: round trips, what is refused, and transformers as the yardstick."""

import json
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from autograd import no_grad
from tests.support.commands import refused, sample, tinygpt, train
from tests.support.models import sharp_model
from tests.support.runs import SMOKE, metrics
from tests.support.texts import MIXED
from tinygpt import gpt2
from tinygpt.config import ARCHITECTURES, UserError
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer, IdTokenizer
from tinygpt.text.tokenizer_file import to_json
from tinygpt.text.tokenizer_folder import load_tokenizer

BPE = BPETokenizer.learn(MIXED, 300)
CHARS = CharTokenizer("abcdefghijklmnopqrstuvw")
IDS = np.random.default_rng(1).integers(0, 23, (2, 16))


def with_biases(model):
    """The same model with biases that count."""
    for i, (_, p) in enumerate(model.named_parameters()):
        if p.ndim == 1:
            p.data += np.random.default_rng(i).standard_normal(p.shape, np.float32) * np.float32(0.3)
    return model


@no_grad()
def logits(model, ids=IDS):
    return model(ids).data


@pytest.fixture
def exported(tmp_path):
    """A small model and the folder that it was written to."""
    model = with_biases(sharp_model("gpt2"))
    gpt2.export(model, CHARS, tmp_path / "exported")
    return model, tmp_path / "exported"


# --- round trips ----------------------------------------------------------------------------------


def test_what_is_written_is_read(exported):
    model, folder = exported
    again, tokenizer = gpt2.load_model(folder)
    np.testing.assert_array_equal(logits(again), logits(model))
    assert tokenizer.chars == CHARS.chars and again.config == model.config
    # all as readable as new files are to be
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_the_reference_architecture(tmp_path):
    """No biases of q, k and v: zeros are stored. A head of its own: stored transposed.

    The head's bias is refused, folded or dropped.
    """
    model = with_biases(sharp_model("reference"))
    with pytest.raises(
        UserError, match="no place for this model's bias.*here 23 and 32.*--architecture gpt2"
    ):
        gpt2.export(model, CHARS, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    gpt2.export(model, CHARS, tmp_path / "folded", "fold")
    np.testing.assert_allclose(logits(gpt2.load_model(tmp_path / "folded")[0]), logits(model), atol=1e-4)
    gpt2.export(model, CHARS, tmp_path / "dropped", "drop")
    dropped = logits(gpt2.load_model(tmp_path / "dropped")[0])
    np.testing.assert_allclose(dropped + model.lm_head.bias.data, logits(model), atol=1e-4)
    model.lm_head.bias.data[...] = 0
    gpt2.export(model, CHARS, tmp_path / "exact")
    np.testing.assert_allclose(logits(gpt2.load_model(tmp_path / "exact")[0]), logits(model), atol=1e-5)


def test_scores_over_channels_are_folded_into_the_queries(tmp_path):
    """Of a model with a bias for them and of one without."""
    for qkv_bias in (False, True):
        with mock.patch.dict(ARCHITECTURES["lecture"], qkv_bias=qkv_bias):
            model = with_biases(sharp_model("lecture"))
        gpt2.export(model, CHARS, tmp_path / str(qkv_bias), "fold")
        back, _ = gpt2.load_model(tmp_path / str(qkv_bias))
        assert not back.config.scores_over_channels
        np.testing.assert_allclose(logits(back), logits(model), atol=1e-4)


def test_a_bias_that_cannot_be_folded(tmp_path):
    model = with_biases(sharp_model("reference", vocab_size=50))
    with pytest.raises(
        UserError, match="cannot be folded: 50 tokens, 32 channels, logits off by .*--head-bias drop"
    ):
        gpt2.export(model, CHARS, tmp_path / "folder", "fold")


def test_a_folder_without_a_tokenizer(exported, tmp_path):
    """Its texts are numbers, and it is exported as it came."""
    (exported[1] / "tokenizer.json").unlink()
    model, tokenizer = gpt2.load_model(exported[1])
    assert isinstance(tokenizer, IdTokenizer) and tokenizer.decode(tokenizer.encode("3 14")) == " 3 14"
    gpt2.export(model, tokenizer, tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"config.json", "model.safetensors"}


def test_a_folder_is_not_overwritten(exported):
    with pytest.raises(UserError, match="exists; give a new folder"):
        gpt2.export(exported[0], CHARS, exported[1])


def rewrite(folder, change):
    """Change the weights' dict in a folder."""
    weights = load_file(folder / "model.safetensors")
    weights = change(weights) or weights
    save_file(
        {name: np.ascontiguousarray(array) for name, array in weights.items()}, folder / "model.safetensors"
    )


def test_what_old_and_other_files_look_like(exported):
    """Names without the prefix, causal masks, a second copy of the tied head, half and double precision."""
    model, folder = exported

    def old(weights):
        weights = {
            name.removeprefix("transformer."): array.astype(np.float64) for name, array in weights.items()
        }
        masks = {
            f"h.{i}.attn.{name}": np.ones((1, 1, 16, 16), np.float32)
            for i in range(3)
            for name in ("bias", "masked_bias")
        }
        return weights | masks | {"lm_head.weight": weights["wte.weight"]}

    rewrite(folder, old)
    np.testing.assert_array_equal(logits(gpt2.load_model(folder)[0]), logits(model))
    rewrite(folder, lambda weights: {name: array.astype(np.float16) for name, array in weights.items()})
    for (_, got), (_, want) in zip(
        gpt2.load_model(folder)[0].named_parameters(), model.named_parameters(), strict=True
    ):
        np.testing.assert_array_equal(got.data, want.data.astype(np.float16))


def test_weights_in_several_files(exported):
    model, folder = exported
    weights = list(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name, part in zip(names, (weights[:5], weights[5:]), strict=True):
        save_file(dict(part), folder / name)
    index = {"weight_map": {key: names[i >= 5] for i, (key, _) in enumerate(weights)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(logits(gpt2.load_model(folder)[0]), logits(model))
    for bad in ("../model.safetensors", "/etc/passwd"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": bad}}))
        with pytest.raises(UserError, match="should name files in the same folder"):
            gpt2.load_model(folder)


# --- what is refused ------------------------------------------------------------------------------

CONFIG_FAULTS = {
    "other model": ({"model_type": "llama"}, "model_type is 'llama'; only gpt2 can be read"),
    "exact gelu": (
        {"activation_function": "gelu"},
        "activation_function is 'gelu'; it must be gelu_new or",
    ),
    "odd activation": ({"activation_function": ["relu"]}, "activation_function is"),
    "wide MLP": ({"n_inner": 100}, "n_inner is 100; it must be None or 128, which is all"),
    "other epsilon": ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06; it must be 1e-05"),
    "other scale": ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    "heads": ({"n_head": 3}, "n_embd 32 is not divisible by n_head 3"),
    "text for a number": ({"n_layer": "3"}, "n_layer is '3'; it must be one whole number"),
    "huge": ({"n_embd": 10**6, "n_head": 1}, "too small for the"),
    "another vocabulary": ({"vocab_size": 24}, r"wte.weight should be \(24, 32\)"),
    "a smaller vocabulary": ({"vocab_size": 22}, "the tokenizer has 23 tokens, the model 22"),
    "more layers": ({"n_layer": 4}, "missing"),
    "fewer layers": ({"n_layer": 2}, "is not one of this model's"),
}


@pytest.mark.parametrize("name", CONFIG_FAULTS)
def test_faults_of_config(name, exported):
    change, message = CONFIG_FAULTS[name]
    path = exported[1] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        gpt2.load_model(exported[1])


WEIGHT_FAULTS = {
    "missing": (
        lambda weights: weights.pop("transformer.ln_f.bias"),
        "tensor transformer.ln_f.bias is missing",
    ),
    "extra": (lambda weights: weights.update(more=np.ones(3)), "tensor more is not one of this model's"),
    "integers": (
        lambda weights: weights.update({"transformer.ln_f.bias": np.ones(32, int)}),
        r"found \(32,\) of I64",
    ),
    "transposed": (
        lambda weights: weights.update({"transformer.wpe.weight": np.ones((32, 16))}),
        r"should be \(16, 32\)",
    ),
}


@pytest.mark.parametrize("name", WEIGHT_FAULTS)
def test_faults_of_weights(name, exported):
    change, message = WEIGHT_FAULTS[name]

    def spoil(weights):
        change(weights)

    rewrite(exported[1], spoil)
    with pytest.raises(UserError, match=message):
        gpt2.load_model(exported[1])


def test_other_faults_of_folders(exported):
    _, folder = exported
    (folder / "tokenizer.json").write_text(to_json(BPE), encoding="utf-8")
    with pytest.raises(UserError, match="the tokenizer has 300 tokens, the model 23"):
        gpt2.load_model(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="only pytorch_model.bin, a pickle, which can run code: convert it"):
        gpt2.load_model(folder)
    (folder / "pytorch_model.bin").rename(folder / "model.bin")
    with pytest.raises(UserError, match="model.safetensors is missing"):
        gpt2.load_model(folder)


# --- through the command line ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of GPT-2's architecture by byte-pair encoding, and its exported folder."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mixed.txt").write_text(MIXED, encoding="utf-8")
    settings = SMOKE | dict(max_steps=40, architecture="gpt2", tokenizer="bpe", vocab_size=400)
    result = train(**settings, data=folder / "mixed.txt", out=folder / "run")
    assert result.returncode == 0, result.stderr
    result = tinygpt("export", folder / "run", folder / "gpt2")
    assert result.returncode == 0, result.stderr
    return folder


def test_sampling_from_the_exported_folder(trained):
    flags = ["--prompt", "The ", "--tokens", "30"]
    assert sample(trained / "gpt2", *flags) == sample(trained / "run", *flags)


def test_training_goes_on_from_it(trained, tmp_path):
    """It begins with the last loss of the run that it comes from, gets better, and can be resumed."""
    settings = dict(init_from=trained / "gpt2", data=trained / "mixed.txt", batch_size=8, learning_rate=0.001)
    settings |= dict(max_steps=8, eval_interval=4, eval_iters=2, sample_tokens=5, threads=1)
    result = train(**settings, out=tmp_path / "whole")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("preset finetune") == 1 and "vocabulary of 400" in result.stdout
    before = metrics(trained / "run", "evaluation")[-1]
    first, *_, last = metrics(tmp_path / "whole", "evaluation")
    assert first["val_loss"] == pytest.approx(before["val_loss"], abs=1e-5)
    assert last["val_loss"] < first["val_loss"]
    assert train(**settings, out=tmp_path / "part", stop_after=4).returncode == 0
    assert train(resume=tmp_path / "part").returncode == 0
    whole, part = (
        tmp_path / name / "ckpt" / "step_000008" / "model.safetensors" for name in ("whole", "part")
    )
    assert whole.read_bytes() == part.read_bytes()


def test_a_shorter_context(trained, tmp_path):
    settings = dict(init_from=trained / "run", data=trained / "mixed.txt", block_size=16)
    result = train(**settings, max_steps=1, sample_tokens=0, out=tmp_path / "run")
    assert result.returncode == 0, result.stderr
    model, _ = gpt2.load_model(tmp_path / "run")
    assert model.config.block_size == 16 and model.transformer.wpe.weight.shape == (16, 32)


FAULTS = {
    "other width": (dict(n_embd=64), "n_embd is 64, but the model in"),
    "longer context": (dict(block_size=64), "block_size is 64, but the model in"),
    "architecture": (dict(architecture="reference"), "architecture 'reference' cannot be chosen"),
    "another tokenizer": (dict(tokenizer="bpe", vocab_size=500), "the tokenizer is that of the model in"),
    "no model": (dict(init_from="nothing"), "nothing has no checkpoint; give the folder of a run"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_going_on(trained, name, tmp_path):
    settings, message = FAULTS[name]
    settings = dict(init_from=trained / "gpt2", data=trained / "mixed.txt") | settings
    refused(train(cwd=tmp_path, **settings), message)


def test_faults_of_exporting(trained, tmp_path):
    refused(tinygpt("export", trained / "run", trained / "gpt2"), "exists; give a new folder")
    refused(tinygpt("export", tmp_path / "nothing", tmp_path / "new"), "has no checkpoint")
    refused(tinygpt("export", trained / "run"), "the following arguments are required: folder")


# --- the yardstick --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hf():
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


def their_logits(model, ids):
    import torch

    with torch.no_grad():
        return model.eval()(torch.from_numpy(np.asarray(ids))).logits.numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformers_compute_the_same_from_our_folder(hf, architecture, tmp_path):
    model = with_biases(sharp_model(architecture))
    gpt2.export(model, CHARS, tmp_path / "folder", "fold")
    theirs = hf.GPT2LMHeadModel.from_pretrained(tmp_path / "folder")
    np.testing.assert_allclose(their_logits(theirs, IDS), logits(model), atol=1e-4)
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert tokenizer("cab")["input_ids"] == [2, 0, 1] and tokenizer.decode([2, 0, 1]) == "cab"


def test_transformers_read_our_tokenizer(hf, trained):
    _, ours = gpt2.load_model(trained / "gpt2")
    text = MIXED[:2000] + MIXED[-2000:] + "  é<|endoftext|>\n\n 😀 it's , .  "
    for kind in (hf.AutoTokenizer, hf.GPT2Tokenizer):
        tokenizer = kind.from_pretrained(trained / "gpt2")
        assert tokenizer(text)["input_ids"] == ours.encode(text).tolist() and len(tokenizer) == 400
        assert tokenizer.decode(ours.encode(text)) == text
        tokenizer.save_pretrained(trained / "again")
        assert load_tokenizer(trained / "again").encode(text).tolist() == ours.encode(text).tolist()


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "activation_function": "relu"}])
def test_we_compute_the_same_from_their_folder(hf, changes, tmp_path):
    shape = dict(vocab_size=71, n_positions=16, n_embd=24, n_layer=2, n_head=3, initializer_range=0.3)
    theirs = hf.GPT2LMHeadModel(hf.GPT2Config(**shape, **changes, bos_token_id=None, eos_token_id=None))
    theirs.save_pretrained(tmp_path / "theirs")
    model, _ = gpt2.load_model(tmp_path / "theirs")
    ids = np.random.default_rng(0).integers(0, 71, (3, 16))
    np.testing.assert_allclose(logits(model, ids), their_logits(theirs, ids), atol=1e-4)
    gpt2.export(model, CHARS, tmp_path / "ours")
    back = hf.GPT2LMHeadModel.from_pretrained(tmp_path / "ours")
    np.testing.assert_allclose(their_logits(back, ids), logits(model, ids), atol=1e-4)


def test_the_size_of_gpt2(hf, tmp_path):
    """12 layers, 768 channels, 50,257 tokens: the same logits, and text with a tokenizer or without."""
    theirs = hf.GPT2LMHeadModel(hf.GPT2Config())
    theirs.save_pretrained(tmp_path / "gpt2")
    ids = np.random.default_rng(0).integers(0, 50_257, (1, 24))
    expected = their_logits(theirs, ids)
    del theirs
    model, tokenizer = gpt2.load_model(tmp_path / "gpt2")
    np.testing.assert_allclose(logits(model, ids), expected, atol=1e-4)
    assert tokenizer.vocab_size == 50_257 and model.num_parameters() == 124_439_808
    result = tinygpt("sample", tmp_path / "gpt2", "--tokens", 3, "--prompt", "318 262")
    assert result.returncode == 0 and b"no tokenizer.json: prompt and text are token ids" in result.stderr
    assert len(result.stdout.split()) == 5
    result = tinygpt("sample", tmp_path / "gpt2", "--prompt", "50257")
    assert result.returncode == 2 and b"error: '50257' is not a token id from 0 to 50256" in result.stderr
    (tmp_path / "gpt2" / "tokenizer.json").write_text(to_json(BPE), encoding="utf-8")
    text = sample(tmp_path / "gpt2", "--tokens", 5, "--prompt", "The fox", "--temperature", 9)
    assert text.startswith("The fox")
