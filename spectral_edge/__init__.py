"""Spectral analysis of training trajectories from checkpoints."""
