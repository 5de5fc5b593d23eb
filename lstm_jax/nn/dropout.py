"""Dropout and noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from lstm_jax.checks import check_is, check_key
from lstm_jax.types import Array, Rates, RecurrentWeights


def check_noise(rates: Rates | None, key: Array | None) -> None:
    """Raises an error for rates or a key of another kind, or a rate out of its range.

    A traced rate cannot be checked.
    """
    check_is("rates", rates, Rates | None, "lj.nn.Rates, such as Rates(dropout=0.5)")
    if key is not None:
        check_key(key)
    for path, rate in jax.tree.leaves_with_path(rates):
        name = jax.tree_util.keystr(path)[1:]
        high, right = (np.inf, "0 or more") if name == "input_noise" else (1, "in [0, 1)")
        if isinstance(rate, Tracer):
            continue
        known = np.asarray(rate)  # an operation of JAX would be traced inside jit
        if not np.all((known >= 0) & (known < high)):
            raise ValueError(f"rates.{name} must be {right}, got {rate!r:.40}")


def drop(
    x: Array,
    rate: float | Array | None,
    key: Array | None,
    shape: tuple[int, ...] | None = None,
) -> Array:
    """Returns x / (1 - rate) with each entry zeroed with probability `rate`.

    The mean is x. The backward pass draws the mask again from the key instead of storing it.

    Args:
      x: values of any shape.
      rate: a scalar in [0, 1), which may be traced; None returns x itself.
      key: PRNG key; None returns x itself.
      shape: shape of the mask, with 1 for axes of x that share it; the shape of x by default.

    Source: Srivastava et al. 2014.
    """
    if key is None or rate is None:
        return x
    return _dropped(x, rate, key, x.shape if shape is None else shape)


@functools.partial(jax.checkpoint, static_argnums=3)
def _dropped(x: Array, rate: float | Array, key: Array, shape: tuple[int, ...]) -> Array:
    mask = jax.random.bernoulli(key, 1 - rate, shape)
    return jnp.where(mask, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros_like(x))


def add_noise(x: Array, deviation: float | Array | None, key: Array | None) -> Array:
    """Returns x + deviation * n, with n standard normal, drawn for each entry.

    Args:
      x: floats of any shape.
      deviation: a scalar, 0 or more, which may be traced; None returns x itself.
      key: PRNG key; None returns x itself.

    Raises:
      TypeError: x are not floats.
    """
    if key is None or deviation is None:
        return x
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"input_noise must be None for x of {x.dtype}: it is added to floats")
    return x + jnp.asarray(deviation, x.dtype) * jax.random.normal(key, x.shape, x.dtype)


def drop_weights(w_h: RecurrentWeights, rate: float | Array | None, key: Array) -> RecurrentWeights:
    """Returns recurrent weights after `drop` with probability `rate`.

    The two matrices of a pair (P, U) have independent masks, so the mean of their product does not
    change.

    Source: Wan et al. 2013, DropConnect; in a recurrent network, Merity et al. 2018.
    """
    matrices, pair = jax.tree.flatten(w_h)
    keys = jax.random.split(key, len(matrices))
    return pair.unflatten(drop(w, rate, k) for w, k in zip(matrices, keys, strict=True))
