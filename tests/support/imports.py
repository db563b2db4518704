"""Who imports whom: arrows between modules, read from their source, and circles among these arrows.

An import inside a function counts like any other. `from X import y` is an arrow to X.y if that is a module,
and to X if not. For `import a.b` Python also runs `a/__init__.py`; that does not count.
"""

import ast


def module_name(path):
    """The name of a module from its path below the root: autograd/ops/nn.py is autograd.ops.nn."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(root, *places):
    """{module: path} of the Python files that places, files or folders below the root, hold."""
    files = []
    for place in places:
        path = root / place
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return {module_name(path.relative_to(root)): path for path in files}


def imported(module, path):
    """The dotted names that a file imports; "X.y" for `from X import y`, "X.*" for all names of X."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            start = [*above, node.module] if node.module else above
            names |= {".".join([*start, alias.name]) for alias in node.names}
    return names


def resolve(name, modules):
    """The module among these that a dotted name is, or is part of; None if it belongs to none of them."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def arrows(modules):
    """{module: the modules it imports} for {module: path}; imports from elsewhere are left out."""
    return {
        module: {resolve(name, modules) for name in imported(module, path)} - {None}
        for module, path in modules.items()
    }


def rooms(graph, parent=""):
    """The arrows between the rooms of a folder: each file in it, and each folder in it as a whole.

    The `__init__` of the folder itself is no room: it collects the names of all the others.
    """
    prefix = f"{parent}." if parent else ""

    def room(module):
        """The room that a module is in; None if that is not in this folder."""
        if not module.startswith(prefix):
            return None
        return prefix + module.removeprefix(prefix).split(".")[0]

    contracted = {room(module): set() for module in graph}
    for module, targets in graph.items():
        contracted[room(module)] |= {room(target) for target in targets} - {None, room(module)}
    contracted.pop(None, None)
    return contracted


def circles(graph):
    """One of the shortest circles, such as ["a", "b", "a"], of each set of modules that reach each other."""
    reach = {module: set(_paths(graph, module)) for module in graph}
    found, done = [], set()
    for module in sorted(graph):
        component = {other for other in reach[module] if module in reach[other]}
        if component and module not in done:
            done |= component
            found.append(min((_paths(graph, start)[start] for start in sorted(component)), key=len))
    return found


def _paths(graph, start):
    """{module: a shortest path from start to it, both included} of all that start reaches."""
    paths, waiting = {}, [[start]]
    for path in waiting:  # which grows meanwhile: breadth first
        for target in sorted(graph[path[-1]]):
            if target not in paths:
                paths[target] = [*path, target]
                waiting.append(paths[target])
    return paths


def named(found):
    """Circles as text for a message: one a line."""
    return "\n".join(" -> ".join(circle) for circle in found)
