"""What the loop asks of its arguments, said in one line that names the argument."""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, feedback_width
from lstm_jax.types import Array, CellParams, Noise, Row, wide


def _say(message: str, error: type[Exception] = ValueError) -> dict[str, Any]:
    escaped = message.replace("{", "{{").replace("}", "}}")
    return dict(custom_message=escaped, include_default_message=False, exception_type=error)


def check_params(cell: Cell, params: CellParams) -> None:
    """Asserts that `params` are parameters of `cell`.

    Raises:
      TypeError: they are not CellParams; ValueError: a shape does not fit.
    """
    if not isinstance(params, CellParams):
        raise TypeError(f"params must be CellParams, got {type(params).__name__}")
    x_width = sum(cell.width(g) for g in cell.x_blocks)
    h_width = sum(cell.width(g) for g in cell.h_blocks)
    b_width = sum(cell.width(g) for g in cell.gates)
    _check_matrix("w_x", cell, params.w_x, None, x_width)
    if isinstance(params.w_h, tuple):
        _check_matrix("w_h[0]", cell, params.w_h[0], feedback_width(cell), None)
        _check_matrix("w_h[1]", cell, params.w_h[1], params.w_h[0].shape[1], h_width)
    else:
        _check_matrix("w_h", cell, params.w_h, feedback_width(cell), h_width)
    message = f"params.b must have shape ({b_width},) for {cell}, got {jnp.shape(params.b)}"
    chex.assert_shape(params.b, (b_width,), **_say(message))


def _check_matrix(name: str, cell: Cell, w: Array, rows: int | None, columns: int | None) -> None:
    want = f"({'D' if rows is None else rows}, {'J' if columns is None else columns})"
    message = f"params.{name} must have shape {want} for {cell}, got {jnp.shape(w)}"
    chex.assert_shape(w, (rows, columns), **_say(message))


def check_input(name: str, x: Array, axes: tuple[str, ...], params: CellParams) -> None:
    """Asserts that `x` has the named axes and the width of `params.w_x`, and holds floats.

    Raises:
      ValueError: the rank or the width is wrong; TypeError: the dtype is.
    """
    shape = f"[{', '.join(axes)}]"
    width = params.w_x.shape[0]
    chex.assert_rank(
        x, len(axes), **_say(f"{name} must be {shape}, time first, got shape {jnp.shape(x)}")
    )
    chex.assert_axis_dimension(
        x, -1, width, **_say(f"{name} must be {shape} with D = {width}, got shape {jnp.shape(x)}")
    )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} must be floats, got {x.dtype}")


def widened(params: CellParams, x: Array) -> CellParams:
    """Returns the parameters as engines take them: in float32, or the dtype of x if it is wider."""
    return jax.tree.map(lambda p: p.astype(wide(x.dtype)), params)


def check_flags(name: str, flags: Array | None, shape: tuple[int, ...]) -> None:
    """Asserts that a mask or reset, where given, is bool of shape [T, B].

    Raises:
      ValueError: the shape is wrong; TypeError: the dtype is.
    """
    if flags is None:
        return
    message = f"{name} must have shape [T, B] = {shape}, got {jnp.shape(flags)}"
    chex.assert_shape(flags, shape, **_say(message))
    chex.assert_type(flags, bool, **_say(f"{name} must be bool, got {flags.dtype}", TypeError))


def check_kind(name: str, cell: Cell, state: Row) -> None:
    """Asserts that `state` is a state of `cell` and of no other.

    Raises:
      TypeError: it is not.
    """
    if type(state) is not cell.State:
        want = f"{cell.State.__name__}({', '.join(cell.states)})"
        raise TypeError(f"{name} must be {want} of {cell}, got {type(state).__name__}")


def check_state(name: str, cell: Cell, state: Row, batch: int, dtype: Any) -> None:
    """Asserts that `state` is a state of `cell` for `batch` rows.

    Raises:
      TypeError: it is another cell's or of another dtype; ValueError: a shape is wrong.
    """
    check_kind(name, cell, state)
    for field in cell.states:
        value, shape = getattr(state, field), (batch, cell.width(field))
        message = f"{name}.{field} must have shape [B, H] = {shape}, got {jnp.shape(value)}"
        chex.assert_shape(value, shape, **_say(message))
        message = f"{name}.{field} must have dtype {dtype}, got {value.dtype}"
        chex.assert_type(value, dtype, **_say(message, TypeError))


def checked_noise(cell: Cell, noise: Noise | None, instants: tuple[int, ...], x: Array) -> Noise:
    """Returns `noise` as a constant, or none at all, for input x [..., B, D] at these instants.

    Raises:
      TypeError: it is no Noise, or a dtype is wrong; ValueError: a shape does not fit, or the cell
        has no use for keys.
    """
    if noise is None:
        return Noise()
    if not isinstance(noise, Noise):
        raise TypeError(f"noise must be lj.Noise(keys, keep), got {type(noise).__name__}")
    if noise.keys is not None:
        _check_keys(cell, noise.keys, instants)
    if noise.keep is not None:
        shape = (x.shape[-2], feedback_width(cell))
        message = f"noise.keep must have shape [B, F] = {shape}, got {jnp.shape(noise.keep)}"
        chex.assert_shape(noise.keep, shape, **_say(message))
        message = f"noise.keep must have dtype {wide(x.dtype)}, got {noise.keep.dtype}"
        chex.assert_type(noise.keep, wide(x.dtype), **_say(message, TypeError))
    return jax.lax.stop_gradient(noise)


def _check_keys(cell: Cell, keys: Array, instants: tuple[int, ...]) -> None:
    if not cell.noisy:
        raise ValueError(f"noise.keys must be None for {cell}, which draws nothing")
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise TypeError(f"noise.keys must be keys of jax.random.key, got {keys.dtype}")
    axes = "[T]" if instants else "[]"
    message = f"noise.keys must have shape {axes} = {instants}, got {jnp.shape(keys)}"
    chex.assert_shape(keys, instants, **_say(message))


def check_values(cell: Cell, states: Row, gates: Row) -> None:
    """Asserts that states and gates are finite and in the cell's ranges.

    Under `jit` this takes effect inside `chex.chexify` only.

    Raises:
      AssertionError: a value is not finite or out of range, by name.
    """
    values = jax.lax.stop_gradient({**gates._asdict(), **states._asdict()})
    chex.assert_tree_all_finite(values)
    for name, (low, high) in cell.ranges.items():
        lowest, highest = values[name].min(initial=low), values[name].max(initial=high)
        message = f"{type(cell).__name__}.{name} leaves its range [{low}, {high}]"
        chex.assert_trees_all_equal(lowest, jnp.full_like(lowest, low), custom_message=message)
        chex.assert_trees_all_equal(highest, jnp.full_like(highest, high), custom_message=message)
