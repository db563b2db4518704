"""The record of the reference run: of the settings and the text that it names, and shown in the texts."""

import json
import os
from pathlib import Path

import pytest

import train
from autograd import no_grad
from benchmarks import reference_run
from tests.support.here import program
from tests.support.runs import TINY, metrics, train_here
from tests.support.texts import english
from tinygpt.config import BATCH_SITE, PRESETS, TrainConfig, UserError, from_dict, resolve
from tinygpt.run import files
from tinygpt.text.corpus import SHAKESPEARE_SHA256
from tinygpt.text.data import sha256_of
from tinygpt.toml import read_toml

ROOT = Path(__file__).resolve().parent.parent.parent
CHARACTERS = 65  # of Tiny Shakespeare


# --- the record in the repository -----------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    return reference_run.recorded()


@pytest.fixture(scope="module")
def config():
    path = reference_run.FOLDER / "config.toml"
    return from_dict(TrainConfig, read_toml(path), path)


def test_the_settings_and_the_text_are_those_of_the_preset(found, config):
    reference_run.check(config, found["data_sha256"], "the record")
    assert (config.data, config.out) == ("shakespeare", "")
    assert found["parameters"] == config.model_config(CHARACTERS).num_parameters() == 10_788_929
    assert found["max_steps"] == resolve(dict(preset="shakespeare")).max_steps == 5000


def test_nobody_changed_what_the_run_wrote(found):
    for name, sha256 in found["sha256"].items():
        assert files.sha256_of_file(reference_run.FOLDER / name) == sha256, name


def test_the_metrics_are_those_of_so_many_steps(found, config):
    """Every tenth step and every evaluation is there, each once, with the rate and the tokens of its step."""
    steps = metrics(reference_run.FOLDER, "step")
    logged = [line["step"] for line in steps]
    assert [step for step in logged if step % 10 == 0] == list(range(0, found["steps"], 10))
    assert logged == sorted(set(logged))  # the last step before a planned stop is logged too
    schedule = config.schedule()
    assert [line["learning_rate"] for line in steps] == [schedule(step) for step in logged]
    evaluations = reference_run.evaluations_in()
    due = list(range(0, found["steps"] + 1, config.eval_interval))
    assert [line["step"] for line in evaluations] in (due, due[:-1])  # the last may have been interrupted
    tokens = config.batch_size * config.block_size
    for line in evaluations[1:]:
        rate = line["step"] * tokens / line["training_seconds"]
        assert line["tokens_per_second"] == pytest.approx(rate, rel=1e-6)
    last = metrics(reference_run.FOLDER)[-1]["seconds"] / 3600
    assert found["hours"] == round(last, 2)
    assert evaluations[-1]["training_seconds"] / 3600 - 0.01 < found["training_hours"] <= found["hours"]


def test_the_losses_are_those_of_the_published_run():
    """But for the seed, which moves them by less than 0.05; by 0.1 before any training, where nothing but the
    draw of the weights counts.
    """
    found = reference_run.differences(reference_run.evaluations_in())
    assert found.pop(0) < 0.1 and all(difference < 0.05 for difference in found.values()), found


def test_the_table_stands_in_the_texts(found):
    evaluations = reference_run.evaluations_in()
    complete = found["steps"] == found["max_steps"]
    text = (ROOT / ("README.md" if complete else "benchmarks/README.md")).read_text(encoding="utf-8")
    assert reference_run.table(evaluations) in text
    assert reference_run.summary(found, evaluations) in " ".join(text.split())


def test_the_first_loss_comes_out_again(tmp_path):
    """The code of today draws the same weights, batch and dropout masks, and computes the same loss."""
    folders = [os.environ.get("TINYGPT_DATA", "data"), ROOT / "data", ROOT.parent / "shared" / "data"]
    texts = [path for each in folders if (path := Path(each, "tinyshakespeare.txt")).is_file()]
    if not texts or files.sha256_of_file(texts[0]) != SHAKESPEARE_SHA256:
        pytest.skip("Tiny Shakespeare is not at hand (train.py downloads it to data/)")
    job = train.prepare(["--preset", "shakespeare", "--data", str(texts[0]), "--out", str(tmp_path / "run")])
    place = job.stream.at(step=0)
    ids, targets = job.dataset.batch("train", 64, place.at(site=BATCH_SITE))
    with no_grad():
        losses = [
            float(job.model.loss(ids[row : row + 4], targets[row : row + 4], place.at(row=row)))
            for row in range(0, 64, 4)
        ]
    first = metrics(reference_run.FOLDER, "step")[0]
    assert sum(losses) / len(losses) == pytest.approx(first["loss"], abs=1e-4)


