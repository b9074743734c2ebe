"""The trackers: where runs live, where checkpoints come from, and where findings go back to."""
