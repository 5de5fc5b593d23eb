"""Sequences as arrays."""
