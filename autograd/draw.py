"""The tape as a picture: SVG with a layout of our own, so that no outside program is needed.

`draw(loss)` before `loss.backward()` shows operations, shapes and "no gradient yet"; the same picture shown
again afterwards has the size of every gradient, although the tape itself is gone by then.
"""

import dataclasses
import heapq
import html
import math

from autograd.backend import to_numpy
from autograd.tensor import Tensor

NO_GRADIENT = "no gradient yet"
# pixels: a line of text, a letter (a bold one is wider), the space between boxes
LINE, LETTER, GAP = (
    16,
    6.5,
    18,
)
LAYER_GAP = {"right": 64, "down": 58}  # between layers; the texts on the edges stand there
WIDEST = 860  # pixels: a graph that is longer from left to right is drawn from top to bottom
SWEEPS = 8  # of the layout, up and down the layers


@dataclasses.dataclass(eq=False)
class Box:
    """A node of the picture: `lines` of text, and `inputs`, pairs (Box, text on the edge).

    gradient: text, or a function that gives it when the picture is shown.
    """

    lines: list
    inputs: list = dataclasses.field(default_factory=list)
    gradient: object = ""
    is_leaf: bool = False
    highlight: bool = False

    def gradient_text(self):
        return self.gradient() if callable(self.gradient) else self.gradient

    def size(self):
        """Width and height, with room for any later gradient, so that nothing moves."""
        lines = [*self.lines, NO_GRADIENT] if self.gradient else self.lines
        return LETTER * max(1.1 * len(lines[0]), *map(len, lines)) + 16, LINE * len(lines) + 10


class Graph:
    """A picture of boxes (inputs before their users). Jupyter shows it; `save` writes it as an .svg file."""

    def __init__(self, boxes):
        self.boxes = boxes

    def _repr_svg_(self):
        return to_svg(self.boxes)

    def save(self, path):
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._repr_svg_())

    def __repr__(self):
        rows = (
            [" ".join(box.lines), ", ".join(b.lines[0] for b, _ in box.inputs), box.gradient_text()]
            for box in self.boxes
        )
        return "\n".join(" | ".join(filter(None, row)) for row in rows)


def draw(output, limit=200, **names):
    """The tape below the Tensor `output` as a Graph. Call it before backward(): it listens to the gradients
    passing by.

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
                inputs.append((boxes.get(id(parent)) or boxes["rest"], shape_text(parent.shape)))
        boxes[id(node)] = _operation_box(node, names.get(id(node)), inputs)
    if not nodes:
        boxes[id(output)] = _leaf_box(output, names.get(id(output), "leaf"))
    elif output.size == 1:
        list(boxes.values())[-1].lines.append(f"value {output.item():.4g}")
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
    lines = [name, f"{shape_text(leaf.shape)} {leaf.dtype}"]
    if leaf.size == 1:
        lines.append(f"value {leaf.item():.4g}")
    return Box(lines, gradient=lambda: gradient_text(leaf.grad), is_leaf=True)


def _operation_box(node, name, inputs):
    box = Box([f"{name} = {node.name}" if name else node.name, shape_text(node.shape)], inputs, NO_GRADIENT)
    if node.vjps is None:
        box.lines.append("tape freed by backward()")
        return box

    def listening(vjp):
        def pull(gradient):
            box.gradient = gradient_text(gradient)
            return vjp(gradient)

        return pull

    node.vjps = tuple(vjp and listening(vjp) for vjp in node.vjps)
    return box


def shape_text(shape):
    return str(tuple(shape)) if shape else "scalar"


def gradient_text(gradient):
    """The gradient of one element, or the root mean square of many."""
    if gradient is None:
        return NO_GRADIENT
    if getattr(gradient, "size", 1) == 1:
        return f"grad {gradient.item() if hasattr(gradient, 'item') else gradient:.4g}"
    return f"grad rms {math.sqrt(float((gradient * gradient).mean())):.2g}"


# --- layout ---------------------------------------------------------------------------------------


def to_svg(boxes):
    """The SVG text of boxes that are listed with inputs before their users."""
    layers, chains = _layers(boxes)
    depth_of = lambda right: [max(_extent(item, right)[0] for item in layer) for layer in layers]
    right = sum(depth_of(True)) + LAYER_GAP["right"] * (len(layers) - 1) <= WIDEST
    centers, size = _place(layers, chains, depth_of(right), right)
    body = [
        _edge([centers[item] for item in chain], chain[-1].size(), right, label) for chain, label in chains
    ]
    body += [_box(box, *centers[box]) for box in boxes]
    width, height = (round(n) for n in size)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12"><rect width="{width}" height="{height}" fill="white"/>{"".join(body)}</svg>'
    )


def _layers(boxes):
    """Lists of items from the leaves to the output, and chains: per edge its items from input to user, and
    its label.

    An item is a box, or a bare object() that reserves the place where an edge crosses a layer.
    """
    # the longest way to the output, so that a leaf stands beside its first user
    height = dict.fromkeys(boxes, 0)
    for box in reversed(boxes):
        for source, _ in box.inputs:
            height[source] = max(height[source], height[box] + 1)
    top = max(height.values())
    layers = [[] for _ in range(top + 1)]
    for box in boxes:
        layers[top - height[box]].append(box)
    chains = []
    for box in boxes:
        for source, label in dict.fromkeys(box.inputs):
            times = box.inputs.count((source, label))
            crossing = [object() for _ in range(height[source] - height[box] - 1)]
            for i, item in enumerate(crossing, start=top - height[source] + 1):
                layers[i].append(item)
            chains.append(([source, *crossing, box], f"{label} × {times}" if times > 1 else label))
    return layers, chains


def _extent(item, right):
    """(depth, breadth) of an item: along the flow and across it."""
    width, height = item.size() if isinstance(item, Box) else (0, 8)
    return (width, height) if right else (height, max(width, 8))


def _place(layers, chains, depths, right):
    """The centre (x, y) of every item, and the picture's size."""
    neighbours = {item: ([], []) for layer in layers for item in layer}
    for chain, _ in chains:
        for a, b in zip(chain, chain[1:], strict=False):
            neighbours[b][0].append(a)
            neighbours[a][1].append(b)
    across = dict.fromkeys(neighbours, 0.0)
    for layer in layers:
        _spread(layer, across, {item: float(i) for i, item in enumerate(layer)}, right)
    for sweep in range(SWEEPS):
        side = sweep % 2
        for layer in layers[::-1] if side else layers:
            wanted = {
                item: _mean([across[n] for n in neighbours[item][side]], across[item]) for item in layer
            }
            _spread(layer, across, wanted, right)
    low = min(across[item] - _extent(item, right)[1] / 2 for item in across) - GAP
    high = max(across[item] + _extent(item, right)[1] / 2 for item in across) + GAP
    centers, along, gap = {}, GAP, LAYER_GAP["right" if right else "down"]
    for layer, depth in zip(layers, depths, strict=True):
        for item in layer:
            point = (along + depth / 2, across[item] - low)
            centers[item] = point if right else point[::-1]
        along += depth + gap
    size = (along - gap + GAP, high - low)
    return centers, size if right else size[::-1]


