"""Settings that cannot work together, or of which one has no effect beside the others: nothing is silent."""

import dataclasses
from collections.abc import Iterator, Set

from tinygpt.config import TrainConfig, UserError

# Whoever asks for one of these wants another model than they would get, so it is no mere note.
MISTAKES = {"vocab_size"}


def reconcile(
    config: TrainConfig, flags: Set[str], asked: Set[str], on_gpu: bool = False, first_step: int = 0
) -> tuple[TrainConfig, list[str]]:
    """(the TrainConfig with what gives way to what was asked for, notes for the user).

    flags: the settings on the command line; asked: these, and those that a file changes. first_step: where a
    run that goes on begins. UserError for what contradicts.
    """
    notes = []
    if config.min_lr > config.learning_rate and asked & {"min_lr", "learning_rate"}:
        config, note = _without_rise(config, asked)
        notes.append(note)
    if config.warmup_steps > config.max_steps:
        peak = config.learning_rate * config.max_steps / config.warmup_steps
        notes.append(
            f"the warm-up of {config.warmup_steps} steps is longer than the run of {config.max_steps}: the "
            f"learning rate ends at {peak:.2g} of {config.learning_rate:g}"
        )
    for name, reason in _without_effect(config, on_gpu, first_step):
        value = getattr(config, name)
        if name in flags & MISTAKES:
            raise UserError(f"--{name.replace('_', '-')} {value} has no effect: {reason}; leave it out")
        if name in asked:
            notes.append(f"{name} {value} has no effect: {reason}")
    if 0 < config.max_steps <= first_step:
        notes.append(f"all {config.max_steps} steps are done; {_how_to_go_on(config)}")
    return config, notes


def _without_rise(config, asked):
    """Never let the rate rise to min_lr: a preset's is lowered, one that was asked for is refused."""
    rates = f"min_lr {config.min_lr:g} is above learning_rate {config.learning_rate:g}"
    if "min_lr" in asked:
        raise UserError(
            f"{rates}, so the rate would rise; give a smaller --min-lr, or -1 for a constant rate"
        )
    lowered = dataclasses.replace(config, min_lr=config.learning_rate)
    return lowered, f"{rates}: it is lowered to that, so the rate is constant; --min-lr lets it fall"


def _without_effect(config: TrainConfig, on_gpu: bool, first_step: int) -> Iterator[tuple[str, str]]:
    """Yield (setting, why it changes nothing) for each that has no effect here, if it was asked for."""
    if config.tokenizer != "bpe":
        yield "vocab_size", f"it is for --tokenizer bpe, and the tokenizer is {config.tokenizer}"
    if config.data in ("", "shakespeare", "python"):
        for name in ("encoding", "text_key"):
            yield name, "it is for files"
    if config.decay_vectors and not config.weight_decay:
        yield "decay_vectors", "weight_decay is 0"
    if on_gpu:
        yield "threads", "a GPU computes"
    elif config.precision != "fp32":
        yield "precision", "a CPU computes in float32"
    if config.threads > config.batch_size and not on_gpu:
        yield "threads", f"a batch has only {config.batch_size} sequences, one for each thread at least"
    if config.micro_batch > config.batch_size:
        yield "micro_batch", f"a batch has only {config.batch_size} sequences"
    if config.stop_after > config.max_steps:
        yield "stop_after", f"the run ends after {config.max_steps} steps"
    elif 0 < config.stop_after <= first_step:
        yield "stop_after", f"{first_step} steps are done already"
    if config.patience * config.eval_interval >= config.max_steps:
        yield (
            "patience",
            f"{config.max_steps} steps have too few evaluations, one every {config.eval_interval}",
        )


def _how_to_go_on(config):
    if config.min_lr < 0:
        return "a larger --max-steps goes on"
    return "the learning rate has come down, so start a new run from its weights with --init-from"
