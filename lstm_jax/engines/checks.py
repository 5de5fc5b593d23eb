"""Checks of a loop's arguments: safe conversions, and errors in one sentence."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from lstm_jax.cells import Cell, feedback_width
from lstm_jax.cells.base import check_is_cell
from lstm_jax.types import Array, CellParams, Noise, Row, wide


def _require(check: Callable[..., None], *arguments: Any, message: str) -> None:
    """Runs a chex assertion; raises ValueError with `message` if it fails."""
    try:
        check(*arguments)
    except AssertionError:
        raise ValueError(message) from None


def array(name: str, value: Any) -> Array:
    """Returns `value` as an array.

    NumPy's float64 becomes float32 unless 64 bits are enabled.

    Raises:
      TypeError: it is neither an array nor nested lists of numbers of one length.
    """
    try:
        if isinstance(value, np.ndarray) and not value.dtype.isnative:
            value = value.astype(value.dtype.newbyteorder("="))
        return jnp.asarray(value)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise TypeError(f"{name} must be an array of numbers, got {kind} {value!r:.60}") from None


def params_of(cell: Cell, params: CellParams) -> CellParams:
    """Returns the parameters of `cell` as arrays.

    Raises:
      TypeError: `cell` is no cell, or they are not CellParams; ValueError: a shape does not fit.
    """
    check_is_cell(cell)
    if not isinstance(params, CellParams):
        raise TypeError(f"params must be CellParams, got {type(params).__name__}")
    params = jax.tree.map(lambda p: array("params", p), params)
    x_width = sum(cell.width(g) for g in cell.x_blocks)
    h_width = sum(cell.width(g) for g in cell.h_blocks)
    b_width = sum(cell.width(g) for g in cell.gates)
    _check_matrix("w_x", cell, params.w_x, None, x_width)
    if params.w_h is None or not cell.h_blocks:
        if cell.h_blocks or params.w_h is not None:
            want = f"a matrix for {cell.h_blocks}" if cell.h_blocks else "None"
            raise ValueError(f"params.w_h must be {want} of {cell}, got {params.w_h!r:.60}")
    elif isinstance(params.w_h, tuple):
        _check_matrix("w_h[0]", cell, params.w_h[0], feedback_width(cell), None)
        _check_matrix("w_h[1]", cell, params.w_h[1], params.w_h[0].shape[1], h_width)
    else:
        _check_matrix("w_h", cell, params.w_h, feedback_width(cell), h_width)
    message = f"params.b must have shape ({b_width},) for {cell}, got {jnp.shape(params.b)}"
    _require(chex.assert_shape, params.b, (b_width,), message=message)
    return params


def _check_matrix(name: str, cell: Cell, w: Array, height: int | None, width: int | None) -> None:
    want = f"({'D' if height is None else height}, {'J' if width is None else width})"
    message = f"params.{name} must have shape {want} for {cell}, got {jnp.shape(w)}"
    _require(chex.assert_shape, w, (height, width), message=message)


def floats(name: str, x: Any, axes: tuple[str, ...], width: int) -> Array:
    """Returns inputs with the named axes, the last of them `width` wide.

    Raises:
      ValueError: the rank or the width is wrong; TypeError: the dtype is not floating.
    """
    x = array(name, x)
    first = ", time first" if axes[0] == "T" else ""
    want = f"{name} must be [{', '.join(axes)}]{first}, with D = {width}, got shape {x.shape}"
    _require(chex.assert_rank, x, len(axes), message=want)
    _require(chex.assert_axis_dimension, x, -1, width, message=want)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} must be floats, got {x.dtype}")
    return x


def flags(name: str, value: Any, shape: tuple[int, ...]) -> Array | None:
    """Returns a mask or reset as bool.

    It may hold booleans, or zeros and ones of any dtype.

    Raises:
      ValueError: the shape is wrong, or a value is neither 0 nor 1.
    """
    if value is None:
        return None
    value = array(name, value)
    axes = "[T, B]" if len(shape) == 2 else "[B]"
    message = f"{name} must have shape {axes} = {shape}, got {value.shape}"
    _require(chex.assert_shape, value, shape, message=message)
    if value.dtype == bool:
        return value
    concrete = None if isinstance(value, Tracer) else np.asarray(value)
    if concrete is not None and not (valid := np.isin(concrete, (0, 1))).all():
        wrong = concrete[~valid].flat[0]
        raise ValueError(f"{name} must hold booleans, or zeros and ones, got {wrong!r:.40}")
    return value != 0


def state_of(name: str, cell: Cell, state: Row, batch: int, dtype: Any) -> Row:
    """Returns a state of `cell` in `dtype`, each [batch, width] or, shared, [width].

    Raises:
      TypeError: it is the state of another cell, or wider than `dtype`; ValueError: a shape is
        wrong.
    """
    if type(state) is not cell.State:
        want = f"{cell.State.__name__}({', '.join(cell.states)})"
        raise TypeError(f"{name} must be {want} of {cell}, got {type(state).__name__}")
    named = zip(cell.states, state, strict=True)
    return cell.State(*(_vector(f"{name}.{n}", v, (batch, cell.width(n)), dtype) for n, v in named))


def _vector(name: str, value: Any, shape: tuple[int, int], dtype: Any) -> Array:
    value = array(name, value)
    message = f"{name} must have shape [B, H] = {shape}, got {value.shape}"
    _require(chex.assert_shape, value, shape[value.ndim == 1 :], message=message)
    floating = jnp.issubdtype(value.dtype, jnp.floating)
    if not floating or jnp.finfo(value.dtype).bits > jnp.finfo(dtype).bits:
        raise TypeError(f"{name} must have dtype {dtype}, got {value.dtype}")
    return value.astype(dtype)


def noise_of(cell: Cell, noise: Noise | None, x: Array) -> Noise:
    """Returns `noise` for x [..., B, D] as a constant; an empty Noise for None.

    Raises:
      TypeError: it is no Noise, or a dtype is wrong; ValueError: a shape does not fit, or the cell
        draws nothing but keys are given.
    """
    if noise is None:
        return Noise()
    if not isinstance(noise, Noise):
        raise TypeError(f"noise must be lj.Noise(keys, keep), got {type(noise).__name__}")
    keys = None if noise.keys is None else _keys(cell, noise.keys, x.shape[:-2])
    keep = None if noise.keep is None else _keep(cell, noise.keep, x)
    return jax.lax.stop_gradient(Noise(keys, keep))


def _keep(cell: Cell, keep: Any, x: Array) -> Array:
    keep, shape = array("noise.keep", keep), (x.shape[-2], feedback_width(cell))
    message = f"noise.keep must have shape [B, F] = {shape}, got {keep.shape}"
    _require(chex.assert_shape, keep, shape, message=message)
    if keep.dtype != wide(x.dtype):
        raise TypeError(f"noise.keep must have dtype {wide(x.dtype)}, got {keep.dtype}")
    return keep


def _keys(cell: Cell, keys: Any, steps: tuple[int, ...]) -> Array:
    if not cell.noisy:
        raise ValueError(f"noise.keys must be None for {cell}, which draws nothing")
    keys = jnp.asarray(keys)
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        if keys.dtype != jnp.uint32:
            raise TypeError(f"noise.keys must be keys of jax.random.key, got {keys.dtype}")
        keys = jax.random.wrap_key_data(keys)
    axes = "[T]" if steps else "[]"
    message = f"noise.keys must have shape {axes} = {steps}, got {keys.shape}"
    _require(chex.assert_shape, keys, steps, message=message)
    return keys


def check_values(cell: Cell, states: Row, gates: Row) -> None:
    """Asserts that states and gates are finite and in the cell's ranges.

    Under `jit` this has an effect inside `chex.chexify` only.

    Raises:
      AssertionError: the named value is not finite or out of range.
    """
    values = jax.lax.stop_gradient({**gates._asdict(), **states._asdict()})
    chex.assert_tree_all_finite(values)
    for name, (low, high) in cell.ranges.items():
        lowest, highest = values[name].min(initial=low), values[name].max(initial=high)
        message = f"{type(cell).__name__}.{name} leaves its range [{low}, {high}]"
        chex.assert_trees_all_equal(lowest, jnp.full_like(lowest, low), custom_message=message)
        chex.assert_trees_all_equal(highest, jnp.full_like(highest, high), custom_message=message)
