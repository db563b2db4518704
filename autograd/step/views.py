"""Which boxes of a film are seen: each module folded into one box, or open.

A film is here a plain dict, as `films_of` gives it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

from autograd.svg import NO_GRADIENT, Box

ALL = "*"  # the view in which every module is open
LONGEST = 40  # letters of a name in a box
FEW = 12  # operations: a film of so few begins with all of them in view


@dataclasses.dataclass(eq=False)
class Seen(Box):
    """A box of a view: one node, or the nodes of a folded module. kind: that of the node, or "module"."""

    nodes: list[int] = dataclasses.field(default_factory=list)
    kind: str = "module"
    module: str = ""  # of a folded module: its name
    owner: str = ""  # the module that the box, its nodes or the folded module, belongs to
    can_open: bool = False  # a folded module, or an operation with a film inside
    value: str = ""  # the last line: what a single number is, once it was computed

    def size(self) -> tuple[float, float]:
        """With room for "grad rms 0.00012" in bold letters."""
        width, height = super().size()
        return width + 12, height

    @property
    def result(self) -> int:
        """The node whose gradient stands for the box."""
        return self.nodes[-1]


@dataclasses.dataclass
class View:
    """The boxes, inputs before their users, that are seen while these modules are open.

    name: the innermost open module, "" if none is, ALL if all are.
    """

    name: str
    open: list[str]
    boxes: list[Seen]


def films_of(film: dict) -> list[dict]:
    """A film as `Film.as_json` gives it, and all films inside its operations, one after the other.

    `inside` of a node becomes the place in this list.
    """
    films = []

    def add(each):
        place = len(films)
        films.append(each | {"arrays": film["arrays"]})
        films[place]["nodes"] = [
            node | {"inside": add(node["inside"]) if node["inside"] else None} for node in each["nodes"]
        ]
        return place

    add(film)
    return films


def views_of(film: dict) -> list[View]:
    """The view without an open module, one for each module that can be opened, and one with all open.

    Where a module is open, the modules around it are open too, and all others are folded.
    """
    views, waiting = {}, [""]
    while waiting:
        name = waiting.pop(0)
        if name not in views:
            views[name] = view = View(name, ancestors(name), fold(film, ancestors(name)))
            waiting += [box.module for box in view.boxes if box.module]
    if len(views) > 1:
        modules = [name for name in views if name]
        views[ALL] = View(ALL, modules, fold(film, modules))
    return list(views.values())


def first_view(views: list[View]) -> str:
    """The name of the view to begin with: all open if that is little, else inside a lone outer module."""
    by_name = {view.name: view for view in views}
    largest = by_name.get(ALL, views[0])
    if sum(box.kind == "operation" for box in largest.boxes) <= FEW:
        return largest.name
    view = views[0]
    while len(view.boxes) < 6:
        modules = [box for box in view.boxes if box.module and len(box.nodes) > 3]
        if len(modules) != 1:
            break
        view = by_name[modules[0].module]
    return view.name


def view_showing(node: dict, views: list[View]) -> str:
    """The name of a view with few open modules in which the node is not folded."""
    names = {view.name for view in views}
    return next((name for name in reversed(ancestors(node["module"])) if name in names), "")


def ancestors(module: str) -> list[str]:
    """The modules around a module, outermost first, and itself. A number belongs to the name before it.

    "h.0.attn" -> ["h.0", "h.0.attn"]; "" -> []
    """
    ends = [found.start() for found in re.finditer(r"\.(?!\d)", module)]
    return [module[:end] for end in [*ends, len(module)] if module]


def fold(film: dict, open_modules: list[str]) -> list[Seen]:
    """The boxes of a film while only these modules are open, inputs before their users.

    A module of a single operation is not folded. One that is called in several places has a box for each. So
    no box comes before itself: it holds neighbours in the order in which the operations were recorded.
    """
    nodes, can_fold = film["nodes"], _modules(film) - set(open_modules)
    groups, box_of = [], {}
    for node in nodes:
        if node["kind"] == "operation":
            module = _folded(node, can_fold)
            if not (groups and module and groups[-1].module == module):
                groups.append(Seen([], module=module))
            groups[-1].nodes.append(node["id"])
            box_of[node["id"]] = groups[-1]
    boxes = {}  # in order; a dict, since a box may come up again
    users = _users(film)
    for group in groups or [Seen([])]:
        for number in list(group.nodes):
            for source in filter(lambda source: source is not None, nodes[number]["inputs"]):
                if source not in box_of:  # a leaf or a constant, and this is its first user
                    box_of[source] = _box_of_leaf(nodes[source], users[source], group, can_fold)
                boxes[box_of[source]] = None
        boxes.pop(group, None)
        boxes[group] = None
    for node in nodes:  # a film of a single leaf, or one that nothing uses
        if node["id"] not in box_of:
            box_of[node["id"]] = box = Seen([], nodes=[node["id"]])
            boxes[box] = None
    boxes = [box for box in boxes if box.nodes]
    for box in boxes:
        _complete(box, film, box_of, open_modules)
    return boxes


def _folded(node, can_fold):
    """The module that the node is folded into: the outermost around it that can be; or ""."""
    return next((module for module in ancestors(node["module"]) if module in can_fold), "")


def _modules(film):
    """The modules of more than one operation. One box is as good as another."""
    operations = [node for node in film["nodes"] if node["kind"] == "operation"]
    count = Counter(module for node in operations for module in ancestors(node["module"]))
    return {module for module, n in count.items() if n > 1}


def _users(film):
    """{node: the operations that use it}"""
    users = {node["id"]: set() for node in film["nodes"]}
    for node in film["nodes"]:
        for source in node["inputs"]:
            if source is not None:
                users[source].add(node["id"])
    return users


def _box_of_leaf(leaf, users, group, can_fold):
    """That of its first user, if the leaf is the module's own or a constant only used there; or a new one."""
    own = leaf["module"] and _folded(leaf, can_fold) == group.module
    inner = leaf["kind"] == "constant" and users <= set(group.nodes)
    if group.module and (own or inner):
        group.nodes.insert(0, leaf["id"])
        return group
    return Seen([], nodes=[leaf["id"]])


