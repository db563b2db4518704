"""How far a training is: a bar on a terminal; where there is none, a line every half minute."""

import sys
import time

import numpy as np
from tqdm import tqdm

from tinygpt.parallel.estimate import duration
from tinygpt.run.job import Job, say

tqdm.monitor_interval = 0  # no thread beside the bar
SILENCE = 30  # seconds without a word, at most, between two steps or two batches of an evaluation


class Progress:
    """Shows the steps of a Job as they are done. All ranks may have one; only rank 0's is seen."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.has_bar = sys.stderr.isatty()
        is_hidden = job.ranks.rank > 0 or not self.has_bar
        self.bar = tqdm(total=job.last_step, initial=job.first_step, unit="step", disable=is_hidden)
        self.trained = job.training_seconds  # before this process
        self.spoken = time.perf_counter()

    def step_done(self, step: int, loss: np.ndarray | float) -> None:
        """Count a step. loss: a 0-d array, which a GPU may still compute; it is only read to be shown."""
        self.bar.update()
        if self._is_time_to_speak():
            self.job.catch_up()
            job, done = self.job, step + 1
            seconds_per_step = (job.training_seconds - self.trained) / (done - job.first_step)
            left = seconds_per_step * (job.last_step - done + job.evaluation_steps(done))
            say(
                f"step {done} of {job.last_step}: loss {float(loss):.4f}, "
                f"{job.tokens_per_second(done):,.0f} tokens per second, {duration(left)} left"
            )

    def logged(self, steps: int, loss: float) -> None:
        """Show a loss that was read anyway beside the bar. steps: how many are done."""
        self.bar.set_postfix_str(f"loss={loss:.3f}, {self.job.tokens_per_second(steps):,.0f} tokens/s")

    def evaluating(self, split: str, batch: int) -> None:
        """Say that an evaluation is at work, if it takes long."""
        self.bar.unpause()  # or else the bar takes it for a slow step and says much too long a time
        if self._is_time_to_speak():
            say(f"evaluating: batch {batch + 1} of {self.job.config.eval_iters} of {split}")

    def close(self) -> None:
        self.bar.close()

    def _is_time_to_speak(self):
        """Whether there is no bar and nothing has been said for long; then the time begins anew."""
        now = time.perf_counter()
        if self.has_bar or now - self.spoken < SILENCE:
            return False
        self.spoken = now
        return True
