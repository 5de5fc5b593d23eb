"""Experiments: one module for each claim, and the shared runner."""
