"""Several processes as one: on several hosts, each with its devices, they share every batch, or every kernel.

Keras and JAX do the work; here is what they leave to each program. Only JAX's processes can do this; alone, all of it
does nothing.
"""

from maskplay.hosts.devices import layout, predict, share_devices, sharing_devices
from maskplay.hosts.processes import in_turn, join, place, together, told, wait

__all__ = [
    "in_turn",
    "join",
    "layout",
    "place",
    "predict",
    "share_devices",
    "sharing_devices",
    "told",
    "together",
    "wait",
]
