"""What of a cell's equations a kernel can hold: pointwise ones, and sums over whole rows."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, feedback_parts, initial_state
from lstm_jax.types import Array, Row

POINTWISE = {
    "abs", "add", "add_any", "and", "broadcast_in_dim", "ceil", "clamp", "convert_element_type",
    "copy", "cos", "div", "eq", "erf", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow",
    "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not",
    "or", "pow", "rsqrt", "select_n", "sign", "sin", "sqrt", "square", "stop_gradient", "sub",
    "tanh", "xor",
}  # fmt: skip
REDUCTIONS = {"reduce_max", "reduce_min", "reduce_sum"}
CALLS = {"checkpoint", "closed_call", "custom_jvp_call", "custom_vjp_call", "jit", "pjit"}


@functools.cache
def strange(cell: Cell, width: int) -> str | None:
    """Returns why a kernel for rows of `width` cannot hold `cell`, or None where it can.

    Every gate, state and vector of theta must be `hidden` wide, and each that is fed back or drawn.
    Where `width` is more than `hidden`, the rows are filled up, so that units must not see each
    other.
    """
    H, names = cell.hidden, (*cell.gates, *cell.states)
    if uneven := [name for name in names if cell.width(name) != H]:
        return f"{uneven[0]} is {cell.width(uneven[0])} wide, and not {H}"
    for name, leaf in jax.eval_shape(lambda: dict(cell.init_theta(jax.random.key(0)))).items():
        if leaf.shape not in ((), (H,)):
            return f"theta.{name} is of shape {leaf.shape}, and not ({H},)"
    parts = jax.eval_shape(lambda: feedback_parts(cell, initial_state(cell)))
    if uneven := [part.shape[-1] for part in parts if part.shape != (H,)]:
        return f"a vector that it feeds back is {uneven[0]} wide, and not {H}"
    for name, leaf in jax.eval_shape(lambda: _drawn(cell)).items():
        if leaf.shape != (H,):
            return f"{name}, which it draws, is of shape {leaf.shape}, and not ({H},)"
    used = set(_primitives(_traced(cell, H)))
    if other := sorted(used - POINTWISE - REDUCTIONS):
        return f"its equations use {', '.join(other)}"
    if width == H:
        return None
    if mixing := sorted(used & REDUCTIONS):
        return f"its units see each other ({', '.join(mixing)}), so that {H} cannot become {width}"
    try:
        _traced(cell, width)
    except (TypeError, ValueError):
        return f"its equations are for {H} units, so that {H} cannot become {width}"
    return None


def _traced(cell: Cell, width: int) -> Any:
    """Returns the jaxpr of one instant on rows of `width`."""
    row = jnp.zeros(width)

    def instant(gates: Row, state: Row, theta: Row, *draws: Row):
        update: Any = cell.update
        ways = [update(gates, state, theta, *given)[0] for given in ((), draws)[: 1 + cell.noisy]]
        return ways, feedback_parts(cell, state)

    names = jax.eval_shape(lambda: dict(cell.init_theta(jax.random.key(0))))
    rows = ((row for _ in names) for names in (cell.gates, cell.states))
    theta = cell.Theta(dict.fromkeys(names, row))
    gates, state = (
        kind(*values) for kind, values in zip((cell.Gates, cell.State), rows, strict=True)
    )
    draws = cell.Draws(dict.fromkeys(jax.eval_shape(lambda: _drawn(cell)), row))
    return jax.make_jaxpr(instant)(gates, state, theta, *([draws] if cell.noisy else []))


def _drawn(cell: Cell) -> dict[str, Array]:
    """Returns what the cell draws for a row."""
    keys = jax.random.split(jax.random.key(0))
    theta = {name: jnp.asarray(value) for name, value in cell.init_theta(keys[0]).items()}
    return dict(cell.draw(cell.Theta(theta), keys[1]))


def _primitives(jaxpr: Any) -> Iterator[str]:
    """Yields what is used, calls seen through; "constants" for arrays that are no argument."""
    if any(jnp.ndim(value) for value in getattr(jaxpr, "consts", ())):
        yield "constants"
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name = equation.primitive.name
        if name not in CALLS:
            yield name
            continue
        for value in equation.params.values():
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                yield from _primitives(value)
