"""Optimizers as Transformers are trained with: Keras' own, set up.

Each takes the highest learning rate, the batches of the whole training, and for how many of them the rate rises
(default a tenth). It then falls to 0 along a cosine (arXiv:1608.03983), or, where `decay` says in how many batches,
stays and falls in a straight line at the end (arXiv:2404.06395): until then nothing depends on how long the training
will be. Gains and biases do not decay, gradients are clipped to 1. (Keras saves no exclusions from decay with an
optimizer: after loading a model, `exclude_from_decay(model.optimizer, model, GAINS_AND_BIASES)`.)
"""

import sys

import keras

from maskplay.errors import UserError, whole_number, within
from maskplay.optimizers.layer_adaptation import LayerAdaptation
from maskplay.optimizers.muon import Muon
from maskplay.optimizers.schedules import PiecewiseLinear
from maskplay.optimizers.wrapper import GAINS_AND_BIASES

__all__ = ["adamw", "lamb", "muon"]

WARM_UP = 0.1  # of all steps
SCORES = [r"(^|/)(lm/output|rtd/output|nsp/dense|classifier)/"]  # the last layers are AdamW's


def adamw(
    rate: float, steps: int, warmup: int | None = None, decay: int | None = None, accumulate: int = 1
) -> keras.optimizers.Optimizer:
    """AdamW with the decay of 0.01 and the gradients cut at length 1 of BERT (arXiv:1810.04805, appendix A.2).

    Args:
        rate: the highest.
        steps: batches of the whole training.
        warmup: batches on the way up; None = a tenth.
        decay: batches of a straight fall at the end, before which the rate stays; None = a cosine from the highest on.
        accumulate: of how many batches the mean gradient is one step of the weights; `steps` still counts batches, and
            is a multiple of it.

    Raises:
        UserError: a rate below 0, no steps, steps that are no multiple of accumulate, or warm-up and decay that are
            longer than the training or below 0.

    Example:
        >>> optimizer = adamw(1e-3, steps=100)
        >>> float(optimizer.learning_rate)  # before the first step
        0.0
    """
    schedule, together = _rising(rate, steps, warmup, decay), _together(accumulate, steps)
    made = keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0, **together)
    made.exclude_from_weight_decay(var_names=[GAINS_AND_BIASES])
    return made


def lamb(
    rate: float, steps: int, warmup: int | None = None, decay: int | None = None, accumulate: int = 1
) -> keras.optimizers.Optimizer:
    """AdamW with steps as long as rate · ‖weight‖ (LAMB, arXiv:1904.00962): for batches of thousands.

    Arguments and errors are those of `adamw`.

    Example:
        >>> type(lamb(1e-3, steps=100).inner).__name__
        'AdamW'
    """
    return LayerAdaptation(adamw(rate, steps, warmup, decay, accumulate))


def muon(
    rate: float, steps: int, warmup: int | None = None, decay: int | None = None, accumulate: int = 1
) -> keras.optimizers.Optimizer:
    """Muon for the kernels, AdamW for all the rest: the fewest steps where they are dear, at rates of some 3e-3.

    The rest are vectors, embeddings, and kernels that give scores.

    Arguments and errors are those of `adamw`. Source: Jordan 2024 (kellerjordan.github.io/posts/muon).

    Example:
        >>> float(muon(3e-3, steps=100, warmup=0).learning_rate) <= 3.1e-3
        True
    """
    schedule, together = _rising(rate, steps, warmup, decay), _together(accumulate, steps)
    made = Muon(
        schedule, weight_decay=0.1, adam_weight_decay=0.01, global_clipnorm=1.0, exclude_layers=SCORES, **together
    )
    made.exclude_from_weight_decay(var_names=[GAINS_AND_BIASES])
    return made


def _together(accumulate: int, steps: int) -> dict[str, int]:
    accumulate = whole_number("accumulate", accumulate, 1)
    if steps % accumulate:  # the last batches would change nothing
        raise UserError(f"steps: expected a multiple of accumulate, {accumulate}; found {steps}")
    return {"gradient_accumulation_steps": accumulate} if accumulate > 1 else {}


def _rising(
    rate: float, steps: int, warmup: int | None, decay: int | None
) -> keras.optimizers.schedules.LearningRateSchedule:
    steps = whole_number("steps", steps, 1)
    warmup, decay = (
        None if value is None else whole_number(name, value, 0)
        for name, value in (("warmup", warmup), ("decay", decay))
    )
    if not within(rate, 0, sys.float_info.max):
        raise UserError(f"rate: expected a number of at least 0, found {rate!r}")
    rising = int(WARM_UP * steps) if warmup is None else warmup
    if rising > steps:
        raise UserError(f"warmup: expected no more steps than the training has, {steps}; found {rising}")
    if decay is None:
        return keras.optimizers.schedules.CosineDecay(
            0.0 if rising else rate, max(1, steps - rising), warmup_target=rate if rising else None, warmup_steps=rising
        )
    if rising + decay > steps:
        raise UserError(f"expected a rise and a decay within {steps} steps, found {rising} and {decay} steps")
    return PiecewiseLinear(rate, {rising: 1.0, steps - decay: 1.0, steps: 0.0 if decay else 1.0})
