"""One recurrent layer: a Flax NNX module of a cell.

A layer maps x [T, B, D] to its final state and outputs h [T, B, H], at any position in a stack.
Modules own parameters, and functions own mathematics. Keys are arguments of the call: no module
owns a stream of random numbers.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_jax.cells import Cell, Zoneout, feedback_width, initial_state, zoneout_name
from lstm_jax.checks import check_is
from lstm_jax.engines import Engine, checks, projected, unroll
from lstm_jax.nn.dropout import check_noise, drop, drop_weights
from lstm_jax.nn.initializers import BiasInit, WeightInit, init
from lstm_jax.types import Array, ArrayLike, CellParams, Noise, Rates, Row, wide

NOT_STREAMED = "reads the last time step first and cannot stream: call it on whole sequences"


class Recurrent(nnx.Module):
    """One recurrent layer of any cell: `unroll` and its parameters.

    A reversed layer reads every sequence from its last time step to its first. It equals the
    forward layer on each reversed segment between resets. Masked time steps hold the state, so
    padding on the right needs no special case. A reset at time step 0 has no effect in a reversed
    layer, since it separates only earlier time steps.

    With mixed precision, `dtype="bfloat16"`, operands of matrix products and outputs are bfloat16.
    Sums, states, gates, parameters and gradients of parameters are float32.

    Attributes:
      w_x, w_h, b, theta: the parameters, as in `CellParams`.
      initial: the learned initial state by name, each [width], or None.
      output_size: H, the width of the outputs, or p with a projection.
      dtype: dtype of the outputs and of the operands of matrix products.
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
          rngs: source of the key `params`; it is not stored.
          w_x: initialiser of the input weights, by block; Glorot by default.
          w_h: initialiser of the recurrent weights, by block; orthogonal by default.
          b: initialiser of the biases; those of the cell by default.
          projection: p, for outputs r = h P [p] that are fed back as r U: `w_h` is the pair (P, U),
            and the state has h; None for outputs h. Source: Sak, Senior & Beaufays 2014.
          learn_initial: makes the initial state a parameter, initially zero.
          reverse: reads sequences from their end.
          engine: name or instance of the engine that runs the loop.
          checked: asserts that all values are finite and in the cell's `ranges`, as in `unroll`.
          dtype: dtype of inputs, which are cast to it, of operands of matrix products, and of
            outputs. States are float32 at least.
          param_dtype: dtype of the parameters; None for float32, or `dtype` where that is wider.

        Raises:
          ValueError: `projection` is no integer in [1, H), or the cell feeds back more than h.
        """
        check_rngs(rngs)
        params = init(
            cell, rngs.params(), input_size, w_x=w_x, w_h=w_h, b=b, projection=projection,
            dtype=stored(dtype, param_dtype),
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
        """The parameters, in the form that `lj.unroll` and `lj.step` take."""
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
          state: the state before the call, each [B, width], float32 at least; in a reversed layer
            that after the last time step; `initial` by default.
          initial: the state at sequence starts, each [width] or [B, width]; the learned state, or
            zeros, by default.
          mask: [T, B] bool; where False the state is held and the output is zero.
          reset: [T, B] bool; True where a sequence starts.
          key: PRNG key of all noise, also of a noisy cell; None for no noise.
          rates: rates of dropout; a single layer ignores `dropout` and `input_noise`.

        Returns:
          The state after the time step read last, each [B, width], and the outputs [T, B, H], in
          the order of the inputs.

        Raises:
          ValueError: a shape does not fit; TypeError: a dtype or the kind of state does not.
        """
        x, mask, reset = sequences(x, mask, reset)
        if jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(self.dtype)
        initial = self._learned() if initial is None else initial
        if self.reverse:
            x, mask, reset = _flip((x, mask, _ends(reset)))
        x, params, noise = self._with_noise(x, key, rates)
        state, h = unroll(
            self.cell, params, x, state,
            initial=initial, mask=mask, reset=reset, noise=noise, engine=self.engine,
            checked=self.checked,
        )  # fmt: skip
        h = projected(h, params.w_h)
        return state, _flip(h) if self.reverse else h

    def _with_noise(self, x, key, rates):
        """Returns the input, the parameters and the noise of a call with `key`."""
        check_noise(rates, key)
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
        """Returns the state at the start of a stream, each [batch, width].

        It is the learned initial state, or zeros.

        Raises:
          ValueError: the layer is reversed.
        """
        self._refuse_reverse()
        zeros, learned = initial_state(self.cell, (batch,), wide(self.dtype)), self._learned()
        if learned is None:
            return zeros
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
        """Advances a stream by one time step, with the arguments and results of `lj.step`.

        Raises:
          ValueError: the layer is reversed, or a shape does not fit; TypeError: a dtype does not.
        """
        self._refuse_reverse()
        x, mask, reset = jax.tree.map(lambda a: a[None], (x_t, mask_t, reset_t))
        state, h = self(x, state, initial=initial, mask=mask, reset=reset)
        return state, h[0]

    def _refuse_reverse(self) -> None:
        if self.reverse:
            raise ValueError(
                f"a reversed Recurrent layer {NOT_STREAMED}, or make it with reverse=False"
            )

    def last(self, h: Array, mask: ArrayLike | None = None) -> Array:
        """Returns the output [B, H] at the last valid time step that the layer reads.

        This is the last time step with a mask of True, or the first in a reversed layer; zeros for
        rows without one.
        """
        mask = checks.flags("mask", mask, h.shape[:2])
        return _last_valid(*_flip((h, mask))) if self.reverse else _last_valid(h, mask)


