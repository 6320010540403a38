"""Rematerialisation: what a layer computes on its way is computed again when gradients are, instead of being kept.

Keras' own `RematScope` hands a layer's arguments to the backend as they are, which JAX and TensorFlow accept of float
tensors only, and loses sight of dropout's generators. Here just what has a gradient goes in, and generators come out.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops, tree
from keras.src.backend import get_keras_mask, set_keras_mask  # how layers hand padding on; public only for layers


def rematerialized(layer: keras.layers.Layer) -> Callable[..., Any]:
    """What calls the layer, to the same results and gradients, and keeps only what goes in.

    Args:
        layer: built. Its call moves no state but those of random generators, and adds no loss.

    Returns:
        A function of the layer's arguments, of which any may be tensors, or structures of them. Keras' masks and its
        `training` reach the layer as in any call. With symbolic tensors it is the layer.

    Source: arXiv:1604.06174; "节省显存的重计算技巧也有了Keras版了" (kexue.fm/archives/7367).

    Example:
        >>> dense = keras.layers.Dense(3)
        >>> dense.build((None, 4))
        >>> rematerialized(dense)(ops.ones((2, 4))).shape
        (2, 3)
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        # Said aloud: PyTorch and TensorFlow compute again where no call is around it that would tell.
        training = layer._get_call_context().get_value("training")
        layer._maybe_reset_call_context()
        if training is not None:
            kwargs.setdefault("training", training)
        leaves = tree.flatten((args, kwargs))
        if any(isinstance(leaf, keras.KerasTensor) for leaf in leaves):
            return layer(*args, **kwargs)
        weights = [weight for weight in layer.weights if _is_float(weight)]
        known = {id(weight) for weight in layer.weights}
        states = [variable for variable in layer.variables if id(variable) not in known]
        drawn = [(state, ops.copy(state.value)) for state in states]  # PyTorch's would move on in place
        places = [i for i, leaf in enumerate(leaves) if ops.is_tensor(leaf) and _is_float(leaf)]
        masks = [get_keras_mask(leaves[i]) for i in places]  # inside others stand for these tensors
        outputs: Any = None

        def pure(*floats: Any) -> list[Any]:
            nonlocal outputs
            given = dict(zip(places, map(_masked, floats[len(weights) :], masks)))
            again = [given.get(i, leaf) for i, leaf in enumerate(leaves)]
            args_, kwargs_ = tree.pack_sequence_as((args, kwargs), again)
            with keras.StatelessScope([*drawn, *zip(weights, floats)]) as scope:
                outputs = layer(*args_, **kwargs_)
            tensors = [leaf for leaf in tree.flatten(outputs) if ops.is_tensor(leaf)]
            found = (mask for mask in map(get_keras_mask, tensors) if mask is not None)
            return [*(scope.get_current_value(state) for state in states), *tensors, *found]

        results = iter(keras.remat(pure)(*(weight.value for weight in weights), *(leaves[i] for i in places)))
        for state in states:
            state.assign(next(results))
        inside = tree.flatten(outputs)
        found = [next(results) if ops.is_tensor(leaf) else leaf for leaf in inside]
        for leaf, one in zip(found, inside):
            _masked(leaf, None if get_keras_mask(one) is None else next(results))
        return tree.pack_sequence_as(outputs, found)

    return call


def _is_float(tensor: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(tensor.dtype)


def _masked(tensor: Any, mask: Any) -> Any:
    if mask is not None:
        set_keras_mask(tensor, mask)
    return tensor
