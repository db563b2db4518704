"""Feed the loaders broken files.

Each must be refused in one line that names the file, at once, and in little memory.
"""

import dataclasses
import json
import random
import re
import shutil
import signal
import tracemalloc
from functools import partial

from autograd import AdamW
from tests.support.texts import english
from tinygpt import config
from tinygpt.config import TrainConfig, UserError
from tinygpt.model import GPT
from tinygpt.run import checkpoint, files, resume
from tinygpt.run.checkpoint import FILES
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer
from tinygpt.text.tokenizer_file import load_file, to_json
from tinygpt.toml import read_toml, to_toml

# Bytes that may be allocated beyond twice a file's size, Python's own objects included. TOML may take more:
# tomllib needs 130 bytes for each digit of an endless number, and read_toml reads up to 100 kB.
SLACK, TOML_SLACK = 1_000_000, 20_000_000
SECONDS = 5  # for any one file
STRANGE = [
    "null", "true", "-1", "0", "1e999", "NaN", "1" * 400, "9" * 5000, '""', '"../../../etc/passwd"',
    '"/etc/passwd"', "[]", "{}", '"\\ud800"', "[" * 3000, "[" * 100_000, '{"a":' * 20_000, "3.5",
    str(2**40), str(2**63), '"F64"', '"\\u0000"',
]  # fmt: skip


def mutate(content, choice):
    """The bytes of a file with one to three things broken; never the same bytes."""
    original = content
    while content == original:
        for _ in range(choice.randint(1, 3)):
            mutation = choice.choice([flip, cut, insert, drop, repeat, swap, number, value, value, header])
            content = mutation(content, choice)
    return content


def flip(content, choice):
    if not content:
        return b"?"
    position = choice.randrange(len(content))
    flipped = content[position] ^ 1 << choice.randrange(8)
    return content[:position] + bytes([flipped]) + content[position + 1 :]


def cut(content, choice):
    return content[: choice.randrange(len(content) + 1)]


def insert(content, choice):
    position = choice.randrange(len(content) + 1)
    return content[:position] + choice.randbytes(choice.randint(1, 9)) + content[position:]


def drop(content, choice):
    position = choice.randrange(len(content) + 1)
    return content[:position] + content[position + choice.randint(1, 40) :]


def repeat(content, choice):
    position = choice.randrange(len(content) + 1)
    part = content[position : position + choice.randint(1, 200)]
    return content[:position] + part * choice.choice([2, 2, 3, 100]) + content[position + len(part) :]


def swap(content, choice):
    a, b = sorted(choice.randrange(len(content) + 1) for _ in range(2))
    return content[b:] + content[a:b] + content[:a]


def number(content, choice):
    """Another number in the place of one."""
    new = choice.choice(["0", "-1", "1", "7", "1000000000", "1e30", str(2**64), "9" * 5000])
    return _replace(rb"-?\d+(\.\d+)?", content, choice, new)


def value(content, choice):
    """Something strange in the place of a JSON value."""
    pattern = rb'(?<=[:\[,=]) *("[^"]*"|-?\d+|\[[^\]]*\]|true|false|null)'
    return _replace(pattern, content, choice, choice.choice(STRANGE))


def _replace(pattern, content, choice, new):
    found = list(re.finditer(pattern, content[:20_000]))
    if not found:
        return flip(content, choice)
    match = choice.choice(found)
    return content[: match.start()] + new.encode() + content[match.end() :]


def header(content, choice):
    """Another length of the safetensors header, or the first bytes of a pickle, a zip file, a .npy file."""
    lengths = [choice.randrange(200), len(content), 2**63]
    starts = [choice.randbytes(8), *(length.to_bytes(8, "little") for length in lengths)]
    starts += [b"\x80\x04\x95\x10\0\0\0\0", b"PK\3\4\0\0\0\0", b"\x93NUMPY\1\0", bytes(8)]
    start = choice.choice(starts)
    return start + content[8:]


class TooSlow(Exception):
    pass


def _too_slow(*args):
    raise TooSlow


def refused(loader, path, must=True, names=(), slack=SLACK):
    """Call a loader on a broken file: True if it was refused with an error that names the file.

    must: any other result fails the test. names: what else the error may name. The loader may take neither
    more than SECONDS nor more memory than twice the file's size and `slack` bytes.
    """
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(SECONDS)
    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        loader()
    except UserError as error:
        assert any(name in str(error) for name in (path.name, *names)), f"{error} does not name {path.name}"
        assert "\n" not in str(error).strip() and len(str(error)) < 1500, str(error)
        return True
    finally:
        signal.alarm(0)
        taken, size = tracemalloc.get_traced_memory()[1] - before, path.stat().st_size
        assert taken < 2 * size + slack, f"{taken:,} bytes for a file of {size:,}: {path.read_bytes()[:200]}"
    assert not must, f"{path.name} was taken: {path.read_bytes()[:2000]}"
    return False


