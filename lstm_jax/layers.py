"""Depth: Flax NNX modules round a cell over time, and the two pure functions that learning sees.

A layer is called with x [T, B, D] and returns its final state and h [T, B, H]; where it stands in a
stack does not matter. Modules own parameters, functions own mathematics, and keys go through the
call: no module keeps a stream of random numbers.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_jax.cells import Cell, Zoneout, feedback_width, initial_state, zoneout_name
from lstm_jax.engines import Engine, checks, projected, resolve, unroll
from lstm_jax.engines.choice import check_engine
from lstm_jax.engines.masking import zero_unless
from lstm_jax.initializers import BiasInit, WeightInit, glorot, init, orthogonal
from lstm_jax.types import Array, ArrayLike, CellParams, Noise, RecurrentWeights, Row, wide

State = Any  # a row of one layer, or a tuple of states, one for each part

_WHOLE = "reads the last instant first and cannot be streamed: call it on whole sequences"


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


class Recurrent(nnx.Module):
    """One recurrent layer of any cell: `unroll` with parameters of its own.

    A reversed layer reads every sequence from its last instant to its first. It equals the forward
    layer on each reversed segment: masked instants hold the state, so padding on the right needs
    no special case; a reset, which begins a segment, ends it for whom comes from behind. A reset at
    instant 0 concerns earlier instants alone, so it does nothing here.

    In mixed precision, `dtype="bfloat16"`, matrix products take bfloat16 and sum in float32, states
    and gates are float32, the outputs bfloat16, and parameters and their gradients float32.

    Attributes:
      w_x, w_h, b, theta: the parameters, as `CellParams` has them.
      initial: the learned initial state by name, each [width], or None.
      output_size: H, the width of the outputs, or p where they are projected.
      dtype: of the outputs and of what the matrix products take.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        *,
        rngs: nnx.Rngs,
        w_x: WeightInit | None = None,
        w_h: WeightInit | None = None,
        b: BiasInit | None = None,
        projection: int | None = None,
        learn_initial: bool = False,
        reverse: bool = False,
        engine: str | Engine = "auto",
        checked: bool = False,
        dtype: Any = "float32",
        param_dtype: Any = None,
    ):
        """Draws the initial parameters.

        Args:
          cell: the recurrent cell.
          input_size: D, the width of the input.
          rngs: where the key `params` is drawn from; not kept.
          w_x: initialiser of the input weights, block by block; Glorot by default.
          w_h: initialiser of the recurrent weights, block by block; orthogonal by default.
          b: initialiser of the biases; those of the cell by default.
          projection: p, for outputs r = h P [p] that are fed back as r U: `w_h` is the pair (P, U),
            and the state keeps h; None for outputs h. Source: Sak, Senior & Beaufays 2014.
          learn_initial: makes the initial state a parameter, zero at first.
          reverse: reads sequences from their end.
          engine: what runs the loop, by name or an instance.
          checked: asserts that everything is finite and in the cell's `ranges`, as `unroll` does.
          dtype: of computation: floats that come in are cast to it, matrix products take it,
            outputs have it; states are float32 at least, whatever it is.
          param_dtype: of the parameters; None for float32, or `dtype` where that is wider.

        Raises:
          ValueError: `projection` is no positive integer, or the cell cannot be projected.
        """
        params = init(
            cell, rngs.params(), input_size, w_x=w_x, w_h=w_h, b=b, projection=projection,
            dtype=_stored(dtype, param_dtype),
        )  # fmt: skip
        self.dtype = jnp.dtype(dtype)
        self.cell, self.reverse, self.engine, self.checked = cell, reverse, engine, checked
        self.w_x, self.b = nnx.Param(params.w_x), nnx.Param(params.b)
        self.w_h: Any = nnx.data(jax.tree.map(nnx.Param, params.w_h))
        self.theta = _named(params.theta)
        start = initial_state(cell, dtype=params.b.dtype)
        self.initial = _named(start) if learn_initial else None
        width = jax.eval_shape(lambda: cell.output(initial_state(cell))).shape[-1]
        self.output_size, self.projection = projection or width, projection

    @property
    def params(self) -> CellParams:
        """The parameters as `lj.unroll` and `lj.step` take them."""
        theta = self.cell.Theta(_values(self.theta))
        return CellParams(self.w_x[...], _values(self.w_h), self.b[...], theta)

    def __call__(
        self,
        x: ArrayLike,
        state: Row | None = None,
        *,
        initial: Row | None = None,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        key: Array | None = None,
        rates: Rates | None = None,
    ) -> tuple[Row, Array]:
        """Runs the layer over time.

        Args:
          x: [T, B, D] inputs, floats, cast to `dtype`.
          state: where the call starts, each [B, width], float32 at least: before instant 0, or
            behind the last one when reversed; `initial` by default.
          initial: where a sequence starts, each [width] or [B, width]; the learned state, or zeros,
            by default.
          mask: [T, B] bool; where False the state is held and the output is zero.
          reset: [T, B] bool; True where a new sequence begins.
          key: of all noise, a noisy cell's too; without it there is none.
          rates: what is dropped; `dropout` and `input_noise` are not a single layer's business.

        Returns:
          The state after the instant read last, each [B, width], and the outputs [T, B, H], which
          stand where their inputs stand.

        Raises:
          ValueError: a shape does not fit; TypeError: a dtype or the kind of state does not.
        """
        x, mask, reset = _sequences(x, mask, reset)
        if jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(self.dtype)
        initial = self._learned() if initial is None else initial
        if self.reverse:
            x, mask, reset = _flip((x, mask, _ends(reset)))
        x, params, noise = self._disturbed(x, key, rates)
        state, h = unroll(
            self.cell, params, x, state,
            initial=initial, mask=mask, reset=reset, noise=noise, engine=self.engine,
            checked=self.checked,
        )  # fmt: skip
        h = projected(h, params.w_h)
        return state, _flip(h) if self.reverse else h

    def _disturbed(self, x, key, rates):
        """Returns the input, the parameters and the noise of a call with `key`."""
        rates = rates or Rates()
        params, cell = _with_zoneout(self.cell, self.params, rates.zoneout), self.cell
        if key is None:
            return x, params, None
        x_key, h_key, w_key, cell_key = jax.random.split(key, 4)
        (T, B), keep = x.shape[:2], None
        x = drop(x, rates.input_dropout, x_key, (1, *x.shape[1:]))
        if rates.recurrent_dropout is not None:
            ones = jnp.ones((B, feedback_width(cell)), wide(x.dtype))
            keep = drop(ones, rates.recurrent_dropout, h_key)
        params = params._replace(w_h=drop_weights(params.w_h, rates.weight_drop, w_key))
        keys = jax.random.split(cell_key, T) if cell.noisy else None
        return x, params, Noise(keys, keep)

    def initial_state(self, batch: int) -> Row:
        """Returns where a stream of `batch` rows starts, each [B, width]: learned, or zeros.

        Raises:
          ValueError: the layer is reversed.
        """
        self._refuse_reverse()
        learned = self._learned()
        if learned is None:
            return initial_state(self.cell, (batch,), wide(self.dtype))
        return jax.tree.map(lambda s: jnp.tile(s, (batch, 1)), learned)

    def _learned(self) -> Row | None:
        if self.initial is None:
            return None
        start = self.cell.State(**_values(self.initial))
        return jax.tree.map(lambda s: s.astype(wide(self.dtype)), start)

    def step(
        self,
        state: Row,
        x_t: ArrayLike,
        *,
        initial: Row | None = None,
        mask_t: ArrayLike | None = None,
        reset_t: ArrayLike | None = None,
    ) -> tuple[Row, Array]:
        """Advances a stream by one instant: the call on a sequence of one.

        Args:
          state: the state before the instant, each [B, width].
          x_t: [B, D] the input.
          initial: as in the call.
          mask_t: [B] bool; where False the state is held and the output is zero.
          reset_t: [B] bool; True where a new sequence begins.

        Returns:
          The next state, each [B, width], and the output [B, H].

        Raises:
          ValueError: the layer is reversed, or a shape does not fit; TypeError: a dtype does not.
        """
        self._refuse_reverse()
        x, mask, reset = jax.tree.map(lambda a: a[None], (x_t, mask_t, reset_t))
        state, h = self(x, state, initial=initial, mask=mask, reset=reset)
        return state, h[0]

    def _refuse_reverse(self) -> None:
        if self.reverse:
            raise ValueError(f"a reversed Recurrent layer {_WHOLE}, or make it with reverse=False")

    def last(self, h: Array, mask: ArrayLike | None = None) -> Array:
        """Returns the output [B, H] at the last valid instant that the layer reads of each row.

        That is the last instant whose mask holds, or the first when reversed; zeros where a row has
        none.
        """
        mask = checks.flags("mask", mask, h.shape[:2])
        return _last_valid(*_flip((h, mask))) if self.reverse else _last_valid(h, mask)


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
        raise ValueError(f"a Bidirectional layer {_WHOLE}, or use Recurrent in its place")

    def step(self, state: tuple[Row, Row], x_t: ArrayLike, **options: Any) -> tuple[Any, Array]:
        """Raises ValueError: what reads both ways cannot be streamed."""
        raise ValueError(f"a Bidirectional layer {_WHOLE}, or use Recurrent in its place")

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
        _check_choice("readout", readout, ("last", "every"))
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
        x, mask, reset = _sequences(x, mask, reset)
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
        x_t, mask_t, reset_t = _sequences(x_t, mask_t, reset_t, "_t")
        x_t = zero_unless(mask_t, x_t)
        x_t = x_t if self.front is None else self.front(x_t[None])[0]
        state, h = self.stack.step(state, x_t, initial=initial, mask_t=mask_t, reset_t=reset_t)
        return state, self.head(h)


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


