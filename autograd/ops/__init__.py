"""The operations, a file per family. Each file lists the names of its operations in `__all__`."""

from autograd.ops import attention, elementwise, linalg, nn, operators, reduce, shape

__all__ = ["attention", "elementwise", "linalg", "nn", "operators", "reduce", "shape"]

operators.complete_tensor()
