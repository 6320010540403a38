"""The plays: one file per technique, read top to bottom: examples, targets, model, loss, answers, score."""
