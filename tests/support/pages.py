"""A page of `python -m tinygpt page`, taken apart; and its scripts run by node, without a browser."""

import base64
import json
import shutil
import subprocess

import numpy as np
import pytest

from tests.support.elements import Elements
from tests.support.texts import english
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer

TEXT = "I LOVE YOU."


class Page(Elements):
    """A page's elements, its `facts`, and its `scripts`: those that a browser runs."""

    def __init__(self, text):
        super().__init__(text)
        self.facts = json.loads(self.texts["facts"])
        self.scripts = [self.texts[name] for name in ("model", "script")]

    def weights(self):
        """{name: float32 array} of the weights in the page, read without the program that wrote them."""
        raw, at, arrays = base64.b64decode(self.texts["weights"]), 0, {}

        def take(dtype, count):
            nonlocal at
            values = np.frombuffer(raw, dtype, count, at)
            at += values.nbytes
            return values

        types = {"float32": "<f4", "float16": "<f2", "int16": "<i2", "int8": "i1"}
        for name, *shape in self.facts["tensors"]:
            if len(shape) == 1:
                arrays[name] = take("<f4", shape[0])
                continue
            scales = take("<f4", shape[0])[:, None] if self.facts["weights"].startswith("int") else 1
            values = take(types[self.facts["weights"]], shape[0] * shape[1]).reshape(shape)
            arrays[name] = values.astype(np.float32) * scales
        assert at == len(raw)
        return arrays


def as_in_page(model, name):
    """A parameter as the page has it: the weight of a Linear is turned to (out, in)."""
    array = dict(model.named_parameters())[name].data
    is_turned = name.endswith(".weight") and any(part in name for part in ("c_", "lm_head"))
    return array.T if is_turned else array


NODE = """
globalThis.onmessage = null;
%s
const { base64, facts, data } = JSON.parse(require("fs").readFileSync(0, "utf-8"));
tasks.load({ facts, base64 });
const list = (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
console.log(JSON.stringify(((data) => { %s })(data), list));
"""


def in_node(page, body, data=None):
    """What JavaScript returns that sees the page's model, loaded, and `data`. Skips without node."""
    if not shutil.which("node"):
        pytest.skip("needs node, a program that runs JavaScript: apt-get install nodejs")
    source = NODE % (page.texts["model"] + page.texts["worker"].replace('"use strict";', ""), body)
    given = json.dumps({"base64": page.texts["weights"], "facts": page.facts, "data": data})
    result = subprocess.run(
        ["node", "-e", source], input=given, capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def characters(more="", end=False):
    """A tokenizer for TEXT and more characters."""
    return CharTokenizer(TEXT + "\n" + more, end=end)


def byte_pairs(end=True):
    """A tokenizer of byte pairs that were learnt from English and Chinese."""
    return BPETokenizer.learn(english()[:4000] + "山上有一座小屋，屋里住着一位老人。" * 9, 320, end=end)
