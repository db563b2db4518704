"""No setting is without effect in silence: every setting, in every way of starting a run."""

import dataclasses

import pytest

from tests.stand_ins import strict_cupy
from tests.support.commands import flags
from tests.support.runs import TINY, metrics, train_here
from tests.support.texts import english
from tinygpt import cli
from tinygpt.config import TrainConfig, UserError, resolve
from tinygpt.run import resume
from tinygpt.toml import to_toml

OTHER = {  # setting -> a value unlike that of TINY, which a run can have
    "preset": "laptop", "data": "python", "init_from": "elsewhere", "tokenizer": "bpe", "vocab_size": 300,
    "out": "elsewhere", "device": "cpu", "precision": "fp32", "seed": 3, "architecture": "gpt2",
    "block_size": 4, "n_layer": 2, "n_head": 1, "n_embd": 16, "dropout": 0.5, "batch_size": 2,
    "max_steps": 30, "stop_after": 15, "learning_rate": 0.5, "warmup_steps": 5, "min_lr": 1e-4,
    "beta1": 0.5, "beta2": 0.5, "weight_decay": 0.5, "decay_vectors": True, "grad_clip": 0.5,
    "patience": 1, "eval_interval": 2, "eval_iters": 3, "sample_tokens": 1, "threads": 2,
    "activation_checkpointing": True, "micro_batch": 2, "detect_anomaly": False,
    "encoding": "latin-1", "text_key": "body",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a constant rate, stopped after 10 of its 20 steps."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "words.txt").write_text(english(), encoding="utf-8")
    train_here(**TINY, data=folder / "words.txt", out=folder / "run", stop_after=10)
    return folder / "run"


def config_of(*words, **settings):
    """(TrainConfig, notes) from a command line."""
    config, start, _, _ = cli.train_config([*words, *flags(**settings)])
    return config, start.notes


def given(name):
    """The flag that gives a setting its other value."""
    return ["--no-detect-anomaly"] if OTHER[name] is False else flags(**{name: OTHER[name]})


def test_every_setting_is_tried():
    assert OTHER.keys() == {field.name for field in dataclasses.fields(TrainConfig)}
    assert OTHER.keys() >= resume.FIXED | resume.FREE and not resume.FIXED & resume.FREE


# --- a fresh run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OTHER.keys() - {"init_from"}))
def test_a_setting_reaches_a_fresh_run(name, tmp_path):
    """From a flag, and from a file."""
    basis = {key: value for key, value in (TINY | {"tokenizer": "bpe"}).items() if key != name}
    config, _ = config_of(*given(name), **basis)
    assert getattr(config, name) == OTHER[name]
    (tmp_path / "mine.toml").write_text(to_toml(dataclasses.replace(resolve(TINY), **{name: OTHER[name]})))
    assert getattr(config_of(config=tmp_path / "mine.toml")[0], name) == OTHER[name]


NOTES = {  # settings -> what is said of them; every other setting is as it was asked for
    "the preset's min_lr gives way": (
        dict(preset="laptop", learning_rate=1e-5),
        ["min_lr 5e-05 is above learning_rate 1e-05: it is lowered to that, so the rate is constant"],
    ),
    "so does that of another preset": (
        dict(preset="finetune", learning_rate=1e-6),
        ["min_lr 5e-06 is above"],
    ),
    "a warm-up longer than the run": (
        dict(warmup_steps=50, max_steps=20, learning_rate=1e-3),
        ["the warm-up of 50 steps is longer than the run of 20: the learning rate ends at 0.0004 of 0.001"],
    ),
    "a preset's warm-up too": (dict(preset="laptop", max_steps=40), ["the warm-up of 100 steps is longer"]),
    "precision on a CPU": (
        dict(precision="bf16"),
        ["precision bf16 has no effect: a CPU computes in float32"],
    ),
    "which is fp32": (dict(precision="fp32"), []),
    "more threads than sequences": (
        dict(threads=9),
        ["threads 9 has no effect: a batch has only 8 sequences"],
    ),
    "micro-batch": (dict(micro_batch=9), ["micro_batch 9 has no effect: a batch has only 8 sequences"]),
    "stopping after the end": (dict(stop_after=99), ["stop_after 99 has no effect: the run ends after 60"]),
    "stopping at the end": (dict(stop_after=60), []),
    "decay of vectors": (
        dict(decay_vectors=True, weight_decay=0),
        ["decay_vectors True has no effect: weight"],
    ),
    "patience": (
        dict(patience=3),
        ["patience 3 has no effect: 60 steps have too few evaluations, one every 20"],
    ),
    "less patience": (dict(patience=2), []),
    "a warm-up with a constant rate": (dict(warmup_steps=5), []),
    "a warm-up as long as the run": (dict(warmup_steps=60), []),
    "a low rate that is constant": (dict(learning_rate=1e-9), []),
    "as little as it may be": (dict(learning_rate=1e-4, min_lr=1e-4), []),
}


@pytest.mark.parametrize("name", NOTES)
def test_what_has_no_effect_is_said_in_one_line(name):
    settings, expected = NOTES[name]
    config, notes = config_of(**{"preset": "smoke", "device": "cpu"} | settings)
    assert len(notes) == len(expected), notes
    for note, start in zip(notes, expected, strict=True):
        assert note.startswith(start) and "\n" not in note
    assert {key: getattr(config, key) for key in settings} == settings
    assert config.min_lr <= config.learning_rate


REFUSED = {
    "both rates asked for": (dict(learning_rate=1e-5, min_lr=1e-4), "so the rate would rise; give a smaller"),
    "min_lr alone": (dict(min_lr=0.1), "min_lr 0.1 is above learning_rate 0.003"),
    "vocabulary of characters": (
        dict(vocab_size=2048),
        "--vocab-size 2048 has no effect: it is for --tokenizer",
    ),
    "vocabulary of a file": (
        dict(vocab_size=300, tokenizer="a.json"),
        "and the tokenizer is a.json; leave it",
    ),
    "force": (dict(force=True), "--force is for --resume; --overwrite replaces a folder"),
    "overwrite": (dict(overwrite=True), "--overwrite needs the folder: give it with --out"),
    "too little dropout": (dict(dropout=0.001), "dropout is 0.001; it must be 0, or from 0.002 to 0.998"),
    "too much dropout": (dict(dropout=0.9985), "dropout is 0.9985; it must be 0, or from 0.002 to 0.998"),
    "no patience": (dict(patience=-1), "patience is -1; it must be at least 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions_are_refused(name):
    settings, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        config_of(preset="smoke", **settings)


def test_a_file_gets_notes_only_for_what_it_changes(tmp_path):
    """Every config.toml names all settings; that of a run must work as it is."""
    file = tmp_path / "mine.toml"
    file.write_text(to_toml(resolve({"preset": "laptop"})))
    assert config_of(config=file, device="cpu")[1] == []
    assert len(config_of(config=file, learning_rate=1e-5)[1]) == 1
    file.write_text('preset = "smoke"\nvocab_size = 300\nprecision = "bf16"\nmin_lr = 1e-4\n')
    _, notes = config_of(config=file, device="cpu")
    assert [note.split()[0] for note in notes] == ["vocab_size", "precision"]
    with pytest.raises(UserError, match="so the rate would rise"):
        config_of(config=file, learning_rate=1e-5)
    file.write_text("")
    assert config_of(config=file, device="cpu")[1] == [f"{file} sets nothing"]


def test_on_a_gpu(monkeypatch):
    monkeypatch.setattr(cli.arguments, "choose_device", lambda *wanted: ("cuda", "as asked"))
    with strict_cupy.installed():
        _, notes = config_of(preset="smoke", threads=2, precision="bf16")
    assert notes == ["threads 2 has no effect: a GPU computes"]


@pytest.mark.parametrize(
    "twice", ["--out a --out b", "--seed 1 --seed=2", "--decay-vectors --no-decay-vectors"]
)
def test_a_flag_given_twice_is_refused(twice):
    with pytest.raises(UserError, match="is given twice; give it once"):
        config_of(*twice.split())
    with pytest.raises(UserError, match="--max-steps is given 3 times"):
        config_of("--max-steps", "1", "--max_steps", "2", "--max-steps=3")


def test_a_warm_up_before_a_constant_rate(text_file, tmp_path):
    train_here(**TINY | dict(warmup_steps=15, learning_rate=0.003), data=text_file, out=tmp_path / "run")
    rates = {line["step"]: line["learning_rate"] for line in metrics(tmp_path / "run", "step")}
    assert rates == {0: pytest.approx(0.003 / 15), 10: pytest.approx(0.003 * 11 / 15), 19: 0.003}


def test_a_vocabulary_larger_than_the_text_gives(tmp_path):
    (tmp_path / "abc.txt").write_text("abcd efgh\n" * 60)
    options = TINY | dict(max_steps=1, data=tmp_path / "abc.txt", tokenizer="bpe", block_size=2)
    printed = train_here(**options, vocab_size=600, out=tmp_path / "run")
    assert "note: vocab_size 600 was not reached: no pair occurs twice beyond " in printed
    assert "note:" not in train_here(**options, vocab_size=257, out=tmp_path / "small")


# --- with the weights of another model ------------------------------------------------------------


def test_starting_from_a_run(run, tmp_path):
    ours = run / "ckpt" / "step_000010"
    for words in ([], ["--tokenizer", str(ours)], ["--tokenizer", f"{ours}/tokenizer.json"]):
        config, notes = config_of(*words, init_from=run)
        assert (config.preset, config.n_layer, notes) == ("finetune", 1, [])
    for shape in (dict(n_layer=1), dict(architecture="reference"), dict(block_size=8)):
        assert config_of(init_from=run, **shape)[1] == []
    for wrong, message in (
        (dict(n_layer=2), "n_layer is 2, but the model"),
        (dict(n_embd=4), "n_embd is 4, but the model"),
        (dict(architecture="gpt2"), "architecture 'gpt2' cannot be chosen"),
        (dict(tokenizer="bpe"), "the tokenizer is that of the model"),
        (dict(tokenizer="char"), "leave --tokenizer char out"),
        (dict(vocab_size=300), "--vocab-size 300 has no effect"),
    ):
        with pytest.raises(UserError, match=message):
            config_of(init_from=run, **wrong)
    (tmp_path / "config.toml").write_text(to_toml(config_of(init_from=run)[0]))  # as such a run records it
    assert config_of(config=tmp_path / "config.toml")[1] == []


# --- a run that goes on ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OTHER.keys() - {"out"}))
def test_a_setting_changes_a_run_that_goes_on_or_is_refused(name, run):
    """Some may change, some with --force, and some never; what is accepted is what is used."""
    words = ["--resume", str(run), *given(name)]
    if name in resume.FIXED:
        for more in ([], ["--force"]):
            with pytest.raises(UserError, match=f"leave {name} out: a run that goes on cannot change that"):
                config_of(*words, *more)
    elif name in resume.FREE | {"max_steps"}:
        assert getattr(config_of(*words)[0], name) == OTHER[name]
    else:
        with pytest.raises(UserError, match=f"{name} .* -> .*; leave them, or --force the change"):
            config_of(*words)
        assert getattr(config_of(*words, "--force")[0], name) == OTHER[name]


def test_what_is_as_it_was_is_no_change(run):
    config, notes = config_of("--resume", run.as_posix(), "--config", f"{run}/config.toml")
    assert config.max_steps == 20 and notes == []
    assert config_of(resume=run, tokenizer="char", seed=1337, n_layer=1, force=True)[1] == []


def test_notes_and_refusals_of_a_run_that_goes_on(run, tmp_path):
    assert config_of(resume=run, stop_after=5)[1] == ["stop_after 5 has no effect: 10 steps are done already"]
    assert config_of(resume=run, max_steps=10)[1] == ["all 10 steps are done; a larger --max-steps goes on"]
    with pytest.raises(UserError, match="has done 10 steps already, more than max_steps 9"):
        config_of(resume=run, max_steps=9)
    (tmp_path / "other.toml").write_text(f'out = "{tmp_path}"')
    for words in (["--out", str(run)], ["--overwrite"], ["--config", f"{tmp_path}/other.toml"]):
        with pytest.raises(UserError, match="leave out --overwrite and --out"):
            config_of(*words, resume=run)