def _mean(values, default):
    return sum(values) / len(values) if values else default


def _spread(layer, across, wanted, right):
    """Order a layer by where its items want to be, and put each as near to that as its neighbours allow."""
    layer.sort(key=lambda item: wanted[item])
    end, shift = -math.inf, 0.0
    for item in layer:
        breadth = _extent(item, right)[1]
        across[item] = max(wanted[item], end + breadth / 2)
        end = across[item] + breadth / 2 + GAP
        shift += wanted[item] - across[item]
    for item in layer:
        across[item] += shift / len(layer)


# --- SVG ------------------------------------------------------------------------------------------


def _text(x, y, text, extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" {extra}>{html.escape(text)}</text>'


def _box(box, x, y):
    width, height = box.size()
    fill, stroke = ("#e3eefa", "#4a7fb5") if box.is_leaf else ("#f6f3ea", "#a08c5b")
    if box.highlight:
        fill, stroke = "#ffe08a", "#c27c00"
    parts = [
        f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6" '
        f'fill="{fill}" stroke="{stroke}"/>'
    ]
    for i, line in enumerate(box.lines):
        extra = 'font-weight="bold"' if i == 0 else 'fill="#444"'
        parts.append(_text(x, y - height / 2 + LINE * (i + 1), line, extra))
    gradient = box.gradient_text()
    if gradient:
        color = "#999" if gradient == NO_GRADIENT else "#b3261e"
        parts.append(_text(x, y + height / 2 - 8, gradient, f'fill="{color}"'))
    return "".join(parts)


def _edge(points, user_size, right, label):
    """A smooth line through the points that ends with an arrow head at the border of its user."""
    x, y = points[-1]
    tip = (x - user_size[0] / 2, y) if right else (x, y - user_size[1] / 2)
    points = [*points[:-1], tip]
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        middle = (x0 + x1) / 2, (y0 + y1) / 2
        bends = (middle[0], y0, middle[0], y1) if right else (x0, middle[1], x1, middle[1])
        path += " C{:.1f},{:.1f} {:.1f},{:.1f} {:.1f},{:.1f}".format(*bends, x1, y1)
    wings = [(-6, -3), (-6, 3)] if right else [(-3, -6), (3, -6)]
    head = " ".join(f"{tip[0] + dx:.1f},{tip[1] + dy:.1f}" for dx, dy in [(0, 0), *wings])
    label_x, label_y = points[0][0] * 0.4 + points[1][0] * 0.6, points[0][1] * 0.4 + points[1][1] * 0.6
    halo = 'fill="#555" font-size="11" stroke="white" stroke-width="3" paint-order="stroke"'
    return f'<path d="{path}" fill="none" stroke="#999"/><polygon points="{head}" fill="#999"/>' + _text(
        label_x, label_y + 4, label, halo
    )


# --- a Tensor in a notebook -----------------------------------------------------------------------


def tensor_html(tensor, rows=6, columns=8):
    """A Tensor as HTML: what it is, its gradient if there is one, and the values of its first rows."""
    facts = [f"<b>Tensor</b> {shape_text(tensor.shape)}", str(tensor.dtype)]
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
    cells = to_numpy(matrix[:rows, :columns])
    lines = [
        "".join(_cell(value, largest) for value in row) + ("<td>…</td>" if matrix.shape[1] > columns else "")
        for row in cells
    ]
    if matrix.shape[0] > rows:
        lines.append("<td>…</td>")
    more = (
        f"<div>the first of {tensor.size // matrix.size} such matrices</div>"
        if matrix.size < tensor.size
        else ""
    )
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>" + more


def _cell(value, largest):
    strength = min(abs(value) / largest, 1.0) * 0.6 if math.isfinite(value) else 0.0
    color = "214,69,65" if value > 0 else "65,131,215"
    return f'<td style="background:rgba({color},{strength:.2f})">{value:.4g}</td>'


Tensor._repr_html_ = tensor_html
