"""Keras' quantization without what it costs a test."""

import gc
import warnings

import keras


def to_int8(model: keras.Model) -> keras.Model:
    """The model itself, its kernels in a byte each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras names every layer that has nothing to quantize
        gc.freeze()  # Keras collects garbage for every kernel; what other tests left behind need not be looked at
        model.quantize("int8")
        gc.unfreeze()
    return model
