"""A model's weights as bytes for a page; worker.js reads them."""

import numpy as np

from autograd.backend import to_numpy
from tinygpt.config import require
from tinygpt.model import GPT, Linear

# How a matrix can be stored -> (type of its numbers, what to say about it).
KINDS = {
    "float32": ("<f4", "exactly as trained"),
    "float16": ("<f2", "2 bytes each; logits differ by some thousandths"),
    "int16": ("<i2", "2 bytes each, with a scale per row; logits differ by 0.001 at most or so"),
    "int8": ("i1", "1 byte each, with a scale per row; logits differ by some hundredths"),
}


def rows_of(model: GPT) -> dict[str, np.ndarray]:
    """{name: float32 array} of all parameters. A Linear's weight is turned to (out, in): a row per output."""
    arrays = {name: to_numpy(parameter.data) for name, parameter in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            arrays[f"{name}.weight"] = arrays[f"{name}.weight"].T
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def encode(array: np.ndarray, kind: str) -> bytes:
    """The bytes of a parameter. Vectors are few, so they stay float32. Before integers come the rows' scales.

    UserError for weights that are no numbers, or too large for float16.
    """
    require(
        bool(np.isfinite(array).all()),
        "the model's weights are not numbers: it is damaged or its training diverged",
    )
    if array.ndim == 1 or kind == "float32":
        return array.astype("<f4").tobytes()
    if kind == "float16":
        largest = np.abs(array).max()
        require(largest < 65504, f"a weight of {largest:.3g} is too large for float16; use --weights float32")
        return array.astype("<f2").tobytes()
    dtype = np.dtype(KINDS[kind][0])
    scales = np.abs(array).max(1, keepdims=True) / np.float32(np.iinfo(dtype).max)  # (rows, 1)
    scales[scales == 0] = 1
    return scales.astype("<f4").tobytes() + np.rint(array / scales).astype(dtype).tobytes()


def bytes_needed(model: GPT, kind: str) -> int:
    """How many bytes `encode` gives for the matrices of a model, about."""
    return model.num_parameters() * np.dtype(KINDS[kind][0]).itemsize
