"""Sequences as arrays: packed rows."""
