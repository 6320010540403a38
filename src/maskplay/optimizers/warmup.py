"""Optimizers as Transformers are trained with: Keras' own, set up."""

import keras

__all__ = ["adamw"]

WARM_UP = 0.1  # of all steps


def adamw(rate: float, steps: int, warmup: int | None = None) -> keras.optimizers.Optimizer:
    """AdamW whose rate rises at first, then falls to 0; norms and biases do not decay.

    As BERT was trained (arXiv:1810.04805, appendix A.2), but falling along a cosine (arXiv:1608.03983).

    Args:
        rate: the highest learning rate.
        steps: batches of the whole training.
        warmup: for how many of them it rises; default a tenth.

    Example:
        >>> optimizer = adamw(1e-3, steps=100)
        >>> float(optimizer.learning_rate)  # before the first step
        0.0
    """
    rising = int(WARM_UP * steps) if warmup is None else warmup
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if rising else rate, max(1, steps - rising), warmup_target=rate if rising else None, warmup_steps=rising
    )
    made = keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0)
    made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made
