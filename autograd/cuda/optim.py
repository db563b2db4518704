"""The optimizer's kernels, over flat buffers."""

from autograd.backend import array_module
from autograd.cuda.launch import THREADS, blocks_for, launch

MOST_BLOCKS = 1024  # that add up squares: enough to keep any GPU busy


def adamw(p, g, m, v, lr, betas, eps, weight_decay, step):
    """Update parameters p and moments m, v in place from the gradient g."""
    beta1, beta2 = betas
    corrections = 1 - beta1**step, 1 - beta2**step
    blocks = blocks_for(p.size, 4 * THREADS)
    launch(
        array_module(p),
        "adamw",
        blocks,
        THREADS,
        p,
        g,
        m,
        v,
        p.size,
        lr,
        beta1,
        beta2,
        eps,
        weight_decay,
        *corrections,
    )


def norm(arrays):
    """The joint Euclidean norm of flat arrays, as a 0-d array."""
    xp = array_module(arrays[0])
    blocks = [min(MOST_BLOCKS, blocks_for(x.size)) for x in arrays]
    partial, total, start = xp.empty(sum(blocks), arrays[0].dtype), xp.empty((), arrays[0].dtype), 0
    for x, count in zip(arrays, blocks, strict=True):
        launch(xp, "sums_of_squares", count, THREADS, x, partial[start : start + count], x.size)
        start += count
    launch(xp, "sum_all", 1, 1024, partial, total, partial.size)
    return xp.sqrt(total)
