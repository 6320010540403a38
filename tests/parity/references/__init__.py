"""What the cast is tested against: tensors by name and shape, and the formulas of models in plain NumPy."""
