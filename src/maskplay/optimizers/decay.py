"""Which weights decay, said by their paths."""

from collections.abc import Sequence

import keras

from maskplay.errors import UserError
from maskplay.optimizers.wrapper import chain, leaves, listed, paths_matching

__all__ = ["exclude_from_decay"]


def exclude_from_decay(
    optimizer: keras.optimizers.Optimizer, model: keras.Model, patterns: str | Sequence[str]
) -> list[str]:
    """Free weights from decay by regular expressions, looked for in their paths; returns the paths.

    Keras' own `exclude_from_weight_decay(var_names=…)` sees only the last part of a path (`kernel`, `bias`), except
    under TensorFlow: the name of a layer excludes nothing, and nothing tells. Keras saves no exclusions with an
    optimizer, so call this again on `model.optimizer` after loading, before training goes on.

    Args:
        optimizer: with `weight_decay=`, or wrappers or a `MultiOptimizer` around such. Replaces earlier exclusions.
        model: built; its trainable weights are meant.
        patterns: as `"norm/"` or `"bias$"`; or one of them.

    Raises:
        UserError: a pattern is found in no path, or the patterns in all, the model has no weights yet, or what is given
            is no optimizer.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="head")], name="m")
        >>> optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.1)
        >>> exclude_from_decay(optimizer, model, ["head/bias"])
        ['m/head/bias']
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise UserError(f"exclude_from_decay: expected a Keras optimizer, found {optimizer!r:.80}")
    if not model.trainable_variables:
        raise UserError(f"exclude_from_decay: {model.name} has no weights yet; call or build it first")
    patterns = listed(patterns, "exclude_from_decay")
    found = paths_matching(patterns, model.trainable_variables, "exclude_from_decay")
    paths = {path for matches in found.values() for path in matches}
    excluded = [variable for variable in model.trainable_variables if variable.path in paths]
    if len(excluded) == len(model.trainable_variables):  # under PyTorch Keras would fail later, without saying why
        raise UserError(f"exclude_from_decay: {patterns} leave nothing to decay; drop weight_decay=")
    for each in [*chain(optimizer)]:
        # It knows its parts only then; wrappers around it wait: they note what the weights are when training begins.
        if isinstance(each, keras.optimizers.MultiOptimizer) and not each.built:
            each.build(model.trainable_variables)
    for each in leaves(optimizer):  # wrappers pass it on; a MultiOptimizer does not
        own = {id(variable) for variable in each._trainable_variables} if each.built else {0}
        if each.weight_decay and own <= {id(variable) for variable in excluded}:
            raise UserError(f"exclude_from_decay: {patterns} leave {each.name} nothing to decay; drop weight_decay=")
        each.exclude_from_weight_decay(var_list=excluded)
    return [variable.path for variable in excluded]
