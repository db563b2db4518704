"""The optimizer's kernels, over flat buffers."""

from autograd import optim
from autograd.backend import array_module
from autograd.cuda.launch import THREADS, blocks_for, launch

MOST_BLOCKS = 1024  # that add up squares: enough to keep any GPU busy


@optim.adamw.on_gpu
def adamw(p, g, m, v, lr, betas, eps, weight_decay, step):
    if not all(x.flags.c_contiguous for x in (p, g, m, v)):  # arrays that users put there
        optim.adamw.raw(p, g, m, v, lr, betas, eps, weight_decay, step)
        return
    launch(
        array_module(p),
        "adamw",
        blocks_for(p.size, 4 * THREADS),
        THREADS,
        p=p,
        g=g,
        m=m,
        v=v,
        n=p.size,
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        eps=eps,
        weight_decay=weight_decay,
        bias_m=1 - betas[0] ** step,
        bias_v=1 - betas[1] ** step,
    )


@optim.norm.on_gpu
def norm(*arrays):
    """In two rounds: blocks add up squares of their part, then one block adds up the blocks' sums."""
    xp = array_module(arrays[0])
    arrays = [xp.ascontiguousarray(x) for x in arrays]  # themselves, unless users put others there
    blocks = [min(MOST_BLOCKS, blocks_for(x.size)) for x in arrays]
    partial, total, start = xp.empty(sum(blocks), arrays[0].dtype), xp.empty((), arrays[0].dtype), 0
    for x, count in zip(arrays, blocks, strict=True):
        launch(xp, "sums_of_squares", count, THREADS, x=x, partial=partial[start : start + count], n=x.size)
        start += count
    launch(xp, "sum_all", 1, 1024, x=partial, out=total, n=partial.size)
    return xp.sqrt(total)
