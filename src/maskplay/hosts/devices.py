"""What processes and devices share: every batch, or every kernel besides.

Source: Megatron-LM (arXiv:1909.08053) for what of a Transformer is split along which axis.
"""

from typing import Any

import keras
import numpy as np

from maskplay import _backend
from maskplay.errors import UserError
from maskplay.hosts.processes import place

__all__ = ["layout", "predict", "share_devices", "sharing_devices"]


def share_devices(split: int = 1) -> int:
    """Have all devices of all processes share every batch; to be called before the network is built.

    Args:
        split: so many devices, of one process, share the network's kernels besides (`layout`). The batch is then
            shared by the groups.

    Returns:
        How many share a batch; it must be a multiple of that. 1 where the backend is not JAX.

    Raises:
        UserError: devices that cannot be split so, or a backend that can split nothing.

    Example:
        >>> share_devices()
        1
    """
    if split < 1:
        raise UserError(f"model_parallel: expected at least 1, found {split}")
    if split == 1 and not _backend.is_jax():
        return 1
    jax = _backend.jax_for("a network that devices share")
    owners = [device.process_index for device in jax.devices()]
    counts = {owners.count(owner) for owner in owners}
    if len(counts) > 1:
        raise UserError(f"expected as many devices in every process, found {sorted(counts)}")
    if min(counts) % split:
        raise UserError(
            f"model_parallel: expected a divisor of {min(counts)}, the devices of one process, found {split}"
        )
    devices, groups = keras.distribution.list_devices(), len(owners) // split
    # Without `auto_shard_dataset` Keras takes batches of any kind as they are, not of TensorFlow alone.
    if split > 1:
        mesh = keras.distribution.DeviceMesh((groups, split), ("batch", "model"), devices)
        keras.distribution.set_distribution(
            Split(layout_map=layout(mesh), batch_dim_name="batch", auto_shard_dataset=False)
        )
    elif groups > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False))
    return groups


def sharing_devices() -> int:
    """How many devices, over all processes, share a batch under the current `keras.distribution`; 1 without one.

    Example:
        >>> sharing_devices()
        1
    """
    current = keras.distribution.distribution()
    if current is None or current.device_mesh is None:
        return 1
    mesh = current.device_mesh
    return mesh.shape[mesh.axis_names.index(current.batch_dim_name)]


def layout(mesh: keras.distribution.DeviceMesh) -> keras.distribution.LayoutMap:
    """Which axis of which weight of our networks lies along the mesh's axis "model"; all others are whole everywhere.

    Split are heads (queries, keys, values by columns, the output by rows), the inner width of feed-forward and gated
    layers, and the vocabulary: of the token table, of scores and their bias. One sum in a layer's end makes it whole.

    Example:
        >>> mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])
        >>> layout(mesh)["language_model/encoder/block_0/feed/outer/kernel"].axes
        ('model', None)
    """
    rules = keras.distribution.LayoutMap(mesh)
    rules[r".*embedding/token/embeddings"] = ("model", None)
    rules[r".*block_\d+/\w+/(query|key|value|gate|inner)/kernel"] = (None, "model")
    rules[r".*block_\d+/\w+/(query|key|value|gate|inner)/bias"] = ("model",)
    rules[r".*block_\d+/\w+/(output|outer)/kernel"] = ("model", None)
    rules[r".*lm/output/kernel"] = (None, "model")
    rules[r".*mlm/bias"] = ("model",)
    return rules


class Split(keras.distribution.ModelParallel):
    """Keras' own, where a weight whose size the devices do not divide stays whole instead of being an error."""

    def get_variable_layout(self, variable: Any) -> Any:
        found = super().get_variable_layout(variable)
        sizes = dict(zip(self.device_mesh.axis_names, self.device_mesh.shape))
        axes = getattr(found, "axes", ())  # a weight that lies somewhere already has a layout of the backend's
        if any(axis and size % sizes[axis] for axis, size in zip(axes, variable.shape)):
            return keras.distribution.TensorLayout([None] * len(variable.shape), self.device_mesh)
        return found


def predict(model: keras.Model, x: Any, batch_size: int = 32) -> Any:
    """What `model.predict(x)` is to one process, for several: each computes its share of every batch and has all of it.

    All must call it, with the same examples; Keras' own fails there. Devices need not divide their number.

    Args:
        model: its outputs have one row for each example.
        x: arrays `(examples, …)`, one or a structure of them.
        batch_size: rows of a batch over all processes; rounded up to a multiple of the devices that share it.

    Returns:
        Arrays `(examples, …)`, structured as the outputs are.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
        >>> predict(model, np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).tolist()
        [[3.0], [7.0], [11.0]]
    """
    rank, processes = place()
    devices = sharing_devices()
    rows = -(-batch_size // devices) * devices
    count = len(keras.tree.flatten(x)[0])
    which = np.minimum(np.arange(-(-count // rows) * rows), count - 1)  # the last one again, up to a full batch
    mine = which.reshape(-1, processes, rows // processes)[:, rank].ravel()
    kept, compiled = model.predict_step, model.predict_function

    def whole(state: Any, data: Any) -> tuple[Any, Any]:
        outputs, state = kept(state, data)
        mesh = keras.distribution.distribution().device_mesh

        def everywhere(y: Any) -> Any:
            layout = keras.distribution.TensorLayout([None] * len(y.shape), mesh)
            return keras.distribution.distribute_tensor(y, layout)

        return keras.tree.map_structure(everywhere, outputs), state

    try:
        if processes > 1:
            model.predict_step, model.predict_function = whole, None
        share = keras.tree.map_structure(lambda values: np.asarray(values)[mine], x)
        found = model.predict(share, batch_size=rows // processes, verbose=0)
    finally:
        if processes > 1:
            del model.predict_step
            model.predict_function = compiled
    return keras.tree.map_structure(lambda values: values[:count], found)
