"""The weights of a GPT-2 folder: one safetensors file, or several with an index."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tinygpt.config import UserError
from tinygpt.gpt2.config import PICKLES, WEIGHTS
from tinygpt.run import checkpoint
from tinygpt.run.checkpoint import Shape
from tinygpt.text.tokenizer_folder import read_settings

DTYPES = ("F32", "F16", "BF16", "F64")
HEAD, EMBEDDING = "lm_head.weight", "transformer.wte.weight"
OTHERS = ("tf_model.h5", "flax_model.msgpack", "model.ckpt.index", "*.gguf")


def weight_files(folder: Path) -> list[Path]:
    """The file with the weights, or the several that a large model is stored in."""
    single, index = (folder / name for name in WEIGHTS)
    if single.exists():
        return [single]
    if not index.exists():
        for name in PICKLES:
            if (folder / name).exists():
                raise UserError(
                    f"{folder} has only {name}, a pickle, which can run code: convert it to safetensors"
                )
        others = [path.name for pattern in OTHERS for path in folder.glob(pattern)]
        hint = f"; {others[0]} cannot be read: convert it to safetensors" if others else ""
        raise UserError(f"{single} is missing{hint}")
    names = read_settings(index).get("weight_map")
    names = sorted(set(map(str, names.values()))) if isinstance(names, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise UserError(f"{index}: weight_map should name files in the same folder")
    return [folder / name for name in names]


def read_weights(paths: Sequence[Path], shapes: dict[str, Shape]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (our name, array) for every parameter, one at a time.

    A tied head that the files have as well comes as lm_head.weight (C, V). UserError names a tensor that is
    wrong.
    """
    missing = dict(shapes)
    expected = {HEAD: shapes[EMBEDDING][::-1]} | shapes
    for path in paths:
        checkpoint.check_header(path)
        try:
            with safe_open(path, framework="np") as file:
                for stored in file.keys():  # noqa: SIM118, as `for stored in file` is an error
                    name = stored
                    if not name.startswith(("transformer.", "lm_head.")):
                        name = "transformer." + name
                    if name.endswith((".attn.bias", ".attn.masked_bias")):  # a causal mask
                        continue
                    if name not in expected:
                        raise UserError(f"{path}: tensor {stored} is not one of this model's")
                    shape, transposed = expected.pop(name), name == HEAD
                    missing.pop(name, None)
                    _check_tensor(path, stored, file.get_slice(stored), shape[::-1] if transposed else shape)
                    array = _array(path, file, stored)
                    yield name, array.T if transposed else array
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
    if missing:
        raise UserError(f"{paths[-1]}: tensor {next(iter(missing))} is missing")


def _check_tensor(path, name, found, shape):
    if found.get_dtype() not in DTYPES or tuple(found.get_shape()) != shape:
        raise UserError(
            f"{path}: {name} should be {shape} of {', '.join(DTYPES)}, "
            f"found {tuple(found.get_shape())} of {found.get_dtype()}"
        )


def _array(path: Path, file: Any, name: str) -> np.ndarray:
    """A tensor of an open safetensors file. bfloat16, which NumPy does not have, becomes float32."""
    tensor = file.get_slice(name)
    if tensor.get_dtype() != "BF16":
        return file.get_tensor(name)
    with open(path, "rb") as raw:  # whose header safetensors has checked
        length = int.from_bytes(raw.read(8), "little")
        start, end = json.loads(raw.read(length))[name]["data_offsets"]
        raw.seek(8 + length + start)
        halves = np.frombuffer(raw.read(end - start), "<u2")
    # Its two bytes are the upper two of the same number in float32.
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(tensor.get_shape())
