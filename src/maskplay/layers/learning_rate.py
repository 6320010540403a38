"""A learning rate of its own for one layer, with any optimizer: by reparametrisation.

Source: "让Keras更酷一些！分层的学习率和自由的梯度" (kexue.fm/archives/6418); a CRF's transitions need it
(kexue.fm/archives/7196). Where the optimizer is ours to choose, Keras' own `MultiOptimizer` does the same by name.
"""

from typing import Any

import keras
from keras import ops

from maskplay.errors import UserError


@keras.saving.register_keras_serializable(package="maskplay")
class LearningRateMultiplier(keras.layers.Wrapper):
    """Train a layer `factor` times as fast as the rest.

    The layer's weights θ are stored as θ / factor and multiplied on use, so the wrapper computes what the layer
    computed. An optimizer whose step does not depend on the gradient's scale (Adam, LAMB, Lion, …) then moves θ
    `factor` times as far. Under plain gradient descent it is factor² times: give the square root of what is wanted.
    Decoupled weight decay reaches θ at the common rate; a regularizer of the layer sees θ / factor.

    Args:
        layer: any layer; from then on call only the wrapper, the layer alone would read the stored values.
        factor: more than 0.

    Call arguments and results: those of the layer.

    Raises:
        UserError: the factor is not a positive number, or when called: the layer was quantized or has LoRA, whose
            narrow kernels are multiplied with each other.

    Example:
        >>> import numpy as np
        >>> dense = keras.layers.Dense(3)
        >>> x = np.ones((2, 4))
        >>> before = dense(x)
        >>> bool(np.allclose(LearningRateMultiplier(dense, 100.0)(x), before))
        True
    """

    def __init__(self, layer: keras.layers.Layer, factor: float, **kwargs: Any) -> None:
        # The stored values are multiplied first and rounded to half precision afterwards, by the layer.
        super().__init__(layer, autocast=False, **kwargs)
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < float("inf"):
            raise UserError(f"{self.name}: expected a factor above 0, found {factor!r}")
        self.factor = factor

    def build(self, input_shape: Any = None) -> None:
        if self.built:
            return
        super().build(input_shape)
        for weight in self.layer.weights:
            weight.assign(weight / self._factor(weight))

    def _factor(self, variable: Any) -> float:
        """1 for counters and the states of random generators."""
        return self.factor if "float" in variable.dtype else 1

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if any(part.quantization_mode or getattr(part, "lora_enabled", False) for part in self.layer._flatten_layers()):
            raise UserError(f"{self.name}: expected a layer as it was made, found it quantized or with LoRA: unwrap it")
        variables = self.layer.variables
        used = [(variable, variable.value * self._factor(variable)) for variable in variables]
        with keras.StatelessScope(used, collect_losses=True) as scope:
            before = [scope.get_current_value(variable) for variable in variables]
            outputs = self.layer(inputs, *args, **kwargs)
        for variable, old in zip(variables, before):
            new: Any = scope.get_current_value(variable)
            if new is not old:  # the call moved it: moving statistics, a random generator
                variable.assign(ops.cast(new / self._factor(variable), variable.dtype))
        for loss in scope.losses:
            self.add_loss(loss + 0)  # a tensor of our own: Keras would count the layer's once for each of us
        return outputs

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_mask(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}
