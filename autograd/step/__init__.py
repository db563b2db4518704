"""Step through a backward pass: the real engine runs once and is recorded, then shown step by step.

In the order in which they are best read:

- what is recorded: `record.py`
- what a film is made of: `film.py`; and `nodes.py` and `steps.py`, which make it from what was recorded, with
  the help of `names.py` (what things are called), `why.py` (the sentences), `sources.py` (the lines that run)
- from a loss to its film: `filming.py`; what is inside a fused operation: `compositions.py`
- the film as text: `text.py`; in a terminal: `terminal.py`, `__main__.py`, with `examples.py`
- the film as a page: `page.py`, with its boxes (`views.py`), their picture (`graph.py`) and the arrays
  (`heatmaps.py`), played by `player.js`; and `still.py`, a picture for where no script runs
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autograd.step.film import Film
    from autograd.tensor import Tensor


def step_through(loss: Callable[[], Tensor] | Tensor, /, **names: Any) -> Film:
    """The forward and the backward pass of a loss as a Film, which shows itself step by step.

    At the end of a notebook's cell a Film shows a player. `print` lists its steps. `film.save(path)` writes a
    page. A fused operation can be opened: it is composed of primitives, with the same numbers.

    loss: a function without arguments that computes a Tensor of one element. It runs once. Or such a Tensor,
    before its tape is freed: then, of the results in between, only Tensors among the names are known.

    names: Tensors to be called by name. And models, `model=model`: objects with named_parameters(), and with
    named_modules(), by which operations fold. What the function uses has the names of its variables already.

    No `.grad` changes: the film begins with no gradients, also where some are there already. The tape of a
    Tensor stays, so that backward() works afterwards. Raises RuntimeError as backward() does, and TypeError
    for what is no loss.
    """
    from autograd.step.filming import film_of
    from autograd.step.names import Names

    return film_of(loss, Names(names))
