"""What all models here are: a `keras.Model` that keeps its weights when `predict` or `evaluate` ends too early."""

from typing import Any

import keras

from maskplay import _backend

__all__ = ["Model"]


class Model(keras.Model):
    """A `keras.Model` that keeps its weights when `predict` or `evaluate` ends before its time.

    Under JAX Keras takes the weights out of the model while these run, and an error or Ctrl-C (■ in a notebook) would
    leave it without them; `fit` puts them back by itself.
    """

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`."""
        with _backend.keeping(self):
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`."""
        with _backend.keeping(self):
            return super().predict(*args, **kwargs)
