"""Learning rates of their own for weights by their paths, with any optimizer."""

import math
import re
import sys
from collections.abc import Mapping
from typing import Any, Self

import keras

from maskplay.errors import UserError, whole_number, within
from maskplay.optimizers.wrapper import OptimizerWrapper, snapshot

__all__ = ["ParameterRates"]

LOWEST = "(embedding|relative)"  # T5's bias by distance feeds all blocks, as the embeddings do
LAYER = re.compile(rf"\(\^\|/\)({re.escape(LOWEST)}|block_\d+)/")  # the patterns of `layer_decay`


@keras.saving.register_keras_serializable(package="maskplay")
class ParameterRates(OptimizerWrapper):
    """Makes the steps of some weights longer or shorter: θ ← θ + factor · (the inner optimizer's step).

    Where a step is proportional to the rate, as in Keras' optimizers, this is a learning rate times `factor`, decay
    included. Source: kexue.fm/archives/6418, there by reparametrization.

    Args:
        inner: any Keras optimizer.
        factors: a regular expression, looked for in each weight's path (`encoder/block_3/attention/query/kernel`), and
            its factor from 0; where several are found the factors multiply. 0 freezes.

    Raises:
        UserError: no dictionary, a negative factor, or, when training starts, a pattern that is found nowhere.

    Example:
        >>> kernel, bias = keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="bias")
        >>> optimizer = ParameterRates(keras.optimizers.SGD(0.25), {"bias": 2})
        >>> optimizer.apply([keras.ops.ones(1), keras.ops.ones(1)], [kernel, bias])
        >>> kernel.numpy().tolist(), bias.numpy().tolist()
        ([0.75], [0.5])
    """

    def __init__(self, inner: keras.optimizers.Optimizer, factors: Mapping[str, float], **kwargs: Any) -> None:
        super().__init__(inner, **kwargs)
        if not isinstance(factors, Mapping):
            raise UserError(f"ParameterRates: expected factors by pattern, as {{'bias$': 2.0}}, found {factors!r:.80}")
        for pattern, factor in factors.items():
            if not within(factor, 0, sys.float_info.max):
                raise UserError(f"ParameterRates: expected a factor from 0 for {pattern!r}, found {factor!r}")
        self.factors = dict(factors)

    @classmethod
    def layer_decay(cls, inner: keras.optimizers.Optimizer, decay: float, blocks: int, **kwargs: Any) -> Self:
        """Rates that shrink from the heads down: layer-wise learning rate decay (arXiv:1801.06146, section 3.2).

        Args:
            inner: any Keras optimizer.
            decay: the factor from one block to the one below, as 0.9.
            blocks: different ones of the encoder, `config.blocks` (ALBERT's layers share one). Heads have the full
                rate, the last block `decay` times that, what lies below the first one `decay ** (blocks + 1)`: the
                embeddings, and T5's bias by distance.

        Example:
            >>> rates = ParameterRates.layer_decay(keras.optimizers.Adam(2e-5), 0.5, blocks=2)
            >>> rates.factors
            {'(^|/)(embedding|relative)/': 0.125, '(^|/)block_0/': 0.25, '(^|/)block_1/': 0.5}
        """
        if not within(decay, 0, sys.float_info.max):
            raise UserError(f"layer_decay: expected a factor as 0.9, found {decay!r:.80}")
        blocks = whole_number("layer_decay: blocks", blocks, 1)
        depths = [LOWEST, *(f"block_{i}" for i in range(blocks))]
        factors = {f"(^|/){name}/": float(decay) ** (len(depths) - i) for i, name in enumerate(depths)}
        return cls(inner, factors, **kwargs)

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            # The lower ones of the layers that `layer_decay` names may be frozen, but not all.
            layers = [pattern for pattern in self.factors if LAYER.fullmatch(pattern)]
            here = [any(re.search(pattern, variable.path) for variable in variables) for pattern in layers]
            frozen = layers[: here.index(True)] if any(here) else []
            found = self.matching([one for one in self.factors if one not in frozen], variables)
            super().build(variables)
            self._products = [
                1  # Keras writes its gradient into it: there is no step
                if getattr(variable, "overwrite_with_gradient", False)
                else math.prod(self.factors[pattern] for pattern, places in found.items() if i in places)
                for i, variable in enumerate(variables)
            ]

    def step(self, grads: list[Any], variables: list[keras.Variable]) -> None:
        products = [self._products[self._get_variable_index(variable)] for variable in variables]
        changed = [(variable, product) for variable, product in zip(variables, products) if product != 1]
        old = [snapshot(variable) for variable, _ in changed]
        real = self.advance(grads, variables)
        for (variable, product), before in zip(changed, old):
            self.put(variable, before + product * (variable.value - before) if product else before, real)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factors": dict(self.factors)}
