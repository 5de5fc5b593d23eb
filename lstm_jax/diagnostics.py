"""What a loop does with gradients and what its gates do, as pure functions of any cell.

All work under `jit` and `vmap`, in a training loop too. Gradients and Jacobians come from zero
perturbations e_t that are added to the states inside the loop,

    s_t = update(x_t, s_{t-1}) + e_t,        dL/ds_t = dL/de_t at e = 0,

where s_t is all of the cell's state after instant t, (h_t, c_t) for the LSTM. Its parts count as
coordinates of their own: dL/dc_t is what a change of c_t does while h_t stays as it is. The lag is
the number of instants to the last one, T - 1 - t. What is truncated in a cell's `feedback`
(`MemoryBlocks(truncated=True)`) is truncated here.

Source: of the norms, Hochreiter 1991, Bengio, Simard & Frasconi 1994 and Pascanu, Mikolov & Bengio
2013; of saturation, Karpathy, Johnson & Fei-Fei 2016.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, initial_state
from lstm_jax.engines import Reference, checks, unroll
from lstm_jax.engines.inputs import Inputs
from lstm_jax.engines.reference import differentiable, one_step
from lstm_jax.types import Array, ArrayLike, CellParams, Row, wide


class Line(NamedTuple):
    """A straight line through the logarithms of norms.

    Attributes:
      slope: nats an instant of lag: the norm is multiplied by exp(slope) each.
      deviation: root mean square distance from the line, in nats.
    """

    slope: Array
    deviation: Array


class Saturation(NamedTuple):
    """Shares of gate values, a Row with [width] each: one for each unit.

    Attributes:
      below: of those below the lower threshold, nearly closed.
      above: of those above the upper one, nearly open.
    """

    below: Row
    above: Row


# Gradients. ---------------------------------------------------------------------------------------


def state_gradients(
    cell: Cell, params: CellParams, x: Array, loss: Callable[[Array], Array], **options: Any
) -> Row:
    """Returns dL/ds_t of every state at every instant, each [T, B, width].

    Args:
      cell: the recurrent cell.
      params: its parameters.
      x: [T, B, D] inputs.
      loss: L, a scalar function of the outputs [T, B, H].
      **options: state, initial, mask, reset and noise as in `lj.unroll`. At masked instants the
        state is held: its gradient there is that at the next instant.

    Raises:
      ValueError: a shape does not fit; TypeError: a dtype or the kind of state does not.
    """

    def perturbed(added):
        return loss(unroll(cell, params, x, engine=_Perturbed(added), **options)[1])

    return jax.grad(perturbed)(_zeros(cell, x))


def gradient_norms(
    cell: Cell, params: CellParams, x: Array, loss: Callable[[Array], Array], **options: Any
) -> Row:
    """Returns ||dL/ds_{T-1-k}|| for every lag k of every state and row, each [T, B], lag first.

    `norms.c[k, b]` is the Euclidean norm of dL/dc, k instants before the last. Arguments and errors
    are those of `state_gradients`.
    """
    gradients = state_gradients(cell, params, x, loss, **options)
    return jax.tree.map(lambda g: _norm(g)[::-1], gradients)


def jacobians(cell: Cell, params: CellParams, x: Array, **options: Any) -> Array:
    """Returns J_k = ds_{T-1} / ds_{T-1-k} for every lag k and row, [T, B, S, S], lag first.

    S is the width of all states together, which lie side by side in the cell's order; row i of J_k
    is the gradient of the final state's entry i. J_0 is the identity. It costs S backward passes:
    for small H; see `largest_singular_value` for large. Arguments and errors are those of
    `state_gradients`.
    """
    final, back = jax.vjp(
        lambda added: unroll(cell, params, x, engine=_Perturbed(added), **options)[0],
        _zeros(cell, x),
    )
    one_hot = jnp.eye(sum(cell.width(name) for name in cell.states), dtype=x.dtype)
    rows = jax.vmap(lambda e: back(_unpacked(cell, jnp.tile(e, (x.shape[1], 1))))[0])(one_hot)
    del final
    return jnp.moveaxis(_packed(rows), 0, 2)[::-1]


def singular_values(cell: Cell, params: CellParams, x: Array, **options: Any) -> Array:
    """Returns the singular values of J_k, [T, B, S], lag first, the largest of each first.

    Arguments and errors are those of `jacobians`. The small ones are exact to the rounding of the
    largest only.
    """
    return jnp.linalg.svd(jacobians(cell, params, x, **options), compute_uv=False)


def largest_singular_value(
    cell: Cell,
    params: CellParams,
    x: Array,
    state: Row,
    key: Array,
    *,
    iterations: int = 30,
    **options: Any,
) -> Array:
    """Returns the largest singular value of ds_T / ds_0 of every row, [B], by power iteration.

        u = J v / ||J v||,   v <- J' u / ||J' u||,   sigma = ||J v||

    Each iteration is one forward-mode and one backward pass, for any H. It comes from below, its
    error shrinks by (sigma_2 / sigma_1)^2 an iteration.

    Args:
      cell: the recurrent cell.
      params: its parameters.
      x: [T, B, D] inputs from s_0 on.
      state: s_0, each [B, width].
      key: draws the first v.
      iterations: how many.
      **options: initial, mask, reset and noise as in `lj.unroll`.

    Raises:
      ValueError: a shape does not fit; TypeError: a dtype or the kind of state does not.
    """

    def final(engine, state):
        return unroll(cell, params, x, state, engine=engine, **options)[0]

    _, forward = jax.linearize(functools.partial(final, Reference(forward=True)), state)
    _, transposed = jax.vjp(functools.partial(final, Reference()), state)

    def back(u):
        return _packed(transposed(_unpacked(cell, u))[0])

    def again(v, _):
        u = _packed(forward(_unpacked(cell, v)))
        return _unit(back(_unit(u))), None

    flat = _packed(state)
    v = _unit(jax.random.normal(key, flat.shape, flat.dtype))
    v, _ = jax.lax.scan(again, v, length=iterations)
    return _norm(_packed(forward(_unpacked(cell, v))))


def log_slope(norms: Array) -> Line:
    """Fits log norm_k ~ a + slope k to norms [K, ...] at lags 0 to K - 1 by least squares.

    Norms that are zero or not finite have no logarithm and no say; where fewer than two are left
    the line is nan.

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
      gates: activated gates in [0, 1], each [T, B, width], as `lj.trace(...).gates` has them; of
        others, such as a candidate in [-1, 1], it means what it says.
      mask: [T, B] bool; what is False does not count.
      low: values below it are as good as 0.
      high: values above it are as good as 1.
    """
    return Saturation(
        below=jax.tree.map(lambda g: _mean((g < low).astype(g.dtype), mask), gates),
        above=jax.tree.map(lambda g: _mean((g > high).astype(g.dtype), mask), gates),
    )


def time_scale(keep: Array) -> Array:
    """Returns 1 / (1 - f), how many instants a gate held at f remembers; any shape, inf for 1."""
    return 1 / (1 - keep)


def decay_time(keep: Array, mask: ArrayLike | None = None) -> Array:
    """Returns the instants in which what a unit holds decays by the factor e, [width].

        tau = -1 / <log f>,   so that f_T ... f_1 = exp(-T / tau)

    It is 1 / (1 - f) - 1/2 or so for a constant f near 1; for one that varies it is the exact rate
    of the carousel, where 1 / (1 - <f>) is too long.

    Args:
      keep: [T, B, width] the gate that keeps: f of the LSTM, z of the GRU.
      mask: [T, B] bool; what is False does not count.
    """
    return -1 / _mean(jnp.log(keep), mask)


# Small things. ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Perturbed:
    """The plain engine, and something [T, B, width] added to every state after each time step."""

    added: Row

    def loop(self, cell: Cell, emit: Callable[[Row], Any], inputs: Inputs) -> tuple[Row, Any]:
        """Returns the final state and what `emit` makes of every state [T, B, ...]."""
        both = _PerturbedInputs(*inputs, self.added)
        if inputs.reset is None:
            return _perturbed(cell, emit, both)
        return differentiable(_perturbed, cell, emit, both)

    def refuses(self, cell: Cell, dtype: Any = None) -> None:
        """Returns None: it runs every cell."""


_PerturbedInputs = collections.namedtuple("_PerturbedInputs", (*Inputs._fields, "added"))


def _perturbed(cell: Cell, emit: Callable[[Row], Any], inputs: Any) -> tuple[Row, Any]:
    *given, added = inputs

    def body(state, step):
        x_t, mask_t, reset_t, key, added_t = step
        now = Inputs(*given)
        now = now._replace(x=x_t, state=state, mask=mask_t, reset=reset_t,
                           noise=now.noise._replace(keys=key))  # fmt: skip
        state = jax.tree.map(jnp.add, one_step(cell, now), added_t)
        return state, emit(state)

    steps = (inputs.x, inputs.mask, inputs.reset, inputs.noise.keys, added)
    return jax.lax.scan(body, inputs.state, steps)


def _zeros(cell: Cell, x: Array) -> Row:
    return initial_state(cell, x.shape[:2], wide(x.dtype))


def _packed(state: Row) -> Array:
    """Returns states side by side on the last axis."""
    return jnp.concatenate(list(state), axis=-1)


def _unpacked(cell: Cell, flat: Array) -> Row:
    """Returns the state that lies side by side in `flat` [..., S]."""
    widths = [cell.width(name) for name in cell.states]
    return cell.State(*jax.lax.split(flat, widths, axis=flat.ndim - 1))


def _norm(v: Array) -> Array:
    """Returns ||v|| over the last axis; squares neither overflow nor underflow."""
    largest = jnp.max(jnp.abs(v), axis=-1)
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(jnp.sum((v / scale[..., None]) ** 2, axis=-1))


def _unit(v: Array) -> Array:
    """Returns v / ||v|| over the last axis, and zeros for zeros."""
    norm = _norm(v)
    return v / jnp.where(norm > 0, norm, 1)[..., None]


def _mean(values: Array, mask: ArrayLike | None) -> Array:
    """Returns the mean [width] of values [T, B, width] over the instants that count."""
    mask = checks.flags("mask", mask, values.shape[:2])
    if mask is None:
        return jnp.mean(values, axis=(0, 1))
    total = jnp.sum(jnp.where(mask[..., None], values, 0), axis=(0, 1))
    return total / jnp.sum(mask).astype(values.dtype)
