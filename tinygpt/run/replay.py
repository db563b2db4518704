"""Where a NaN or an infinity comes from: the steps since the last checkpoint once more, looking at every
array.
"""

import sys

from autograd.anomaly import AnomalyError, all_finite, detect_anomaly
from tinygpt.config import UserError
from tinygpt.model import Module
from tinygpt.run import checkpoint


def report(loss, step, run_folder, workers, optimizer, train_step):
    """The error message for a loss that became NaN or infinite by this step; train_step(step) may be None: no
    replay.
    """
    try:
        saved = checkpoint.load(run_folder)
    except UserError as error:
        return (
            f"the loss became {loss} by step {step}; try a lower --learning-rate or --grad-clip 1 ({error})"
        )
    cause = (
        f"first in {first_anomaly(saved, step, workers, optimizer, train_step)}"
        if train_step
        else "--detect-anomaly says why"
    )
    return (
        f"the loss became {loss} by step {step}, {cause}; {saved.folder} is kept: "
        f"--resume {run_folder} --force with a lower --learning-rate or --grad-clip 1"
    )


def first_anomaly(saved, last_step, workers, optimizer, train_step):
    """Step, module and operation that first made a number infinite or NaN.

    The steps up to last_step run again.
    """
    model, *others = workers.replicas
    names = {id(module): name for replica in (model, *others) for name, module in replica.named_modules()}
    saved.restore(model, optimizer)
    for step in range(saved.state["step"], last_step + 1):
        try:
            with detect_anomaly(where=lambda: f"{_module_at_work(names)}: "):
                train_step(step)
        except AnomalyError as error:
            return f"step {step}, {error}"
        for name, parameter in model.named_parameters():
            if not all_finite(parameter.data):
                return f"step {step}, {name}: its update is not finite"
    return "no step that can be found: the replay stayed finite"


def _module_at_work(names):
    """The name of the innermost module among the callers."""
    frame = sys._getframe(1)
    while frame:
        module = frame.f_locals.get("self")
        if isinstance(module, Module) and id(module) in names:
            return names[id(module)]
        frame = frame.f_back
    return "the loss"