def small_checkpoint(folder):
    """A checkpoint of a tiny model, with all its parts."""
    tokenizer = CharTokenizer("abc\n")
    settings = TrainConfig(preset="smoke", block_size=4, n_layer=1, n_head=1, n_embd=2)
    model = GPT(settings.model_config(tokenizer.vocab_size))
    optimizer = AdamW(model.parameter_groups(0.1))
    folder.mkdir(parents=True)
    state = {
        "step": 3,
        "best": {"step": 3, "val_loss": 1.5},
        "corpus": "words",
        "data_sha256": "0" * 64,
        "machine": "cpu",
    }
    state |= {"training_seconds": 1.5, "settings": dataclasses.asdict(settings)}
    return checkpoint.save(folder, model, optimizer, tokenizer, state)


def reseal(folder):
    """Make the hashes fit the files again, as an attacker would."""
    state = json.loads((folder / "state.json").read_text())
    hashes = {name: files.sha256_of_file(folder / name) for name in FILES}
    (folder / "state.json").write_text(checkpoint.seal(state | {"sha256": hashes}))


def load_everything(folder):
    """What resuming reads."""
    saved = checkpoint.load(folder)
    settings = resume.settings(saved, {})
    model, tokenizer, _ = checkpoint.load_for_sampling(folder)
    saved.restore(model, AdamW(model.parameter_groups(settings.weight_decay)))
    return tokenizer


class Fuzz:
    """Campaigns against one small checkpoint in a folder of its own.

    Most return (files tried, files refused).
    """

    def __init__(self, work, seed=0):
        self.folder = small_checkpoint(work / "run")
        self.pristine = work / "pristine"
        shutil.copytree(self.folder, self.pristine)
        self.saved = checkpoint.load(self.folder)
        self.choice = random.Random(seed)
        load_everything(self.folder)  # once before any measurement: the first time allocates more

    def __enter__(self):
        tracemalloc.start()
        return self

    def __exit__(self, *exception):
        tracemalloc.stop()

    def _broken(self, number, names):
        """`number` times a file of the checkpoint mutated; whole again afterwards."""
        for i in range(number):
            path = self.folder / names[i % len(names)]
            path.write_bytes(mutate((self.pristine / path.name).read_bytes(), self.choice))
            yield path
            shutil.copyfile(self.pristine / path.name, path)

    def every_bit(self, stride=1):
        """Flip every bit of every file, one at a time: the hashes or the seal must catch each.

        Returns how many.
        """
        tried = 0
        tracemalloc.stop()  # it would take most of the time, and `damaged` finds the same
        for name in (*FILES, "state.json"):
            content = (self.pristine / name).read_bytes()
            for bit in range(tried % stride, 8 * len(content), stride):
                flipped = bytearray(content)
                flipped[bit // 8] ^= 1 << bit % 8
                (self.folder / name).write_bytes(flipped)
                refused(lambda: checkpoint.load(self.folder), self.folder / name)
                tried += 1
            (self.folder / name).write_bytes(content)
        tracemalloc.start()
        return tried

    def damaged(self, number):
        """Files of a checkpoint broken in any way, hashes as they were."""
        files = self._broken(number, [*FILES, "state.json"])
        return number, sum(refused(lambda: checkpoint.load(self.folder), path) for path in files)

    def forged(self, number):
        """The same with hashes that fit; then a file that is not wrong by itself may be accepted."""
        count = 0
        for path in self._broken(number, [*FILES, "state.json"]):
            if path.name == "state.json":
                self._reseal_state(path)
            else:
                reseal(self.folder)
            count += refused(lambda: load_everything(self.folder), path, must=False, names=[self.folder.name])
            shutil.copyfile(self.pristine / "state.json", self.folder / "state.json")
        return number, count

    def _reseal_state(self, path):
        try:
            state = json.loads(path.read_bytes())
            path.write_text(checkpoint.seal(state))
        except (ValueError, RecursionError, AttributeError, OverflowError):
            pass  # it is no JSON any more, and stays as it is

    def arrays(self, number):
        """A safetensors file alone, without hashes."""
        shapes = {name: p.shape for name, p in self.saved.model().named_parameters()}

        def read(path):
            return list(checkpoint.read_arrays(path, shapes))

        files = self._broken(number, ["model.safetensors"])
        return number, sum(refused(partial(read, path), path, must=False) for path in files)

    def tokenizers(self, number):
        """tokenizer.json alone."""
        (self.pristine / "bpe.json").write_text(to_json(BPETokenizer.learn(english()[:5000], 270)))
        files = self._broken(number, ["tokenizer.json", "bpe.json"])
        return number, sum(refused(partial(load_file, path), path, must=False) for path in files)

    def configs(self, number):
        """A TOML file of settings, and config.json alone."""
        toml = self.folder / "config.toml"
        (self.pristine / toml.name).write_text(to_toml(TrainConfig(preset="smoke")))

        def read():
            return config.resolve(read_toml(toml))

        # A wrong setting is refused by its name; the message need not name the file.
        rules = dict(must=False, names=[""], slack=TOML_SLACK)
        count = sum(refused(read, path, **rules) for path in self._broken(number // 2, [toml.name]))
        files = self._broken(number // 2, ["config.json"])
        count += sum(refused(self.saved.model_config, path, must=False) for path in files)
        return number // 2 * 2, count
