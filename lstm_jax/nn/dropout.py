"""What is dropped or disturbed in a call that has a key."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.types import Array, RecurrentWeights


class Rates(NamedTuple):
    """How much is disturbed in a call that has a key: numbers or traced scalars.

    What is dropped is dropped at a rate in [0, 1), and what is left is divided by 1 - rate, so that
    its mean is what it was. For None nothing is drawn. The masks of `input_dropout` and
    `recurrent_dropout` are one a row for the whole call; a reset does not draw them again.

    Attributes:
      dropout: of the outputs, between the layers of a stack and before the head, at every instant
        anew (Srivastava et al. 2014; Zaremba et al. 2014).
      input_dropout: of the input of every layer, the same units at all instants (Gal & Ghahramani
        2016).
      recurrent_dropout: of what is fed back, the same units at all instants (the same).
      weight_drop: of the recurrent weights, once for all rows and instants (Merity et al. 2018).
      input_noise: standard deviation, 0 or more, of the normal noise that is added to the input of
        the whole model, before any front, at every instant anew (Greff et al. 2017).
      zoneout: state -> the rate that takes the place of a `Zoneout` cell's own in every layer, with
        a key and without one.
    """

    dropout: float | Array | None = None
    input_dropout: float | Array | None = None
    recurrent_dropout: float | Array | None = None
    weight_drop: float | Array | None = None
    input_noise: float | Array | None = None
    zoneout: Mapping[str, float | Array] | None = None


def drop(
    x: Array,
    rate: float | Array | None,
    key: Array | None,
    shape: tuple[int, ...] | None = None,
) -> Array:
    """Returns x / (1 - rate) with each entry zeroed with probability `rate`, so that its mean is x.

    The backward pass draws again from the key: no mask is stored.

    Args:
      x: values of any shape.
      rate: a scalar in [0, 1), which may be traced; None returns x itself.
      key: of the draw; None returns x itself.
      shape: of the draw, 1 where one decides for a whole axis of x; that of x by default.

    Source: Srivastava et al. 2014.
    """
    if key is None or rate is None:
        return x
    return _dropped(x, rate, key, x.shape if shape is None else shape)


@functools.partial(jax.checkpoint, static_argnums=3)
def _dropped(x: Array, rate: float | Array, key: Array, shape: tuple[int, ...]) -> Array:
    kept = jax.random.bernoulli(key, 1 - rate, shape)
    return jnp.where(kept, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros_like(x))


def add_noise(x: Array, deviation: float | Array | None, key: Array | None) -> Array:
    """Returns x + deviation n, n standard normal and drawn for each entry.

    Args:
      x: floats of any shape.
      deviation: a scalar, 0 or more, which may be traced; None returns x itself.
      key: of the draw; None returns x itself.

    Raises:
      TypeError: x are symbols, to which nothing can be added.
    """
    if key is None or deviation is None:
        return x
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"input_noise is added to floats, and x are {x.dtype}: leave it out")
    return x + jnp.asarray(deviation, x.dtype) * jax.random.normal(key, x.shape, x.dtype)


def drop_weights(w_h: RecurrentWeights, rate: float | Array | None, key: Array) -> RecurrentWeights:
    """Returns recurrent weights of which each is dropped with probability `rate`, as by `drop`.

    Both matrices of a pair (P, U) are, independently, so that the mean of their product is kept.

    Source: Wan et al. 2013, DropConnect; in a recurrent network, Merity et al. 2018.
    """
    matrices, pair = jax.tree.flatten(w_h)
    keys = jax.random.split(key, len(matrices))
    return pair.unflatten(drop(w, rate, k) for w, k in zip(matrices, keys, strict=True))
