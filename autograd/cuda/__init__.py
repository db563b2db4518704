"""What makes a GPU fast: kernels in CUDA C behind the operations, and matrix products through cuBLAS.

`ops` and `optim` register, for operations of autograd/ops and for the optimizer, a form for float32 CuPy
arrays, with the same arguments, value and pullbacks; the derivations stand at the forms for the CPU. CuPy is
touched only once there is an array on a GPU.
"""

from autograd.cuda import ops, optim
from autograd.cuda.products import PRECISIONS, set_precision

__all__ = ["PRECISIONS", "ops", "optim", "set_precision"]
