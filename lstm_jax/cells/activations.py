"""Activation functions in the form that compiles to the fastest code."""

import jax.numpy as jnp

from lstm_jax.types import Array


def sigmoid(x: Array) -> Array:
    """Returns 1 / (1 + exp(-x)), computed as (tanh(x / 2) + 1) / 2.

    This form needs one transcendental function and no division.
    """
    return 0.5 * jnp.tanh(0.5 * x) + 0.5
