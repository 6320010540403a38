"""What `quantize` reached, for the configs of layers that have others inside: a `.keras` file then opens again."""

import re
from typing import Any

import keras


def quantized_parts(layer: keras.layers.Layer) -> dict[str, Any]:
    """The "dtype" for the config of a layer that is quantized, which tells of each sub-layer; {} where nothing is.

    Sub-layers are known by their paths from this layer on: inside another model, the layer's own path may be longer.
    What is made from such a config computes, but Keras' own layers are saved again only after `settle`.

    Example:
        >>> from maskplay.layers.feed import FeedForward
        >>> layer = FeedForward(16)
        >>> layer.build((None, 8))
        >>> layer.outer.quantize("int8")
        >>> policies = quantized_parts(layer)["dtype"]
        >>> [policies[f"{layer.name}/{part}"].name for part in ("inner", "outer")]
        ['float32', 'int8_from_float32']
    """
    above, policies = (layer.path or "").rpartition("/")[0], {}
    for part in layer._flatten_layers():
        if part.path and part.quantization_mode:
            below = part.path.removeprefix(f"{above}/")
            policies[f"(.*/)?{re.escape(below)}"] = _of(part.dtype_policy, part.path)
    if not policies:
        return {}
    default = getattr(layer.dtype_policy, "default_policy", layer.dtype_policy)
    return {"dtype": keras.dtype_policies.DTypePolicyMap(default.name, policies)}


def settle(layer: keras.layers.Layer) -> None:
    """Give sub-layers that come from a file the policy that is theirs: with the map of all, Keras cannot save them.

    Args:
        layer: built, so that paths are known.
    """
    for part in layer._flatten_layers(include_self=False):
        part._dtype_policy = _of(part.dtype_policy, part.path or part.name)


def _of(policy: keras.dtype_policies.DTypePolicy, path: str) -> keras.dtype_policies.DTypePolicy:
    """What a policy says of a path: a layer that comes from a file has the map of the layer around it."""
    return policy[path] if isinstance(policy, keras.dtype_policies.DTypePolicyMap) else policy
