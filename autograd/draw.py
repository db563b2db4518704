"""The tape as a picture, and a Tensor as a table, for notebooks.

`draw(loss)` before `loss.backward()` shows operations, shapes and "no gradient yet". The same picture shown
again afterwards has the size of every gradient, although the tape itself is freed by then.
"""

from __future__ import annotations

import heapq
import html
import math

from autograd.backend import to_numpy
from autograd.svg import NO_GRADIENT, Box, Graph
from autograd.tensor import Tensor


def draw(output: Tensor, limit: int = 200, **names: Tensor) -> Graph:
    """The tape below the Tensor `output` as a Graph. Call it before backward(), whose gradients it shows.

    names: Tensors to be called by name, `draw(loss, W=W, h=h)`; a model: `draw(loss,
    **dict(model.named_parameters()))`. limit: only so many of the newest operations are drawn; one box stands
    for the rest. Inputs that need no gradient are not on the tape and so not in the picture.
    """
    names = {id(tensor.node or tensor): name for name, tensor in names.items()}
    nodes, left_out = _newest(output.node, limit) if output.node else ([], 0)
    boxes = {}
    if left_out:
        boxes["rest"] = Box([f"{left_out:,} older operations"], is_leaf=True)
    for node in reversed(nodes):
        inputs = []
        for parent in node.parents:
            if isinstance(parent, Tensor):
                boxes.setdefault(id(parent), _leaf_box(parent, names.get(id(parent), "leaf")))
            if parent is not None:
                inputs.append((boxes.get(id(parent)) or boxes["rest"], _shape_text(parent.shape)))
        boxes[id(node)] = _operation_box(node, names.get(id(node)), inputs)
    if not nodes:
        boxes[id(output)] = _leaf_box(output, names.get(id(output), "leaf"))
    elif output.size == 1:
        boxes[id(output.node)].lines.append(f"value {output.item():.4g}")
    return Graph(list(boxes.values()))


def _newest(root, limit):
    """The newest `limit` nodes below root, newest first, and how many older ones there are."""
    seen, order, queue = {root}, [], [(-root.order, root)]
    while queue:
        node = heapq.heappop(queue)[1]
        order.append(node)
        for parent in node.parents:
            if parent is not None and not isinstance(parent, Tensor) and parent not in seen:
                seen.add(parent)
                heapq.heappush(queue, (-parent.order, parent))
    return order[:limit], len(order[limit:])


def _leaf_box(leaf, name):
    lines = [name, f"{_shape_text(leaf.shape)} {leaf.dtype}"]
    if leaf.size == 1:
        lines.append(f"value {leaf.item():.4g}")
    return Box(lines, gradient=lambda: gradient_text(leaf.grad), is_leaf=True)


def _operation_box(node, name, inputs):
    """The box of a node. From now on the node's pullbacks write the gradient that they are given into it."""
    label = f"{name} = {node.name}" if name else node.name
    box = Box([label, _shape_text(node.shape)], inputs, NO_GRADIENT)
    if node.pullbacks is None:
        box.lines.append("tape freed by backward()")
        return box

    def listening(pullback):
        def listen_and_pull(gradient):
            box.gradient = gradient_text(gradient)
            return pullback(gradient)

        listen_and_pull.__wrapped__ = pullback  # for those who look for its source
        return listen_and_pull

    node.pullbacks = tuple(pullback and listening(pullback) for pullback in node.pullbacks)
    return box


def gradient_text(gradient: object) -> str:
    """The gradient of one element, or the root mean square of many (an array, a number or None)."""
    if gradient is None:
        return NO_GRADIENT
    if getattr(gradient, "size", 1) == 1:
        return f"grad {gradient.item() if hasattr(gradient, 'item') else gradient:.4g}"
    return f"grad rms {math.sqrt(float((gradient * gradient).mean())):.2g}"


def _shape_text(shape):
    return str(tuple(shape)) if shape else "scalar"


# --- a Tensor in a notebook -----------------------------------------------------------------------


def tensor_html(tensor: Tensor, rows: int = 6, columns: int = 8) -> str:
    """A Tensor as HTML: what it is, its gradient if there is one, and the values of its first rows."""
    facts = [f"<b>Tensor</b> {_shape_text(tensor.shape)}", str(tensor.dtype)]
    if tensor.device != "cpu":
        facts.append(tensor.device)
    if tensor.node:
        facts.append(f"made by <b>{html.escape(tensor.node.name)}</b>")
    elif tensor.requires_grad:
        facts += ["leaf", gradient_text(tensor.grad)]
    return f"<div>{' · '.join(facts)}</div>{_table(tensor, rows, columns)}"


def _table(tensor, rows, columns):
    """The values of the first matrix as a table, larger ones darker, blue below zero and red above."""
    if tensor.size == 0:
        return ""
    matrix = tensor.data.reshape(-1, tensor.shape[-1] if tensor.ndim else 1)
    if tensor.ndim > 1:
        matrix = matrix[: tensor.shape[-2]]
    largest = float(abs(matrix).max()) or 1.0
    dots = "<td>…</td>"
    lines = ["".join(_cell(value, largest) for value in row) for row in to_numpy(matrix[:rows, :columns])]
    if matrix.shape[1] > columns:
        lines = [line + dots for line in lines]
    if matrix.shape[0] > rows:
        lines.append(dots)
    table = "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
    if matrix.size < tensor.size:
        table += f"<div>the first of {tensor.size // matrix.size} such matrices</div>"
    return table


def _cell(value, largest):
    strength = min(abs(value) / largest, 1.0) * 0.6 if math.isfinite(value) else 0.0
    color = "214,69,65" if value > 0 else "65,131,215"
    return f'<td style="background:rgba({color},{strength:.2f})">{value:.4g}</td>'


Tensor._repr_html_ = tensor_html
