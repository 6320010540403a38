"""Checkpoints: bytes to named arrays (`files`), names to names, arrays into a network, and the way back."""