# --- recording ------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A small run in place of the reference run: 20 steps on a text of our own. Returns how to train on."""
    (tmp_path / "words.txt").write_text(english(), encoding="utf-8")
    tiny = {name: value for name, value in TINY.items() if name != "preset"}
    monkeypatch.setitem(PRESETS, "shakespeare", PRESETS["smoke"] | tiny)
    monkeypatch.setattr(reference_run, "SHAKESPEARE_SHA256", sha256_of(english().encode()))
    losses = dict.fromkeys((0, 5, 10, 15, 19), (4.0, 4.5))
    monkeypatch.setattr(reference_run, "PUBLISHED", losses)
    start = dict(preset="shakespeare", data=tmp_path / "words.txt", out=tmp_path / "run")

    def go_on(until, **more):
        is_new = not (tmp_path / "run").exists()
        train_here(**(start | more if is_new else dict(resume=tmp_path / "run")), stop_after=until)

    return go_on


def shown(tmp_path, *arguments):
    """What the command prints for that run."""
    result = program(reference_run.main, tmp_path / "run", "--to", tmp_path / "record", *arguments)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()


def test_a_run_is_recorded_in_pieces(small, tmp_path, monkeypatch):
    to = tmp_path / "record"
    small(12)
    printed = shown(tmp_path)
    first, kept = files.read_json(to / "record.json"), (to / "metrics.jsonl").read_bytes()
    assert (first["steps"], first["max_steps"]) == (12, 20)
    assert [line["step"] for line in reference_run.evaluations_in(to)] == [0, 5, 10]
    assert printed.count("\n| ") == 5 and "| 15 | 4.0000 |  | 4.5000 |  |" in printed
    assert "12 of 20 steps in 0.0 h" in printed and " at step 0, after it at most " in printed
    assert len((to / "sample.txt").read_text(encoding="utf-8")) < 20
    assert str(tmp_path) not in (to / "config.toml").read_text(encoding="utf-8")

    monkeypatch.setattr(reference_run, "processor", lambda: "another processor")
    small(20)
    printed = shown(tmp_path)
    found = files.read_json(to / "record.json")
    assert [each["until_step"] for each in found["machines"]] == [12, 20]
    assert found["machines"][1]["name"].startswith("another processor, ")
    assert "| 19 (ours 20) | 4.0000 | " in printed and "another processor" in printed
    assert (to / "metrics.jsonl").read_bytes().startswith(kept)
    assert len((to / "sample.txt").read_text(encoding="utf-8")) == 10_001  # a line break ends it
    assert (to / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert shown(tmp_path, "--table") == printed

    shown(tmp_path)  # once more changes nothing
    assert files.read_json(to / "record.json") == found


def test_another_run_begins_another_record(small, tmp_path):
    small(12)
    shown(tmp_path)
    path = tmp_path / "record" / "record.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps(before | dict(machines=[dict(name="of another run", until_step=7)])))
    (tmp_path / "record" / "metrics.jsonl").write_text("{}\n")
    shown(tmp_path)
    assert files.read_json(path) == before


@pytest.mark.parametrize("more", [dict(n_head=1), dict(eval_iters=2), dict(seed=3), dict(learning_rate=1e-3)])
def test_a_run_with_other_settings_is_refused(small, tmp_path, more):
    small(5, **more)
    with pytest.raises(UserError, match=f"not the reference run: its {next(iter(more))} is"):
        reference_run.record(tmp_path / "run", tmp_path / "record")
    assert not (tmp_path / "record").exists()


def test_a_run_on_another_text_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr(reference_run, "SHAKESPEARE_SHA256", SHAKESPEARE_SHA256)
    small(5)
    with pytest.raises(UserError, match="its text is not Tiny Shakespeare"):
        reference_run.record(tmp_path / "run", tmp_path / "record")


def test_settings_that_change_no_step_are_free(small, tmp_path):
    small(5, threads=2, micro_batch=1, sample_tokens=3)
    assert reference_run.record(tmp_path / "run", tmp_path / "record")["steps"] == 5


def test_a_run_without_samples_is_recorded(small, tmp_path):
    small(5, sample_tokens=0)
    shown(tmp_path)
    assert (tmp_path / "record" / "sample.txt").read_bytes() == b""


def test_the_difference_of_either_loss_counts():
    line = dict(step=4000, train_loss=1.1418, val_loss=1.4787)
    assert reference_run.differences([line]) == {4000: 0}
    for name in ("train_loss", "val_loss"):
        found = reference_run.differences([line | {name: line[name] - 0.06}])
        assert found == {4000: pytest.approx(0.06)}
    assert reference_run.differences([dict(step=5000, train_loss=1.0722, val_loss=1.4908)]) == {5000: 0}
    assert resolve(dict(preset="shakespeare")).max_steps == max(reference_run.PUBLISHED) + 1
