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

from autograd import AdamW
from tests.support.texts import english
from tinygpt import config
from tinygpt.config import TrainConfig, UserError
from tinygpt.model import GPT
from tinygpt.run import checkpoint, resume
from tinygpt.run.checkpoint import FILES
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer, load_tokenizer

SLACK = (
    1_000_000  # bytes that may be allocated beyond twice a file's size, all of the objects in Python included
)
TOML_SLACK = 20_000_000  # tomllib takes 130 bytes for each digit of an endless number; read_toml takes no more than 100 kB
SECONDS = 5  # for any one file
STRANGE = [
    "null", "true", "-1", "0", "1e999", "NaN", "1" * 400, "9" * 5000, '""', '"../../../etc/passwd"', '"/etc/passwd"', "[]", "{}",
    '"\\ud800"', "[" * 3000, "[" * 100_000, '{"a":' * 20_000, "3.5", str(2**40), str(2**63), '"F64"', '"\\u0000"',
]  # fmt: skip


def mutate(content, choice):
    """The bytes of a file with one to three things broken; never the same bytes."""
    original = content
    while content == original:
        for _ in range(choice.randint(1, 3)):
            content = choice.choice([flip, cut, insert, drop, repeat, swap, number, value, value, header])(
                content, choice
            )
    return content


def flip(content, choice):
    position = choice.randrange(len(content)) if content else 0
    return (
        content[:position] + bytes([content[position] ^ 1 << choice.randrange(8)]) + content[position + 1 :]
        if content
        else b"?"
    )


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
    return _replace(
        rb"-?\d+(\.\d+)?",
        content,
        choice,
        choice.choice(["0", "-1", "1", "7", "1000000000", "1e30", str(2**64), "9" * 5000]),
    )


def value(content, choice):
    """Something strange in the place of a JSON value."""
    return _replace(
        rb'(?<=[:\[,=]) *("[^"]*"|-?\d+|\[[^\]]*\]|true|false|null)', content, choice, choice.choice(STRANGE)
    )


def _replace(pattern, content, choice, new):
    found = list(re.finditer(pattern, content[:20_000]))
    if not found:
        return flip(content, choice)
    match = choice.choice(found)
    return content[: match.start()] + new.encode() + content[match.end() :]


def header(content, choice):
    """Another length of the safetensors header, or the first bytes of a pickle, a zip file, a .npy file."""
    start = choice.choice(
        [
            choice.randbytes(8),
            (2**63).to_bytes(8, "little"),
            (len(content)).to_bytes(8, "little"),
            b"\x80\x04\x95\x10\0\0\0\0",
        ]
        + [b"PK\3\4\0\0\0\0", b"\x93NUMPY\1\0", bytes(8), choice.randrange(200).to_bytes(8, "little")]
    )
    return start + content[8:]


class TooSlow(Exception):
    pass


def _too_slow(*args):
    raise TooSlow


def refused(loader, path, must=True, names=(), slack=SLACK):
    """Call a loader on a broken file: True if it was refused, naming the file. must: nothing else is right."""
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(SECONDS)
    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()
    before, limit = tracemalloc.get_traced_memory()[0], 2 * path.stat().st_size + slack
    try:
        loader()
    except UserError as error:
        assert any(name in str(error) for name in (path.name, *names)), f"{error} does not name {path.name}"
        assert "\n" not in str(error).strip() and len(str(error)) < 1500, str(error)
        return True
    finally:
        signal.alarm(0)
        taken = tracemalloc.get_traced_memory()[1] - before
        assert taken < limit, (
            f"{taken:,} bytes for a file of {path.stat().st_size:,}: {path.read_bytes()[:200]}"
        )
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
    """Make the hashes fit the files again, as whoever wants to do harm would."""
    state = json.loads((folder / "state.json").read_text())
    hashes = {name: checkpoint._sha256(folder / name) for name in FILES}
    (folder / "state.json").write_text(checkpoint.seal(state | {"sha256": hashes}))


def load_everything(folder):
    """What resuming reads."""
    saved = checkpoint.load(folder)
    settings = resume.settings(saved, {})
    model, tokenizer, _ = checkpoint.load_for_sampling(folder)
    saved.restore(model, AdamW(model.parameter_groups(settings.weight_decay)))
    return tokenizer


class Fuzz:
    """Campaigns against one small checkpoint in a folder of its own; most return (files tried, files
    refused).
    """

    def __init__(self, work, seed=0):
        self.folder = small_checkpoint(work / "run")
        self.pristine = work / "pristine"
        shutil.copytree(self.folder, self.pristine)
        self.saved = checkpoint.load(self.folder)
        self.choice = random.Random(seed)
        load_everything(self.folder)  # once, for what is allocated the first time only

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
        tracemalloc.stop()  # it takes most of the time, and there is nothing to find that `damaged` does not
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
        """The same with the hashes made to fit: what is then not wrong by itself may be taken."""
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
            pass  # not JSON any more; it stays as it is

    def arrays(self, number):
        """A safetensors file alone, as from somebody else, without hashes."""
        shapes = {name: p.shape for name, p in self.saved.model().named_parameters()}
        files = self._broken(number, ["model.safetensors"])
        return number, sum(
            refused(lambda path=path: list(checkpoint.read_arrays(path, shapes)), path, must=False)
            for path in files
        )

    def tokenizers(self, number):
        """tokenizer.json alone."""
        (self.pristine / "bpe.json").write_text(BPETokenizer.learn(english()[:5000], 270).to_json())
        files = self._broken(number, ["tokenizer.json", "bpe.json"])
        return number, sum(
            refused(lambda path=path: load_tokenizer(path), path, must=False) for path in files
        )

    def configs(self, number):
        """A TOML file of settings, and config.json alone."""
        toml = self.folder / "config.toml"
        (self.pristine / toml.name).write_text(config.to_toml(TrainConfig(preset="smoke")))
        # what the settings say may be wrong wherever they come from
        read = lambda: config.resolve(config.read_toml(toml))
        count = sum(
            refused(read, path, must=False, names=[""], slack=TOML_SLACK)
            for path in self._broken(number // 2, [toml.name])
        )
        files = self._broken(number // 2, ["config.json"])
        return number // 2 * 2, count + sum(
            refused(self.saved.model_config, path, must=False) for path in files
        )
