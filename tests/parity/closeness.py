"""How far two results are apart, said in a way that helps."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def assert_within(limit: float, name: str, ours: Any, theirs: np.ndarray, where: np.ndarray | None = None) -> None:
    """The largest absolute difference is at most ``limit``.

    ``where``, booleans (batch, length), leaves out padded positions; in attention maps, which are (batch, heads,
    queries, keys), padded queries.
    """
    ours = keras.ops.convert_to_numpy(ours)
    assert ours.shape == theirs.shape, f"{name}: shape {ours.shape} here, {theirs.shape} there"
    apart = np.abs(ours.astype("float64") - theirs)
    if where is not None:
        apart = apart[np.broadcast_to(where[:, None], apart.shape[:3]) if apart.ndim == 4 else where]
    assert np.isfinite(apart).all(), f"{name}: not finite"
    print(f"{keras.backend.backend()} {name}: {apart.max():.1e} of {limit:.0e}; values to {np.abs(theirs).max():.1f}")
    assert apart.max() <= limit, f"{name}: apart by {apart.max():.2e}, allowed {limit:.0e}"
