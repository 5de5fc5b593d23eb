"""A whole network: a front, a stack of recurrent layers, a readout and a head."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_jax.checks import check_choice
from lstm_jax.engines.masking import zero_unless
from lstm_jax.nn.dropout import add_noise, check_noise, drop
from lstm_jax.nn.recurrent import sequences
from lstm_jax.nn.stack import Stack, State
from lstm_jax.types import Array, ArrayLike, Rates


class SequenceModel(nnx.Module):
    """A network that computes head(readout(stack(front(x)))).

    The readout is "every", all outputs of the stack, or "last", its output at the last valid time
    step of each row. For a reversed layer this is the first valid one. A row without valid time
    steps gives zeros.
    """

    def __init__(
        self,
        front: nnx.Module | None,
        stack: Stack,
        head: nnx.Module,
        readout: Literal["last", "every"] = "last",
    ):
        """Stores the parts.

        Args:
          front: maps the input to [T, B, D], such as `nnx.Linear` or `nnx.Embed`, or None.
          stack: the recurrent layers.
          head: maps [..., H] to [..., V], such as `nnx.Linear`.
          readout: "last" for outputs [B, V], "every" for [T, B, V].

        Raises:
          ValueError: the readout is unknown.
        """
        check_choice("readout", readout, ("last", "every"))
        self.front, self.stack, self.head, self.readout = front, stack, head, readout

    def __call__(
        self,
        x: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        key: Array | None = None,
        rates: Rates | None = None,
    ) -> Array:
        """Returns the outputs, [B, V] or [T, B, V].

        Args:
          x: the input, time first: [T, B, D], or the input of the front.
          mask: [T, B] bool; where False the states are held.
          reset: [T, B] bool; True where a sequence starts.
          key: PRNG key of all noise; None for no noise.
          rates: dropout and noise of the input, the layers and the head.
        """
        return self.unroll(x, mask=mask, reset=reset, key=key, rates=rates)[1]

    def unroll(
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
        """Runs a part of a sequence from a state; returns the state after it, too.

        Without reversed layers, parts give the outputs of the whole sequence. The readout "last"
        is that of this part: a row without valid time steps in it gives zeros. `state` is the state
        before this part, by default `initial`, the state at sequence starts, by default learned
        states or zeros; both have one entry for each layer. Other arguments are those of the call.
        """
        check_noise(rates, key)
        x, mask, reset = sequences(x, mask, reset)
        x = zero_unless(mask, x)
        stack_key, head_key, input_key = (
            (None, None, None) if key is None else jax.random.split(key, 3)
        )
        input_noise, dropout = (rates.input_noise, rates.dropout) if rates else (None, None)
        x = add_noise(x, input_noise, input_key)
        x = x if self.front is None else self.front(x)
        state, h = self.stack(
            x, state, initial=initial, mask=mask, reset=reset, key=stack_key, rates=rates
        )
        h = h if self.readout == "every" else self.stack.last(h, mask)
        return state, self.head(drop(h, dropout, head_key))

    def initial_state(self, batch: int) -> tuple[State, ...]:
        """Returns the state at the start of a stream of `batch` rows.

        Raises:
          ValueError: a layer is reversed.
        """
        return self.stack.initial_state(batch)

    def stream(
        self,
        state: tuple[State, ...],
        x_t: ArrayLike,
        *,
        initial: tuple[State, ...] | None = None,
        mask_t: ArrayLike | None = None,
        reset_t: ArrayLike | None = None,
    ) -> tuple[tuple[State, ...], Array]:
        """Advances a stream by one time step, without noise.

        The outputs are those of the readout "every". At the last valid time step of a row they
        equal that of "last". Arguments, results and errors are those of `SequenceSpec.stream`.
        """
        x_t, mask_t, reset_t = sequences(x_t, mask_t, reset_t, "_t")
        x_t = zero_unless(mask_t, x_t)
        x_t = x_t if self.front is None else self.front(x_t[None])[0]
        state, h = self.stack.step(state, x_t, initial=initial, mask_t=mask_t, reset_t=reset_t)
        return state, self.head(h)


class TiedHead(nnx.Module):
    """The head h E^T + b on the table E [V, H] of an embedding, with which it shares its weights.

    Source: Press & Wolf 2017; Inan, Khosravi & Socher 2017.
    """

    def __init__(self, embedding: nnx.Embed, dtype: Any):
        """Takes the embedding, and the dtype of computation and outputs."""
        self.embedding, self.dtype = embedding, jnp.dtype(dtype)
        self.bias = nnx.Param(jnp.zeros(self.table.shape[0], self.table.dtype))

    def __call__(self, h: Array) -> Array:
        """Returns the outputs [..., V] of [..., H]."""
        table, bias = (part[...].astype(self.dtype) for part in (self.table, self.bias))
        return h.astype(self.dtype) @ table.T + bias.reshape((1,) * (h.ndim - 1) + (-1,))

    @property
    def table(self) -> nnx.Param:
        """The parameter E."""
        return self.embedding.embedding
