"""Words of other programs: the flag, key or preset that is meant, or what to do instead."""

import pytest

from tests.support.commands import flags
from tinygpt import cli, commands
from tinygpt.config import ARCHITECTURES, PRECISIONS, PRESETS, UserError
from tinygpt.names import nearest
from tinygpt.toml import read_toml

TRAINING = {  # the setting or flag here -> flags that people bring along
    "--learning-rate": "--lr --LR --max-lr -lr --learning-rte",
    "--max-steps": "--max-iters --max_iters --iters --steps --num-steps --max-step",
    "--block-size": "--ctx --seq-len --seq_len --context-length --context --max-length",
    "--n-layer": "--n-layers --layers --num_layers --depth --n_layers",
    "--n-head": "--heads --n-heads --num-heads",
    "--n-embd": "--dim --embed --d-model --hidden-size --n_embed",
    "--batch-size": "--batch --bs --batch-sz",
    "--data": "--input --file --dataset --text --corpus --train-file",
    "--out": "--save --out_dir --output --name --output-dir",
    "--resume": "--checkpoint --load --ckpt --continue",
    "--init-from": "--pretrained --model --finetune",
    "--device": "--gpu --cuda --cpu",
    "--precision": "--dtype --fp16 --amp",
    "--threads": "--workers --num-threads -j",
    "--grad-clip": "--clip --max-grad-norm --gradient-clipping",
    "--warmup-steps": "--warmup --warmup_iters --warm-up",
    "--dropout": "--drop --dropout-rate",
    "--eval-interval": "--save-every --eval-steps --eval_every",
    "--patience": "--early-stopping --pacience",
    "--vocab-size": "--vocab --merges",
    "--weight-decay": "--wd --l2",
}


@pytest.mark.parametrize("flag", TRAINING)
def test_the_flag_that_is_meant(flag):
    for word in TRAINING[flag].split():
        for words in ([word, "3"], [word + "=3"]):
            with pytest.raises(UserError) as error:
                cli.train_config(words)
            assert str(error.value) == f"unknown flag {word}; did you mean {flag!r}?"


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("--epochs --num_epochs --n-epochs", "there are no epochs: say --max-steps"),
        ("--wandb_log --wandb --no-wandb --tensorboard --report-to", "every loss is in metrics.jsonl"),
        ("--log_interval --print-every --logging-steps", "the training loss of every 10th step"),
        ("--gradient_accumulation_steps --accumulate", "say the whole batch as --batch-size"),
        ("--decay_lr --lr-scheduler --lr_decay_iters", "the rate falls along a cosine"),
        ("--temperature --top_k --prompt --num-samples", "python -m tinygpt sample RUN writes text"),
        ("--val-split --eval-data --train_frac", "the last tenth of the text"),
        ("--qqqq --xyzzy", "--help lists them"),
    ],
)
def test_what_to_do_instead(words, advice):
    for word in words.split():
        with pytest.raises(UserError, match=f"^unknown flag {word}; .*{advice}"):
            cli.train_config([word, "3"])


def test_dashes_and_underscores_are_alike():
    words = [
        "--preset=smoke",
        "--batch_size=3",
        "--eval_iters",
        "7",
        "--decay_vectors",
        "--no_detect_anomaly",
    ]
    config, *_ = cli.train_config(words)
    assert (config.batch_size, config.eval_iters, config.decay_vectors, config.detect_anomaly) == (
        3, 7, True, False,
    )  # fmt: skip


def test_negative_numbers_are_values():
    for words in (["--min-lr", "-1e-3"], ["--min_lr", "-.5"], ["--min-lr=-1"]):
        assert cli.train_config(["--preset", "laptop", *words])[0].min_lr < 0
    with pytest.raises(UserError, match="learning_rate is -0.001; it must be more than 0"):
        cli.train_config(["--learning-rate", "-1e-3"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["novel.txt"], "novel.txt stands alone; did you mean --data novel.txt?"),
        (["my.toml"], "my.toml stands alone; did you mean --config my.toml?"),
        (["batch_size=3"], "batch_size=3 stands alone; did you mean --batch-size=3?"),
        (["--decay-vectors", "False"], "False stands alone; a switch takes no value"),
        (["--decay-vectors=True"], "--decay-vectors or --no-decay-vectors: it takes no value"),
        (["--data"], "argument --data: expected"),
    ],
)
def test_words_out_of_place(words, message):
    with pytest.raises(UserError) as error:
        cli.train_config(words)
    assert message in str(error.value) and "\n" not in str(error.value)


SAMPLING = {
    "--temp 1": "did you mean '--temperature'?",
    "--length 9": "did you mean '--tokens'?",
    "--max_new_tokens 9": "did you mean '--tokens'?",
    "--start x": "did you mean '--prompt'?",
    "--num_samples 2": "did you mean '--samples'?",
    "--checkpoint x": "the run stands without a flag",
    "--num-beams 4": "there is no beam search",
    "--seed 1 --seed 2": "--seed is given twice",
    "hello": "did you mean --prompt hello?",
}


@pytest.mark.parametrize("words", SAMPLING)
def test_flags_of_sampling(words):
    with pytest.raises(UserError) as error:
        commands.main(["sample", "run", *words.split()])
    assert SAMPLING[words] in str(error.value)


def test_flags_of_other_commands():
    for command in ("eval", "export"):
        with pytest.raises(UserError, match="the run stands without a flag"):
            commands.main([command, "run", *(["folder"] if command == "export" else []), "--ckpt", "x"])
    with pytest.raises(UserError, match="unknown command 'train'; a model is trained with python train.py"):
        commands.main(["train", "--data", "x"])
    for word, meant in (("generate", "sample"), ("evaluate", "eval"), ("convert", "export")):
        with pytest.raises(UserError, match=f"unknown command '{word}'; did you mean '{meant}'?"):
            commands.main([word, "run"])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lr", "unknown key 'lr'; did you mean 'learning_rate'?"),
        ("batch-size", "unknown key 'batch-size'; did you mean 'batch_size'?"),
        ("max_iters", "did you mean 'max_steps'?"),
        ("epochs", "unknown key 'epochs'; there are no epochs"),
        ("resume", "unknown key 'resume'; that is for the command line: --resume"),
    ],
)
def test_keys_of_a_file(key, message, tmp_path):
    (tmp_path / "mine.toml").write_text(f"{key} = 3")
    with pytest.raises(UserError) as error:
        read_toml(tmp_path / "mine.toml")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("choices", "word", "meant"),
    [
        (PRESETS, "shakespeare_char", "shakespeare"),
        (PRESETS, "chinese", "zh"),
        (PRESETS, "CPU", "laptop"),
        (PRESETS, "fine-tune", "finetune"),
        (PRECISIONS, "bfloat16", "bf16"),
        (PRECISIONS, "float32", "fp32"),
        (ARCHITECTURES, "GPT-2", "gpt2"),
    ],
)
def test_names_of_choices(choices, word, meant):
    assert nearest(word, choices) == f"did you mean {meant!r}?"


def test_a_wrong_preset_through_the_command_line():
    with pytest.raises(UserError, match="preset 'chinese' is unknown; did you mean 'zh'?"):
        cli.train_config(flags(preset="chinese"))
