"""Which Keras backend runs: chosen when nobody has, the first installed of jax, torch, tensorflow. Imported
before Keras is. Layers ask nothing but whether formulas fuse.
"""

import os
import sys
from importlib.util import find_spec

BACKENDS = ("jax", "torch", "tensorflow")


def choose() -> None:
    """Set KERAS_BACKEND if it is unset and Keras is not imported yet; a choice already made is obeyed.

    Raises:
        ImportError: none is installed; the text names the extras that bring one.
    """
    if "KERAS_BACKEND" in os.environ or "keras" in sys.modules:
        return
    installed = [name for name in BACKENDS if find_spec(name) is not None]
    if not installed:
        extras = " or ".join(f"pip install 'maskplay[{name}]'" for name in BACKENDS)
        raise ImportError(f"maskplay needs one of the backends {', '.join(BACKENDS)}, found none: {extras}")
    os.environ["KERAS_BACKEND"] = installed[0]


def fuses() -> bool:
    """Does the backend always compile, so that a formula written out costs one pass over memory? True under JAX."""
    import keras

    return keras.config.backend() == "jax"
