"""Conversion of parameters, states and noise between a cell and its uniform cell."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, feedback_parts, initial_state
from lstm_jax.engines.products import pack
from lstm_jax.types import Array, CellParams, Noise, Row


def spread_params(cell: Cell, params: CellParams) -> CellParams:
    """Returns the parameters of `cell.uniform()` that are equivalent to `params`.

    The columns of a narrow block are repeated. The uniform cell feeds back copies of a narrow
    vector: the first copy has the weights, the others have rows of zeros.
    """
    w_h = params.w_h
    if w_h is None:
        pass
    elif isinstance(w_h, tuple):
        w_h = (_spread_rows(cell, w_h[0]), _columns(cell, cell.h_blocks, w_h[1]))
    else:
        w_h = _columns(cell, cell.h_blocks, _spread_rows(cell, w_h))
    return CellParams(
        _columns(cell, cell.x_blocks, params.w_x), w_h, _columns(cell, cell.gates, params.b),
        params.theta,
    )  # fmt: skip


def spread_state(cell: Cell, state: Row) -> Row:
    """Returns a state [..., H] of the uniform cell: every entry repeated."""
    return jax.tree.map(lambda s: _repeated(cell, s), state)


def gather_state(cell: Cell, state: Row) -> Row:
    """Returns the state of `cell` from one of the uniform cell: the first copies."""
    named = zip(cell.states, state, strict=True)
    return cell.State(*(s[..., :: _copies(cell, cell.width(name))] for name, s in named))


def spread_noise(cell: Cell, noise: Noise) -> Noise:
    """Returns noise for the uniform cell; its keys give the same draws."""
    if noise.keep is None:
        return noise
    return noise._replace(keep=pack(_by_part(cell, noise.keep, lambda a: _repeated(cell, a), 1)))


def _copies(cell: Cell, width: int) -> int:
    return cell.hidden // width


def _repeated(cell: Cell, a: Array) -> Array:
    return jnp.repeat(a, _copies(cell, a.shape[-1]), axis=-1, total_repeat_length=cell.hidden)


def _columns(cell: Cell, blocks: tuple[str, ...], w: Array) -> Array:
    if not blocks:
        return w
    parts = jax.lax.split(w, [cell.width(name) for name in blocks], axis=w.ndim - 1)
    return pack([_repeated(cell, part) for part in parts])


def _spread_rows(cell: Cell, w: Array) -> Array:
    def first(part):
        width, columns = part.shape
        zeros = jnp.zeros((width, _copies(cell, width), columns), part.dtype)
        return zeros.at[:, 0].set(part).reshape(cell.hidden, columns)

    return jnp.concatenate(_by_part(cell, w, first, 0))


def _by_part(cell: Cell, a: Array, f: Callable[[Array], Array], axis: int) -> list[Array]:
    """Returns `f` of the part of `a` that belongs to each vector of the feedback."""
    parts = jax.eval_shape(lambda: feedback_parts(cell, initial_state(cell)))
    return [f(part) for part in jax.lax.split(a, [p.shape[-1] for p in parts], axis=axis)]
