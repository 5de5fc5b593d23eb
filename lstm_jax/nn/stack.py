"""Layers beside and above each other."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_jax.cells import Cell
from lstm_jax.nn.dropout import Rates, drop
from lstm_jax.nn.recurrent import WHOLE, Recurrent
from lstm_jax.types import Array, ArrayLike, Row

State = Any  # a row of one layer, or a tuple of states, one for each part


class Layer(Protocol):
    """What a stack asks of its layers.

    Attributes:
      output_size: H, the width of the outputs.
    """

    output_size: int

    def __call__(
        self,
        x: ArrayLike,
        state: State | None = None,
        *,
        initial: State | None = None,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        key: Array | None = None,
        rates: Rates | None = None,
    ) -> tuple[State, Array]:
        """Returns the final state and the outputs [T, B, H]."""
        ...

    def last(self, h: Array, mask: ArrayLike | None = None) -> Array:
        """Returns what the layer puts out last [B, H], of its outputs [T, B, H]."""
        ...

    def initial_state(self, batch: int) -> State:
        """Returns where a stream of `batch` rows starts."""
        ...

    def step(
        self,
        state: State,
        x_t: ArrayLike,
        *,
        initial: State | None = None,
        mask_t: ArrayLike | None = None,
        reset_t: ArrayLike | None = None,
    ) -> tuple[State, Array]:
        """Advances a stream by one instant: the next state and the output [B, H]."""
        ...


class Bidirectional(nnx.Module):
    """Two layers of one cell, the second reversed, their outputs side by side: [T, B, 2H].

    Its state, and `initial`, is the pair of theirs.
    """

    def __init__(self, cell: Cell, input_size: int, *, rngs: nnx.Rngs, **options: Any):
        """Makes both layers; `options` are those of `Recurrent`, except `reverse`."""
        self.forward = Recurrent(cell, input_size, rngs=rngs, **options)
        self.backward = Recurrent(cell, input_size, rngs=rngs, reverse=True, **options)
        self.output_size = self.forward.output_size + self.backward.output_size

    def __call__(
        self,
        x: ArrayLike,
        state: tuple[Row, Row] | None = None,
        *,
        initial: tuple[Row, Row] | None = None,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        key: Array | None = None,
        rates: Rates | None = None,
    ) -> tuple[tuple[Row, Row], Array]:
        """Runs both layers; arguments, results and errors are those of `Recurrent`, in pairs."""
        starts, begins = state or (None, None), initial or (None, None)
        keys = (None, None) if key is None else jax.random.split(key)
        given: dict[str, Any] = dict(mask=mask, reset=reset, rates=rates)
        ahead, h = self.forward(x, starts[0], initial=begins[0], key=keys[0], **given)
        behind, g = self.backward(x, starts[1], initial=begins[1], key=keys[1], **given)
        return (ahead, behind), jnp.concatenate([h, g], axis=-1)

    def initial_state(self, batch: int) -> tuple[Row, Row]:
        """Raises ValueError: what reads both ways cannot be streamed."""
        raise ValueError(f"a Bidirectional layer {WHOLE}, or use Recurrent in its place")

    def step(self, state: tuple[Row, Row], x_t: ArrayLike, **options: Any) -> tuple[Any, Array]:
        """Raises ValueError: what reads both ways cannot be streamed."""
        raise ValueError(f"a Bidirectional layer {WHOLE}, or use Recurrent in its place")

    def last(self, h: Array, mask: ArrayLike | None = None) -> Array:
        """Returns what each direction puts out last, side by side [B, 2H]."""
        h, g = jnp.split(h, [self.forward.output_size], axis=-1)
        return jnp.concatenate([self.forward.last(h, mask), self.backward.last(g, mask)], axis=-1)


class Stack(nnx.Module):
    """Layers one on another, each reading the outputs of the one below, with dropout between them.

    Its state, and `initial`, is the tuple of theirs, the lowest first.
    """

    def __init__(self, layers: Sequence[Layer]):
        """Takes the layers, the lowest first.

        Raises:
          ValueError: there are none.
        """
        if not layers:
            raise ValueError("layers must hold at least one layer, got none")
        self.layers = nnx.data(tuple(layers))
        self.output_size = layers[-1].output_size

    def __call__(
        self,
        x: ArrayLike,
        state: tuple[State, ...] | None = None,
        *,
        initial: tuple[State, ...] | None = None,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        key: Array | None = None,
        rates: Rates | None = None,
    ) -> tuple[tuple[State, ...], Array]:
        """Runs the layers; each has its own state, all share `mask` and `reset`.

        Args:
          x: [T, B, D] inputs.
          state: where the call starts, one state for each layer; `initial` by default.
          initial: where a sequence starts, one state for each layer.
          mask: [T, B] bool; where False states are held and the output is zero.
          reset: [T, B] bool; True where a new sequence begins.
          key: of all noise; without it there is none.
          rates: what is dropped, between layers and in each.

        Returns:
          The final states and the outputs [T, B, H] of the highest layer.
        """
        none = (None,) * len(self.layers)
        keys = [none] * 2 if key is None else jax.random.split(key, (2, len(self.layers)))
        finals, h = [], x
        each = zip(self.layers, state or none, initial or none, *keys, strict=True)
        for depth, (layer, start, begin, below, within) in enumerate(each):
            h = drop(h, rates.dropout, below) if rates and depth else h
            final, h = layer(
                h, start, initial=begin, mask=mask, reset=reset, key=within, rates=rates
            )
            finals.append(final)
        return tuple(finals), h

    def last(self, h: Array, mask: ArrayLike | None = None) -> Array:
        """Returns what the highest layer puts out last [B, H]."""
        return self.layers[-1].last(h, mask)

    def initial_state(self, batch: int) -> tuple[State, ...]:
        """Returns where a stream of `batch` rows starts, one state for each layer.

        Raises:
          ValueError: a layer reads backwards.
        """
        return tuple(layer.initial_state(batch) for layer in self.layers)

    def step(
        self,
        state: tuple[State, ...],
        x_t: ArrayLike,
        *,
        initial: tuple[State, ...] | None = None,
        mask_t: ArrayLike | None = None,
        reset_t: ArrayLike | None = None,
    ) -> tuple[tuple[State, ...], Array]:
        """Advances a stream by one instant, without noise.

        Arguments, results and errors are those of `Recurrent.step`, with one state for each layer.
        """
        none = (None,) * len(self.layers)
        states, h = [], x_t
        for layer, start, begin in zip(self.layers, state, initial or none, strict=True):
            start, h = layer.step(start, h, initial=begin, mask_t=mask_t, reset_t=reset_t)
            states.append(start)
        return tuple(states), h