@dataclasses.dataclass(frozen=True)
class SequenceSpec:
    """A `SequenceModel` in words, and the two pure functions that learning sees: `init`, `apply`.

    Equal by value and hashable, so that compiled functions can be kept by it. A dense front and the
    head start with LeCun-normal weights and no bias, an embedding with rows of norm one or so.

    Attributes:
      cell: the recurrent cell of every layer.
      input_size: D, the width of the input, or the number of symbols for front="embed".
      output_size: V, the width of the output.
      readout: "last" for outputs [B, V], "every" for [T, B, V].
      depth: how many layers.
      bidirectional: every layer reads in both directions.
      front: what stands before the layers: None, "dense" (a linear map) or "embed" (a table, for
        integer symbols).
      front_width: the width of what the front puts out; None without a front.
      w_x: initialiser of the input weights, block by block.
      w_h: initialiser of the recurrent weights, block by block.
      b: initialiser of the biases; None for those of the cell.
      learn_initial: makes the initial states parameters.
      engine: what runs the loops, by name or an instance.
      dtype: of computation and outputs, as in `Recurrent`; any spelling, kept as `jnp.dtype`.
      projection: p, the width that every layer's outputs are projected to; None for h itself.
      checked: asserts that values are finite and in the cell's `ranges`; inside `jit` wrap the
        whole function in `chex.chexify(..., async_check=False)`, which `fit` does not.
      param_dtype: of the parameters, and so of their gradients; None for float32, or `dtype` where
        that is wider.

    Raises:
      ValueError: a size is not positive, a choice is unknown, or `front_width` does not go with
        `front`; TypeError: a dtype is not a floating one.
    """

    cell: Cell
    input_size: int
    output_size: int
    readout: Literal["last", "every"] = "last"
    depth: int = 1
    bidirectional: bool = False
    front: Literal["dense", "embed"] | None = None
    front_width: int | None = None
    w_x: WeightInit = dataclasses.field(default=glorot())
    w_h: WeightInit = dataclasses.field(default=orthogonal())
    b: BiasInit | None = None
    learn_initial: bool = False
    engine: str | Engine = "auto"
    dtype: Any = "float32"
    projection: int | None = None
    checked: bool = False
    param_dtype: Any = None

    def __post_init__(self):
        if not isinstance(self.cell, Cell):
            raise TypeError(f"cell must be a cell, such as LSTM(64), got {self.cell!r}")
        check_engine(self.engine)
        for name in ("input_size", "output_size", "depth"):
            _check_size(name, getattr(self, name))
        if self.projection is not None:
            _check_size("projection", self.projection)
        _check_choice("readout", self.readout, ("last", "every"))
        _check_choice("front", self.front, (None, "dense", "embed"))
        if self.front is not None:
            _check_size("front_width", self.front_width)
        elif self.front_width is not None:
            raise ValueError(f"front_width must be None without a front, got {self.front_width!r}")
        object.__setattr__(self, "dtype", _floating("dtype", self.dtype))
        if self.param_dtype is not None:
            stored = _floating("param_dtype", self.param_dtype)
            object.__setattr__(self, "param_dtype", stored)

    @property
    def stored_dtype(self) -> Any:
        """The dtype of the parameters."""
        return _stored(self.dtype, self.param_dtype)

    def init(self, key: Array, trial: Any = None) -> Any:
        """Returns the initial parameters as nested dictionaries of arrays.

        Args:
          key: a PRNG key.
          trial: None, or what has `init_scale`, a scalar that multiplies every initial weight
            (front, layers and head; no bias), and `gate_bias`, a mapping of block to scalar that
            sets the initial bias of this block in every layer, whatever `b` says.

        Raises:
          ValueError: `gate_bias` or `b` names a block that the cell does not have.
        """
        model = self.build(nnx.Rngs(params=key), trial)
        return _lists(nnx.to_pure_dict(nnx.state(model, nnx.Param)))

    def apply(
        self,
        params: Any,
        x: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        trial: Any = None,
        key: Array | None = None,
    ) -> Array:
        """Returns the outputs, [B, V] or [T, B, V].

        Args:
          params: what `init` returns.
          x: [T, B, D] floats, cast to `dtype`; [T, B] integers below D for front="embed".
          mask: [T, B] bool; where False the states are held.
          reset: [T, B] bool; True where a new sequence begins.
          trial: None, or what has the fields of `Rates`.
          key: of all noise; without it there is none.

        Raises:
          ValueError: a shape does not fit; TypeError: a dtype does not.
        """
        return self.unroll(params, x, mask=mask, reset=reset, trial=trial, key=key)[1]

    def unroll(
        self,
        params: Any,
        x: ArrayLike,
        state: tuple[State, ...] | None = None,
        *,
        initial: tuple[State, ...] | None = None,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        trial: Any = None,
        key: Array | None = None,
    ) -> tuple[tuple[State, ...], Array]:
        """Is `apply` with states in and out, see `SequenceModel.unroll`.

        Returns:
          The final states of the layers, and the outputs [B, V] or [T, B, V].
        """
        rates = None if trial is None else Rates(*(getattr(trial, n) for n in Rates._fields))
        return self.module(params).unroll(
            self._fitting(x), state, initial=initial, mask=mask, reset=reset, key=key, rates=rates
        )

    def initial_state(self, params: Any, batch: int) -> tuple[State, ...]:
        """Returns where a stream of `batch` rows starts.

        Raises:
          ValueError: the model is bidirectional.
        """
        return self.module(params).initial_state(batch)

    def stream(
        self,
        params: Any,
        state: tuple[State, ...],
        x_t: ArrayLike,
        *,
        initial: tuple[State, ...] | None = None,
        mask_t: ArrayLike | None = None,
        reset_t: ArrayLike | None = None,
    ) -> tuple[tuple[State, ...], Array]:
        """Advances a stream by one instant, see `SequenceModel.stream`.

        Args:
          params: what `init` returns.
          state: the state before the instant; of the first, `initial_state(params, batch)`.
          x_t: [B, D] floats; [B] integers below D for front="embed".
          initial: where a sequence starts, one state for each layer.
          mask_t: [B] bool; where False the states are held.
          reset_t: [B] bool; True where a new sequence begins.

        Returns:
          The next state and the outputs [B, V].

        Raises:
          ValueError: the model is bidirectional, or a shape does not fit; TypeError: a dtype does
            not.
        """
        return self.module(params).stream(
            state, self._fitting(x_t, "x_t", "B"), initial=initial, mask_t=mask_t, reset_t=reset_t
        )

    def module(self, params: Any) -> SequenceModel:
        """Returns the module with these parameters, those of `init`."""
        return nnx.merge(_graph(self), _numbered(params))

    def on(self, platform: str) -> "SequenceSpec":
        """Returns the same model with its engine as it resolves on "cpu", "gpu" or "tpu".

        By itself "auto" asks where jax runs: for a program that is compiled here and runs elsewhere
        the engine has to be named.
        """
        engine = resolve(self.engine, self.cell, platform, self.dtype)
        return dataclasses.replace(self, engine=engine)

    def build(self, rngs: nnx.Rngs, trial: Any = None) -> SequenceModel:
        """Returns the module itself, its parameters drawn as by `init`."""
        scale, biases = (1.0, {}) if trial is None else (trial.init_scale, trial.gate_bias)
        front = self._front(rngs, scale)
        layers, width = [], self.front_width or self.input_size
        for _ in range(self.depth):
            layers.append(self._layer(width, rngs, scale, biases))
            width = layers[-1].output_size
        head = self._linear(width, self.output_size, rngs, scale)
        return SequenceModel(front, Stack(layers), head, self.readout)

    def _front(self, rngs, scale):
        if self.front_width is None:
            return None
        if self.front == "dense":
            return self._linear(self.input_size, self.front_width, rngs, scale)
        rows_of_norm_one = jax.nn.initializers.normal(self.front_width**-0.5)
        return nnx.Embed(  # in the parameters' dtype, so that its gradients add up in it
            self.input_size, self.front_width, rngs=rngs, dtype=self.stored_dtype,
            param_dtype=self.stored_dtype, embedding_init=_scaled(rows_of_norm_one, scale),
        )  # fmt: skip

    def _layer(self, width, rngs, scale, biases):
        return (Bidirectional if self.bidirectional else Recurrent)(
            self.cell, width, rngs=rngs, w_x=_scaled(self.w_x, scale),
            w_h=_scaled(self.w_h, scale), b=_overridden(self.b, biases),
            projection=self.projection, learn_initial=self.learn_initial, engine=self.engine,
            checked=self.checked, dtype=self.dtype, param_dtype=self.param_dtype,
        )  # fmt: skip

    def _linear(self, rows, columns, rngs, scale):
        kernel_init = _scaled(jax.nn.initializers.lecun_normal(), scale)
        return nnx.Linear(
            rows, columns, rngs=rngs, dtype=self.dtype, param_dtype=self.stored_dtype,
            kernel_init=kernel_init,
        )  # fmt: skip

    def _fitting(self, x, name="x", axes="T, B"):
        """Returns x as the front takes it; `axes` are those before the last of floats."""
        rank = 1 + axes.count(",")
        first = ", time first" if rank > 1 else ""
        if self.front == "embed":
            if x.ndim != rank:
                raise ValueError(f"{name} must be symbols [{axes}]{first}, got shape {x.shape}")
            if not jnp.issubdtype(x.dtype, jnp.integer):
                raise TypeError(f"{name} must be integers for front='embed', got {x.dtype}")
            return x
        if x.ndim != rank + 1 or x.shape[-1] != self.input_size:
            want = f"[{axes}, D]{first}, with D = {self.input_size}"
            raise ValueError(f"{name} must be {want}, got shape {x.shape}")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} must be floats (front='embed' takes integers), got {x.dtype}")
        return x.astype(self.dtype)


