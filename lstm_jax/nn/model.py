"""A whole network: a front, a stack of layers and a readout."""

from typing import Literal

import jax
from flax import nnx

from lstm_jax.engines.masking import zero_unless
from lstm_jax.nn.dropout import Rates, add_noise, drop
from lstm_jax.nn.recurrent import sequences
from lstm_jax.nn.stack import Stack, State
from lstm_jax.types import Array, ArrayLike


class SequenceModel(nnx.Module):
    """A front, a stack of layers and a readout: outputs = head(readout(stack(front(x)))).

    The readout is "every", all outputs of the stack, or "last", what the stack puts out last: its
    output at the last valid instant of each row, and at the first one for a layer that reads
    backwards. A row with no valid instant is read as zeros.
    """

    def __init__(
        self,
        front: nnx.Module | None,
        stack: Stack,
        head: nnx.Module,
        readout: Literal["last", "every"] = "last",
    ):
        """Takes the parts.

        Args:
          front: maps the input to [T, B, D], such as `nnx.Linear` or `nnx.Embed`, or None.
          stack: the recurrent layers.
          head: maps [..., H] to [..., V], such as `nnx.Linear`.
          readout: "last" for outputs [B, V], "every" for [T, B, V].

        Raises:
          ValueError: readout is neither.
        """
        if readout not in ("last", "every"):
            raise ValueError(f"readout must be one of ('last', 'every'), got {readout!r}")
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
          x: the input, time first: [T, B, D], or what the front takes.
          mask: [T, B] bool; where False the states are held.
          reset: [T, B] bool; True where a new sequence begins.
          key: of all noise; without it there is none.
          rates: what is dropped, between layers, in each, and before the head, and the noise on
            the input.
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
        """Is the call with states in and out, so that a sequence may come in parts.

        Without backward layers, splitting it anywhere changes nothing. The readout "last" reads
        what this part holds: a row with no valid instant in it is read as zeros.

        Args:
          x: the input of this part, as in the call.
          state: where the part starts, one state for each layer; `initial` by default.
          initial: where a sequence starts, one state for each layer; learned states, or zeros, by
            default.
          mask: as in the call.
          reset: as in the call.
          key: as in the call.
          rates: as in the call.

        Returns:
          The final states of the stack, and the outputs [B, V] or [T, B, V].
        """
        x, mask, reset = sequences(x, mask, reset)
        x = zero_unless(mask, x)
        within, above, before = (None, None, None) if key is None else jax.random.split(key, 3)
        input_noise, dropout = (rates.input_noise, rates.dropout) if rates else (None, None)
        x = add_noise(x, input_noise, before)
        x = x if self.front is None else self.front(x)
        state, h = self.stack(
            x, state, initial=initial, mask=mask, reset=reset, key=within, rates=rates
        )
        h = h if self.readout == "every" else self.stack.last(h, mask)
        return state, self.head(drop(h, dropout, above))

    def initial_state(self, batch: int) -> tuple[State, ...]:
        """Returns where a stream of `batch` rows starts.

        Raises:
          ValueError: a layer reads backwards.
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
        """Advances a stream by one instant, without noise.

        Instant by instant the outputs are those of the readout "every"; at the last valid instant
        of a row they are that of "last".

        Args:
          state: the state before the instant; of the first, `initial_state(batch)`.
          x_t: the input of one instant: [B, D], or what the front takes.
          initial: where a sequence starts, one state for each layer.
          mask_t: [B] bool; where False the states are held.
          reset_t: [B] bool; True where a new sequence begins.

        Returns:
          The next state and the outputs [B, V].

        Raises:
          ValueError: a layer reads backwards, or a shape does not fit; TypeError: a dtype does not.
        """
        x_t, mask_t, reset_t = sequences(x_t, mask_t, reset_t, "_t")
        x_t = zero_unless(mask_t, x_t)
        x_t = x_t if self.front is None else self.front(x_t[None])[0]
        state, h = self.stack.step(state, x_t, initial=initial, mask_t=mask_t, reset_t=reset_t)
        return state, self.head(h)
