"""maskplay."""
