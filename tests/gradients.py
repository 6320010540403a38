"""Derivatives on whichever backend runs: the only place where tests ask which one that is."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops


def gradient(function: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    """Of a scalar function with respect to its argument, an array."""
    match keras.backend.backend():
        case "jax":
            import jax

            return np.asarray(jax.grad(function)(ops.convert_to_tensor(x)))
        case "torch":
            tensor = ops.convert_to_tensor(x).detach().clone().requires_grad_()
            function(tensor).backward()
            return ops.convert_to_numpy(tensor.grad)
        case "tensorflow":
            import tensorflow as tf

            tensor = ops.convert_to_tensor(x)
            with tf.GradientTape() as tape:
                tape.watch(tensor)
                value = function(tensor)
            return ops.convert_to_numpy(tape.gradient(value, tensor))
    raise AssertionError("no such backend")


def weight_gradients(value: Callable[[], Any], weights: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Of a scalar with respect to variables."""
    match keras.backend.backend():
        case "jax":
            import jax

            def at(values: list[Any]) -> Any:
                with keras.StatelessScope(list(zip(weights, values))):
                    return value()

            return [np.asarray(g) for g in jax.grad(at)([w.value for w in weights])]
        case "torch":
            for weight in weights:
                weight.value.grad = None
            value().backward()
            return [ops.convert_to_numpy(weight.value.grad) for weight in weights]
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                scalar = value()
            slopes = tape.gradient(scalar, [weight.value for weight in weights])
            return [ops.convert_to_numpy(tf.convert_to_tensor(slope)) for slope in slopes]
    raise AssertionError("no such backend")


def kept_bytes(value: Callable[[], Any], weights: Sequence[keras.Variable]) -> int | None:
    """What is kept of the way to a scalar for its gradient with respect to variables; None where nobody tells."""
    match keras.backend.backend():
        case "jax":
            import jax

            def at(values: list[Any]) -> Any:
                with keras.StatelessScope(list(zip(weights, values))):
                    return value()

            _, backwards = jax.vjp(at, [w.value for w in weights])
            return sum(x.nbytes for x in jax.tree.leaves(backwards))
        case "torch":
            import torch

            held = {weight.value.data_ptr() for weight in weights}
            sizes = {}

            def pack(tensor: Any) -> Any:
                if tensor.data_ptr() not in held:
                    sizes[tensor.data_ptr()] = tensor.nbytes
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                value()
            return sum(sizes.values())
    return None


def compile_without_kernels(monkeypatch: Any) -> None:
    """Have PyTorch's `jit_compile=True` trace as ever, but write no kernels, for which it needs a compiler."""
    if keras.backend.backend() == "torch":
        import torch

        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
