"""Reverse-mode automatic differentiation on NumPy and CuPy arrays, written to be read.

Start with `tensor.py`, `operation.py` (what records) and `tape.py` (the walk of `backward`), then read
`ops/elementwise.py` (a rule and its derivative per line).
"""

from autograd import ops
from autograd.anomaly import AnomalyError, detect_anomaly
from autograd.draw import draw
from autograd.gradcheck import GradcheckError, KinkError, gradcheck
from autograd.operation import checkpoint, op
from autograd.ops.attention import *
from autograd.ops.elementwise import *
from autograd.ops.elementwise import abs_
from autograd.ops.linalg import *
from autograd.ops.nn import *
from autograd.ops.reduce import *
from autograd.ops.reduce import max as max
from autograd.ops.reduce import min as min
from autograd.ops.reduce import sum as sum
from autograd.ops.shape import *
from autograd.optim import AdamW, clip_grad_norm, constant, warmup_cosine
from autograd.random import Stream
from autograd.recording import no_grad
from autograd.step import step_through
from autograd.tensor import Tensor

from autograd.cuda import PRECISIONS, set_precision  # isort: skip  # last: it registers the forms for a GPU

abs = abs_

# Without sum, max, min and abs: `from autograd import *` must not hide Python's own.
__all__ = [
    "AdamW",
    "AnomalyError",
    "GradcheckError",
    "KinkError",
    "PRECISIONS",
    "Stream",
    "Tensor",
    "checkpoint",
    "clip_grad_norm",
    "constant",
    "detect_anomaly",
    "draw",
    "gradcheck",
    "no_grad",
    "op",
    "set_precision",
    "step_through",
    "warmup_cosine",
]
__all__ += ops.attention.__all__
__all__ += ops.elementwise.__all__
__all__ += ops.linalg.__all__
__all__ += ops.nn.__all__
__all__ += ops.reduce.__all__
__all__ += ops.shape.__all__
