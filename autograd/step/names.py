"""What the nodes of a film are called: by the user's names, the model's, and the variables of the loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from autograd.tape import Node
from autograd.tensor import Tensor


class Names:
    """Labels of Tensors, and the modules of models. A Tensor keeps the first label that it gets.

    names: Tensors and models by name. TypeError for anything else.
    """

    def __init__(self, names: Mapping[str, Any]):
        self.modules: dict[int, str] = {}  # {id(module): name}
        self.tensors: list[Tensor] = []
        self._labels: dict[Node | Tensor, str] = {}
        self._of_arrays: dict[int, str] = {}
        self._models: list[Any] = []  # which keeps the ids of their modules valid
        self._add_all(names)
        for name, value in names.items():
            if not isinstance(value, Tensor) and not is_model(value):
                raise TypeError(
                    f"step_through: {name} must be a Tensor, or a model with named_parameters(), "
                    f"not {type(value).__name__}"
                )

    def add_surroundings(self, function: Callable) -> None:
        """What a function knows from outside: variables around it, global ones, and its own object."""
        function = getattr(function, "func", function)  # of a partial
        owner = getattr(function, "__self__", None if hasattr(function, "__code__") else function)
        self._add_all({"self": owner})
        try:
            known = inspect.getclosurevars(inspect.unwrap(function))
        except (TypeError, ValueError):  # no Python function, or a variable that is not assigned yet
            return
        self._add_all({**known.globals, **known.nonlocals})

    def add_variables(self, variables: Mapping[str, Any]) -> None:
        """Local variables of the loss at its end."""
        self._add_all(variables)

    def and_arrays(self, labels: dict[int, str]) -> Names:
        """The same names and, for leaves with these arrays, others: {id(array): label}."""
        both = Names({})
        vars(both).update(vars(self), _of_arrays={**self._of_arrays, **labels})
        return both

    def of(self, made: Node | Tensor) -> str:
        """The label of a result by its node, or of a leaf; "" without one."""
        label = self._labels.get(made, "")
        return label or (self.of_array(made.data) if isinstance(made, Tensor) else "")

    def of_array(self, array: Any) -> str:
        return self._of_arrays.get(id(array), "")

    def module_of(self, label: str) -> str:
        """The module that holds a parameter."""
        module = label.rpartition(".")[0]
        return module if module in self.modules.values() else ""

    def _add_all(self, named):
        """Tensors first: a name of its own is better than a place in something."""
        for name, value in named.items():
            if isinstance(value, Tensor):
                self._add(name, value)
        for name, value in named.items():
            if is_model(value):
                self._add_model(name, value)
            else:
                for part, tensor in _tensors_in(value):
                    self._add(f"{name}{part}", tensor)

    def _add(self, name, tensor):
        name = " ".join(name.split())  # in one line
        self.tensors.append(tensor)
        self._labels.setdefault(tensor.node or tensor, name)
        self._of_arrays.setdefault(id(tensor.data), f"{name}.detach()" if tensor.requires_grad else name)

    def _add_model(self, name, model):
        """The names of its parameters and modules; those of a second model after the model's own."""
        if any(model is other for other in self._models) or id(model) in self.modules:
            return
        before = f"{name}." if self._models else ""
        self._models.append(model)
        for parameter, tensor in model.named_parameters():
            if isinstance(tensor, Tensor):  # not of another library
                self._add(before + parameter, tensor)
        modules = model.named_modules() if hasattr(model, "named_modules") else [("", model)]
        for i, (module_name, module) in enumerate(modules):  # the first is the model
            self.modules.setdefault(id(module), before + module_name if i else before.rstrip("."))


def is_model(value: Any) -> bool:
    return hasattr(value, "named_parameters") and not isinstance(value, type)


def _tensors_in(value) -> Iterator[tuple[str, Tensor]]:
    """("[0]", Tensor) for the items of a list or dict, (".w", Tensor) for the attributes of an object."""
    if isinstance(value, (list, tuple)):
        parts = [(f"[{i}]", item) for i, item in enumerate(value)]
    elif isinstance(value, dict):
        parts = [(f"[{key!r}]", item) for key, item in value.items()]
    elif isinstance(value, (Tensor, ModuleType, type)) or not hasattr(value, "__dict__"):
        return
    else:
        parts = [(f".{attribute}", item) for attribute, item in vars(value).items()]
    yield from ((part, item) for part, item in parts if isinstance(item, Tensor))