def _with_zoneout(cell: Cell, params: CellParams, rates: Mapping[str, Any] | None) -> CellParams:
    """Returns `params` with zoneout rates that override the cell's own."""
    check_is("rates.zoneout", rates, Mapping | None, "a dictionary, such as {'h': 0.1}")
    own = dict(cell.rates) if isinstance(cell, Zoneout) else {}
    for state in rates or {}:
        if state not in own:
            raise ValueError(f"zoneout names state {state!r}, for which {cell} has no rate")
    if not rates:
        return params
    named = {zoneout_name(state): rate for state, rate in rates.items()}
    return params._replace(theta=cell.Theta({**params.theta._asdict(), **named}))


def sequences(x: Any, mask: Any, reset: Any, suffix: str = "") -> tuple[Array, Any, Any]:
    """Returns x as an array, and mask and reset as booleans of its leading axes."""
    x = checks.array(f"x{suffix}", x)
    shape = x.shape[: 1 if suffix else 2]
    mask = checks.flags(f"mask{suffix}", mask, shape)
    return x, mask, checks.flags(f"reset{suffix}", reset, shape)


def _named(row: Row) -> Any:
    return nnx.data({name: nnx.Param(value) for name, value in row._asdict().items()})


def _values(params: Any) -> Any:
    """Returns the arrays of any tree of parameters."""
    return jax.tree.map(lambda p: p[...], params, is_leaf=lambda p: isinstance(p, nnx.Param))


def _flip(sequences: Any) -> Any:
    return jax.tree.map(lambda a: jnp.flip(a, axis=0), sequences)


def _ends(reset: Array | None) -> Array | None:
    """Returns [T, B]: True where the next time step starts a segment."""
    if reset is None:
        return None
    return jnp.concatenate([reset[1:], jnp.zeros_like(reset[:1])])


def _last_valid(h: Array, mask: Array | None) -> Array:
    """Returns h [B, H] at the last valid time step; zeros for rows without one."""
    T, B, _ = h.shape
    mask = jnp.ones((T, B), bool) if mask is None else mask
    last = jnp.max(jnp.where(mask, jnp.arange(T)[:, None], -1), axis=0, initial=-1)
    last = jnp.where(last < 0, T, last)  # out of range, so the gather gives zeros
    return jnp.take_along_axis(h, last[None, :, None], axis=0, mode="fill", fill_value=0)[0]


def check_rngs(rngs: object) -> None:
    """Raises TypeError unless `rngs` are NNX's."""
    check_is("rngs", rngs, nnx.Rngs, "nnx.Rngs, such as nnx.Rngs(0)")


def stored(dtype: Any, param_dtype: Any) -> Any:
    """Returns the dtype of parameters: `param_dtype`, by default `wide(dtype)`."""
    return jnp.dtype(wide(dtype) if param_dtype is None else param_dtype)
