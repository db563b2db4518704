"""Where a NaN or infinity comes from: repeats the steps since the last checkpoint and checks every array."""

from collections.abc import Callable

from autograd.anomaly import AnomalyError, all_finite, detect_anomaly, module_at_work
from tinygpt.config import UserError
from tinygpt.run import checkpoint
from tinygpt.run.checkpoint import Checkpoint
from tinygpt.run.job import Job


def report(job: Job, loss: float, step: int, train_step: Callable[[Job, int], object]) -> str:
    """The error message for a loss that became NaN or infinite by this step.

    train_step(job, step) does one training step.
    """
    try:
        saved = checkpoint.load(job.run.folder)
    except UserError as error:
        return (
            f"the loss became {loss} by step {step}; try a lower --learning-rate or --grad-clip 1 ({error})"
        )
    if job.config.detect_anomaly:
        cause = f"first in {first_anomaly(job, saved, step, train_step)}"
    else:
        cause = "--detect-anomaly says why"
    return (
        f"the loss became {loss} by step {step}, {cause}; {saved.folder} is kept: "
        f"--resume {job.run.folder} --force with a lower --learning-rate or --grad-clip 1"
    )


def first_anomaly(
    job: Job, saved: Checkpoint, last_step: int, train_step: Callable[[Job, int], object]
) -> str:
    """Step, module and operation that first made a number infinite or NaN.

    Goes back to the checkpoint and repeats the steps up to last_step. All ranks must call it together.
    """
    names = {}  # of each module, by its id
    for replica in job.workers.replicas:
        for name, module in replica.named_modules():
            names[id(module)] = name
    saved.restore(job.model, job.optimizer)
    for step in range(saved.state["step"], last_step + 1):
        try:
            with detect_anomaly(where=lambda: f"{module_at_work(names) or 'the loss'}: "):
                train_step(job, step)
        except AnomalyError as error:
            return f"step {step}, {error}"
        for name, parameter in job.model.named_parameters():
            if not all_finite(parameter.data):
                return f"step {step}, {name}: its update is not finite"
    return "no step that can be found: all numbers were finite when the steps were repeated"
