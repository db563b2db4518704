"""Matrix products through cuBLAS: transposes are flags instead of copies, and we choose the precision.

CuPy's own matmul copies transposed operands of batched products and computes these in full float32 only.
"""

import numpy as np

# cuBLAS's numbers for how float32 matrices are multiplied: as they are; rounded to TF32 (10 bits of mantissa)
# or to bfloat16 (7 bits). Sums are in float32 each time.
COMPUTE_TYPES = {"fp32": 68, "tf32": 77, "bf16": 75}
PRECISIONS = tuple(COMPUTE_TYPES)
CUDA_R_32F, DEFAULT_ALGORITHM = 0, -1
# cuBLAS reads alpha and beta by address.
_numbers = np.array([0, 1], np.float32)
ZERO, ONE = (_numbers[i:].ctypes.data for i in range(2))
_compute_type = COMPUTE_TYPES["fp32"]


def set_precision(name: str) -> None:
    """How matrix products on a GPU are computed from now on: "fp32", "tf32" or "bf16"."""
    global _compute_type
    if name not in COMPUTE_TYPES:
        raise ValueError(f"unknown precision {name!r}: {', '.join(COMPUTE_TYPES)}")
    _compute_type = COMPUTE_TYPES[name]


def product(xp, a, b, out=None, add_to=None):
    """a @ b for float32 matrices (n, k) and (k, m), or stacks of equally many.

    The result goes into the array `out`, or is added to the array `add_to`, or is a new array. a and b may be
    transposed views, and their rows may lie apart; what cuBLAS cannot read is copied. The rows of the result
    must be contiguous.
    """
    from cupy_backends.cuda.libs import cublas

    *stack, n, k = a.shape
    m = b.shape[-1]
    if list(b.shape) != [*stack, k, m]:
        raise ValueError(f"matrix product: shapes {a.shape} and {b.shape} do not fit")
    add = add_to is not None
    if add:
        out = add_to
    elif out is None:
        out = xp.empty((*stack, n, m), np.float32)
    (a, a_flag, a_width), (b, b_flag, b_width) = _readable(a), _readable(b)
    out_flag, out_width = _layout(out) or (None, 0)
    if out_flag != 0 or out.shape != (*stack, n, m) or any(x.dtype != np.float32 for x in (a, b, out)):
        raise ValueError(
            f"matrix product: {out.shape} {out.dtype} cannot hold the result of {a.shape} and {b.shape}"
        )
    # cuBLAS stores columns one after the other, so it sees each of our matrices transposed: outᵀ = bᵀ aᵀ.
    sizes = (xp.cuda.device.get_cublas_handle(), b_flag, a_flag, m, n, k, ONE)
    A, B, C = ((x.data.ptr, CUDA_R_32F, width) for x, width in ((a, a_width), (b, b_width), (out, out_width)))
    beta = ONE if add else ZERO
    if stack:
        A, B, C = ((*X, x.strides[0] // 4) for X, x in ((A, a), (B, b), (C, out)))
        cublas.gemmStridedBatchedEx(*sizes, *B, *A, beta, *C, stack[0], _compute_type, DEFAULT_ALGORITHM)
    else:
        cublas.gemmEx(*sizes, *B, *A, beta, *C, _compute_type, DEFAULT_ALGORITHM)
    return out


def _readable(x):
    """(x, or a copy if cuBLAS cannot read it as it lies; and its _layout)."""
    if (layout := _layout(x)) is None:
        x = x.copy()
        layout = _layout(x)
    return x, *layout


def _layout(x):
    """(1 if the matrix is a transposed view else 0, elements from one row of what is stored to the next).

    None if cuBLAS cannot read it: rows that run backwards or lie over each other, or elements apart.
    """
    (n, m), (down, right) = x.shape[-2:], x.strides[-2:]
    if x.ndim > 2 and x.strides[0] < 0:
        return None
    if (right == 4 or m == 1) and (down >= 4 * m or n == 1):
        return 0, down // 4 if n > 1 else m
    if (down == 4 or n == 1) and (right >= 4 * n or m == 1):
        return 1, right // 4 if m > 1 else n
    return None