@functools.cache
def _graph(spec: SequenceSpec) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: spec.build(nnx.Rngs(0))))


def _scaled(initializer: WeightInit, scale: float | Array) -> WeightInit:
    return lambda key, shape, dtype: initializer(key, shape, dtype) * jnp.asarray(scale, dtype)


def _overridden(b: BiasInit | None, biases: Mapping[str, Array]) -> BiasInit:
    return lambda key, cell, dtype: {**(b(key, cell, dtype) if b else {}), **biases}


def _with_zoneout(cell: Cell, params: CellParams, rates: Mapping[str, Any] | None) -> CellParams:
    """Returns `params` with rates of zoneout that take the place of the cell's own."""
    own = dict(cell.rates) if isinstance(cell, Zoneout) else {}
    for state in rates or {}:
        if state not in own:
            raise ValueError(f"zoneout names state {state!r}, of which {cell} has no rate")
    if not rates:
        return params
    named = {zoneout_name(state): rate for state, rate in rates.items()}
    return params._replace(theta=cell.Theta({**params.theta._asdict(), **named}))


def _sequences(x: Any, mask: Any, reset: Any, suffix: str = "") -> tuple[Array, Any, Any]:
    """Returns x as an array, and mask and reset as booleans of its leading axes."""
    x = checks.array(f"x{suffix}", x)
    shape = x.shape[: 1 if suffix else 2]
    mask = checks.flags(f"mask{suffix}", mask, shape)
    return x, mask, checks.flags(f"reset{suffix}", reset, shape)


