"""Bidirectional layers and stacks of layers."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_jax.cells import Cell
from lstm_jax.checks import check_is
from lstm_jax.nn.dropout import drop
from lstm_jax.nn.recurrent import NOT_STREAMED, Recurrent
from lstm_jax.types import Array, ArrayLike, Rates, Row

State = Any  # a Row of one layer, or a tuple of the states of several layers


class Layer(Protocol):
    """The interface of a layer in a stack.

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
        """Returns the last valid output [B, H] of the outputs [T, B, H]."""
        ...

    def initial_state(self, batch: int) -> State:
        """Returns the state at the start of a stream of `batch` rows."""
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
        """Returns the next state and the output [B, H] of one time step."""
        ...


class Bidirectional(nnx.Module):
    """A forward and a reversed layer of one cell, with concatenated outputs [T, B, 2H].

    Its state and its `initial` are pairs, one entry for each layer.
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
        """Runs both layers, as `Recurrent`, with pairs of states."""
        states, initials = _each("state", state, 2), _each("initial", initial, 2)
        keys = (None, None) if key is None else jax.random.split(key)
        shared: dict[str, Any] = dict(mask=mask, reset=reset, rates=rates)
        first, h = self.forward(x, states[0], initial=initials[0], key=keys[0], **shared)
        second, g = self.backward(x, states[1], initial=initials[1], key=keys[1], **shared)
        return (first, second), jnp.concatenate([h, g], axis=-1)

    def initial_state(self, batch: int) -> tuple[Row, Row]:
        """Raises ValueError: a bidirectional layer cannot stream."""
        raise ValueError(f"a Bidirectional layer {NOT_STREAMED}, or use Recurrent in its place")

    def step(self, state: tuple[Row, Row], x_t: ArrayLike, **options: Any) -> tuple[Any, Array]:
        """Raises ValueError: a bidirectional layer cannot stream."""
        raise ValueError(f"a Bidirectional layer {NOT_STREAMED}, or use Recurrent in its place")

    def last(self, h: Array, mask: ArrayLike | None = None) -> Array:
        """Returns the last valid output of each direction, concatenated to [B, 2H]."""
        h, g = jnp.split(h, [self.forward.output_size], axis=-1)
        return jnp.concatenate([self.forward.last(h, mask), self.backward.last(g, mask)], axis=-1)


class Stack(nnx.Module):
    """A sequence of layers, each of which reads the outputs of the one before.

    Dropout applies between them. Its state and its `initial` are tuples, one entry for each layer,
    in the same order.
    """

    def __init__(self, layers: Sequence[Layer]):
        """Stores the layers, in the order in which they run.

        Raises:
          ValueError: `layers` is empty.
        """
        check_is("layers", layers, Sequence, "a list of layers, such as [lj.nn.Recurrent(...)]")
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
        """Returns the final states and the outputs [T, B, H] of the last layer.

        Arguments are those of `Recurrent`; `state` and `initial` have one entry for each layer.
        """
        count = len(self.layers)
        states, initials = _each("state", state, count), _each("initial", initial, count)
        keys = [(None,) * count] * 2 if key is None else jax.random.split(key, (2, count))
        finals, h = [], x
        each = zip(self.layers, states, initials, *keys, strict=True)
        for depth, (layer, before, start, drop_key, layer_key) in enumerate(each):
            h = drop(h, rates.dropout, drop_key) if rates and depth else h
            final, h = layer(
                h, before, initial=start, mask=mask, reset=reset, key=layer_key, rates=rates
            )
            finals.append(final)
        return tuple(finals), h

    def last(self, h: Array, mask: ArrayLike | None = None) -> Array:
        """Returns the last valid output [B, H] of the last layer."""
        return self.layers[-1].last(h, mask)

    def initial_state(self, batch: int) -> tuple[State, ...]:
        """Returns the state at the start of a stream, one for each layer.

        Raises:
          ValueError: a layer is reversed.
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
        """Advances a stream by one time step, without noise.

        Arguments, results and errors are those of `Recurrent.step`, with one for each layer.
        """
        count, states, h = len(self.layers), [], x_t
        befores, starts = _each("state", state, count), _each("initial", initial, count)
        for layer, before, start in zip(self.layers, befores, starts, strict=True):
            after, h = layer.step(before, h, initial=start, mask_t=mask_t, reset_t=reset_t)
            states.append(after)
        return tuple(states), h


def _each(name: str, states: Any, count: int) -> Sequence[Any]:
    """Returns one state for each of `count` layers, None by default."""
    if states is None:
        return (None,) * count
    if not isinstance(states, tuple | list) or len(states) != count:
        right = f"a tuple of the states of {count} layers"
        length = f" of {len(states)}" if isinstance(states, tuple | list) else ""
        raise ValueError(f"{name} must be {right}, got {type(states).__name__}{length}")
    return states
