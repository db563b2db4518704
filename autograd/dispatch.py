"""One function in two forms: as it is written, and with kernels for a GPU.

`@op` (tensor.py) and `@dispatched` make a function that chooses its form by the array it gets. A form for the
GPU registers itself, `@linalg.linear.on_gpu`, in autograd/cuda; no other folder knows which forms there are.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from autograd.backend import has_kernels


class TwoForms(Protocol):
    """A function with a form as it is written, `raw`, and perhaps one for a GPU."""

    raw: Callable
    gpu_form: Callable | None

    def __call__(self, *inputs: Any, **options: Any) -> Any: ...

    def on_gpu(self, form: Callable) -> Callable:
        """Register the form for float32 arrays on a GPU; a decorator.

        TypeError if the form has another name or other arguments.
        """


def choose_form(function: TwoForms, array: Any, others: Iterable = ()) -> Callable:
    """The form of a function for this array: the GPU's, if there is one and kernels can work on the array.

    Of the function's other arrays none may be empty then either.
    """
    if function.gpu_form and has_kernels(array) and all(getattr(other, "size", 1) for other in others):
        return function.gpu_form
    return function.raw


def with_forms(function: Any, raw: Callable) -> Any:
    """Make a function one of TwoForms, with nothing registered for a GPU yet."""

    def on_gpu(form):
        expected, found = (f"{f.__name__}{tuple(inspect.signature(f).parameters)}" for f in (raw, form))
        if found != expected:
            raise TypeError(
                f"{found} cannot be the GPU's form of {expected}: name and arguments must be equal"
            )
        function.gpu_form = form
        return form

    function.raw, function.gpu_form, function.on_gpu = raw, None, on_gpu
    return function


def dispatched(function: Callable) -> TwoForms:
    """Make a function on arrays choose its form by its first argument. For functions without a derivative."""

    @functools.wraps(function)
    def apply(array, *arguments, **options):
        return choose_form(apply, array)(array, *arguments, **options)

    return with_forms(apply, function)