def _lists(params: Any) -> Any:
    """Returns nested parameters with a list for each dictionary of numbers, as other tools take."""
    if not isinstance(params, dict):
        return params
    inner = {name: _lists(value) for name, value in params.items()}
    numbered = inner and all(isinstance(name, int) for name in inner)
    return [inner[n] for n in range(len(inner))] if numbered else inner


def _numbered(params: Any) -> Any:
    """Is the inverse of `_lists`, as NNX takes parameters."""
    if isinstance(params, list | tuple):
        params = dict(enumerate(params))
    if not isinstance(params, Mapping):
        return params
    return {name: _numbered(value) for name, value in params.items()}


def _named(row: Row) -> Any:
    return nnx.data({name: nnx.Param(value) for name, value in row._asdict().items()})


def _values(params: Any) -> Any:
    """Returns the arrays of parameters: of one, of a tuple, of a dictionary, of none."""
    return jax.tree.map(lambda p: p[...], params, is_leaf=lambda p: isinstance(p, nnx.Param))


def _flip(sequences: Any) -> Any:
    return jax.tree.map(lambda a: jnp.flip(a, axis=0), sequences)


def _ends(reset: Array | None) -> Array | None:
    """Returns [T, B]: True where a segment ends because the next one begins."""
    if reset is None:
        return None
    return jnp.concatenate([reset[1:], jnp.zeros_like(reset[:1])])


def _last_valid(h: Array, mask: Array | None) -> Array:
    """Returns h [B, H] at the last instant whose mask holds; zeros where there is none."""
    T, B, _ = h.shape
    mask = jnp.ones((T, B), bool) if mask is None else mask
    last = jnp.max(jnp.where(mask, jnp.arange(T)[:, None], -1), axis=0, initial=-1)
    last = jnp.where(last < 0, T, last)  # out of range, where the gather fills in zeros
    return jnp.take_along_axis(h, last[None, :, None], axis=0, mode="fill", fill_value=0)[0]


def _floating(name: str, dtype: Any) -> Any:
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise TypeError(f"{name} must be a floating one, got {jnp.dtype(dtype)}")
    return jnp.dtype(dtype)


def _stored(dtype: Any, param_dtype: Any) -> Any:
    return jnp.dtype(wide(dtype) if param_dtype is None else param_dtype)


def _check_size(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def _check_choice(name: str, value: Any, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")
