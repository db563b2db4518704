"""Reverse-mode automatic differentiation on NumPy and CuPy arrays, written to be read.

Start with `tensor.py` (the tape and `backward`), then `ops/elementwise.py` (a rule and its derivative per
line).
"""

from autograd.anomaly import AnomalyError, detect_anomaly
from autograd.draw import draw
from autograd.gradcheck import GradcheckError, KinkError, gradcheck
from autograd.ops import *  # noqa: F403
from autograd.optim import AdamW, clip_grad_norm, constant, warmup_cosine
from autograd.random import Stream
from autograd.tensor import Tensor, checkpoint, no_grad
