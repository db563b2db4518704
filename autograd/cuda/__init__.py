"""What makes a GPU fast: kernels in CUDA C behind the operations of autograd/ops, and matrix products through
cuBLAS.

`ops` has, under the name of an operation, its form on float32 CuPy arrays: the same arguments, value and
pullbacks as that in autograd/ops, where the derivation stands. `@op` chooses. CuPy is only touched once there
is an array on a GPU.
"""