def _complete(box, film, box_of, open_modules):
    """Give a box its kind, its lines, its inputs and room for its gradient."""
    nodes = [film["nodes"][number] for number in box.nodes]
    last = nodes[-1]
    if len(nodes) == 1:
        box.module, box.kind = "", last["kind"]
    box.owner = box.module or last["module"]
    box.is_leaf = box.kind in ("leaf", "constant")
    box.can_open = bool(box.module or last["inside"])
    box.lines = [_name(box, last, open_modules)]
    operations = [node["name"] for node in nodes if node["kind"] == "operation"]
    if box.module:
        box.lines.append(operations[0] if len(operations) == 1 else f"{len(operations)} operations")
    box.lines.append(shape_text(last["shape"]))
    if not last["shape"] and last["value"] is not None:
        box.value = f"value {float(film['arrays'][last['value']]['min']):.4g}"
        box.lines.append(box.value)
    box.gradient = NO_GRADIENT if gets_gradient(film, last["id"]) else ""
    inputs = {}
    for node in nodes:
        for source, name in zip(node["inputs"], node["input_names"], strict=False):
            if source is not None and box_of[source] is not box:
                names = inputs.setdefault(box_of[source], [])
                if name not in names:
                    names.append(name)
    is_plain = box.kind == "operation"
    box.inputs = [(source, ", ".join(names) if is_plain else "") for source, names in inputs.items()]


def _name(box, node, open_modules):
    """What stands in the first line, without the names of the open modules around it."""
    name = box.module or node["called"]
    around = [module for module in ancestors(box.module or node["module"]) if module in open_modules]
    if around:
        name = name.removeprefix(f"{around[-1]}.")
    if box.kind == "operation" and node["label"] and node["label"] != node["name"]:
        name = f"{name} = {node['name']}"
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2 - 1]}…{name[-LONGEST // 2 :]}"


def shape_text(shape: list[int]) -> str:
    return str(tuple(shape)) if shape else "scalar"


def gradient_words(film: dict, number: int, step: int) -> str:
    """The gradient that a node has after a step, in the words of `autograd.draw`."""
    backward = [each for each in film["steps"][: step + 1] if each["kind"] == "backward"]
    totals = [each["total"] for each in backward if each["to"] == number]
    if not totals and backward and backward[0]["node"] == number:
        totals = [backward[0]["incoming"]]
    if not totals:
        return NO_GRADIENT
    array = film["arrays"][totals[-1]]
    return f"grad rms {float(array['rms']):.2g}" if array["shape"] else f"grad {float(array['min']):.4g}"


def gets_gradient(film: dict, number: int) -> bool:
    """Whether a gradient arrives at a node in the film, or starts there."""
    backward = [step for step in film["steps"] if step["kind"] == "backward"]
    return any(step["to"] == number for step in backward) or bool(backward and backward[0]["node"] == number)
