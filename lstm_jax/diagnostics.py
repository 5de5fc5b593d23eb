"""Diagnostics of gradients and gates, as pure functions of any cell.

All functions work under `jit` and `vmap`, also in a training loop. Gradients and Jacobians come
from zero perturbations e_t that are added to the states inside the loop,

    s_t = update(x_t, s_{t-1}) + e_t,        dL/ds_t = dL/de_t at e = 0,

where s_t is the whole state of the cell after time step t, (h_t, c_t) for the LSTM. Its parts are
separate coordinates: dL/dc_t is the effect of a change of c_t with h_t fixed. The lag is the number
of time steps to the last one, T - 1 - t. Gradients that a cell truncates in its `feedback`
(`MemoryBlocks(truncated=True)`) are also truncated here.

Source: Hochreiter 1991, Bengio, Simard & Frasconi 1994 and Pascanu, Mikolov & Bengio 2013 for
gradient norms; Karpathy, Johnson & Fei-Fei 2016 for saturation.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, initial_state
from lstm_jax.engines import checks, unroll
from lstm_jax.engines.inputs import Inputs
from lstm_jax.engines.reference import run_loop
from lstm_jax.types import Array, ArrayLike, CellParams, Row, wide


class Line(NamedTuple):
    """A line fitted to the logarithms of norms.

    Attributes:
      slope: nats per time step of lag: each step multiplies the norm by exp(slope).
      deviation: root mean square distance from the line, in nats.
    """

    slope: Array
    deviation: Array


class Saturation(NamedTuple):
    """Fractions of gate values for each unit, as Rows with [width] each.

    Attributes:
      below: fraction below the lower threshold, nearly closed.
      above: fraction above the upper threshold, nearly open.
    """

    below: Row
    above: Row


# Gradients. ---------------------------------------------------------------------------------------


def state_gradients(
    cell: Cell, params: CellParams, x: Array, loss: Callable[[Array], Array], **options: Any
) -> Row:
    """Returns dL/ds_t of every state at every time step, each [T, B, width].

    Args:
      cell: the recurrent cell.
      params: its parameters.
      x: [T, B, D] inputs.
      loss: L, a scalar function of the outputs [T, B, H].
      **options: state, initial, mask, reset and noise as in `lj.unroll`. At masked time steps the
        state is held, so its gradient equals that at the next time step.

    Raises:
      ValueError: a shape does not fit; TypeError: a dtype or the type of state does not.
    """

    def perturbed(added):
        return loss(unroll(cell, params, x, engine=_Perturbed(added), **options)[1])

    return jax.grad(perturbed)(_zeros(cell, x))


def gradient_norms(
    cell: Cell, params: CellParams, x: Array, loss: Callable[[Array], Array], **options: Any
) -> Row:
    """Returns ||dL/ds_{T-1-k}|| for every state, lag k and row, each [T, B].

    `norms.c[k, b]` is the Euclidean norm of dL/dc, k time steps before the last. Arguments and
    errors are those of `state_gradients`.
    """
    gradients = state_gradients(cell, params, x, loss, **options)
    return jax.tree.map(lambda g: _norm(g)[::-1], gradients)


def jacobians(cell: Cell, params: CellParams, x: Array, **options: Any) -> Array:
    """Returns J_k = ds_{T-1} / ds_{T-1-k} by lag k and row, [T, B, S, S].

    S is the width of all states, concatenated in the cell's order. Row i of J_k is the gradient of
    entry i of the final state. J_0 is the identity. The cost is S backward passes. Arguments and
    errors are those of `state_gradients`.
    """
    _, back = jax.vjp(
        lambda added: unroll(cell, params, x, engine=_Perturbed(added), **options)[0],
        _zeros(cell, x),
    )
    one_hot = jnp.eye(sum(cell.width(name) for name in cell.states), dtype=x.dtype)
    gradients = jax.vmap(lambda e: back(_unpacked(cell, jnp.tile(e, (x.shape[1], 1))))[0])(one_hot)
    return jnp.moveaxis(_packed(gradients), 0, 2)[::-1]


def log_slope(norms: Array) -> Line:
    """Fits log norm_k ~ a + slope * k by least squares.

    The norms are [K, ...], at lags k from 0 to K - 1. Norms that are zero or not finite are left
    out. With fewer than two norms the result is nan.

    Returns:
      The slope and the deviation, each [...].
    """
    counts = (norms > 0) & jnp.isfinite(norms)
    logs = jnp.log(jnp.where(counts, norms, 1))
    k = jnp.arange(len(norms), dtype=norms.dtype).reshape(-1, *[1] * (norms.ndim - 1))

    def mean(values):
        return jnp.sum(jnp.where(counts, values, 0), 0) / jnp.sum(counts, 0).astype(norms.dtype)

    k, logs = k - mean(k)[None], logs - mean(logs)[None]
    slope = mean(k * logs) / mean(k * k)
    return Line(slope, jnp.sqrt(mean((logs - slope[None] * k) ** 2)))


# Gates. -------------------------------------------------------------------------------------------


def saturation(
    gates: Row, mask: ArrayLike | None = None, *, low: float = 0.1, high: float = 0.9
) -> Saturation:
    """Returns how often each unit's gates are below `low` and above `high`.

    Args:
      gates: activated gates, each [T, B, width], such as `lj.trace(...).gates`. The thresholds are
        for gates in [0, 1], not for a candidate in [-1, 1].
      mask: [T, B] bool, True at valid time steps.
      low: threshold of nearly closed gates.
      high: threshold of nearly open gates.
    """
    return Saturation(
        below=jax.tree.map(lambda g: _mean((g < low).astype(g.dtype), mask), gates),
        above=jax.tree.map(lambda g: _mean((g > high).astype(g.dtype), mask), gates),
    )


def decay_time(keep: Array, mask: ArrayLike | None = None) -> Array:
    """Returns the time steps in which the memory of a unit decays by e, [width].

        tau = -1 / <log f>,   so that f_T ... f_1 = exp(-T / tau)

    For a constant f near 1 it is about 1 / (1 - f) - 1/2. For a varying f it is the exact decay
    along the cell state, whereas 1 / (1 - <f>) is too long. It is inf where f is always 1, and 0
    where f is 0 once.

    Args:
      keep: [T, B, width] the forget gate: f of the LSTM, z of the GRU.
      mask: [T, B] bool, True at valid time steps.
    """
    rate = -_mean(jnp.log(keep), mask)
    return 1 / jnp.where(rate == 0, 0.0, rate)  # -0 would give -inf


# Private functions. -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Perturbed:
    """The reference engine with `added` [T, B, width] added to every state."""

    added: Row

    def loop(self, cell: Cell, emit: Callable[[Row], Any], inputs: Inputs) -> tuple[Row, Any]:
        """Returns the final state, and `emit` of every state [T, B, ...]."""
        return run_loop(cell, emit, inputs, self.added)

    def refuses(self, cell: Cell, dtype: Any = None) -> None:
        """Returns None: this engine runs every cell."""


def _zeros(cell: Cell, x: Array) -> Row:
    return initial_state(cell, x.shape[:2], wide(x.dtype))


def _packed(state: Row) -> Array:
    """Returns states concatenated on the last axis."""
    return jnp.concatenate(list(state), axis=-1)


def _unpacked(cell: Cell, flat: Array) -> Row:
    """Returns the state from its concatenation `flat` [..., S]."""
    widths = [cell.width(name) for name in cell.states]
    return cell.State(*jax.lax.split(flat, widths, axis=flat.ndim - 1))


def _norm(v: Array) -> Array:
    """Returns ||v|| over the last axis; squares neither overflow nor underflow."""
    largest = jnp.max(jnp.abs(v), axis=-1)
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(jnp.sum((v / scale[..., None]) ** 2, axis=-1))


def _mean(values: Array, mask: ArrayLike | None) -> Array:
    """Returns the mean [width] of values [T, B, width] over valid time steps."""
    mask = checks.flags("mask", mask, values.shape[:2])
    if mask is None:
        return jnp.mean(values, axis=(0, 1))
    total = jnp.sum(jnp.where(mask[..., None], values, 0), axis=(0, 1))
    return total / jnp.sum(mask).astype(values.dtype)
