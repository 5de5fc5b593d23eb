"""The cells that a kernel supports: pointwise equations, and sums over whole rows."""

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
def unsupported(cell: Cell, width: int) -> str | None:
    """Returns why a kernel of `width` units cannot run `cell`, or None if it can.

    Every gate, state, vector of theta, vector of the feedback and random vector must be `hidden`
    wide. A `width` above `hidden` pads the vectors, so units must not depend on each other.
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
    used = uses(cell)
    if other := sorted(used - POINTWISE - REDUCTIONS):
        return f"its equations use {', '.join(other)}"
    if width == H:
        return None
    if mixing := reductions(cell):
        return f"its units are dependent ({', '.join(mixing)}): {H} cannot be padded to {width}"
    try:
        _traced(cell, width)
    except (TypeError, ValueError):
        return f"its equations are for {H} units: {H} cannot be padded to {width}"
    return None


@functools.cache
def uses(cell: Cell) -> set[str]:
    """Returns the primitives of the equations of a uniform cell."""
    return set(_primitives(_traced(cell, cell.hidden)))


def reductions(cell: Cell) -> list[str]:
    """Returns the primitives by which the units of a uniform cell depend on each other."""
    return sorted(uses(cell) & REDUCTIONS)


def _traced(cell: Cell, width: int) -> Any:
    """Returns the jaxpr of one time step on vectors of `width`."""
    row = jnp.zeros(width)

    def one_step(gates: Row, state: Row, theta: Row, *draws: Row):
        update: Any = cell.update
        calls = ((), draws)[: 1 + cell.noisy]
        return [update(gates, state, theta, *d)[0] for d in calls], feedback_parts(cell, state)

    names = jax.eval_shape(lambda: dict(cell.init_theta(jax.random.key(0))))
    vectors = ((row for _ in names) for names in (cell.gates, cell.states))
    theta = cell.Theta(dict.fromkeys(names, row))
    gates, state = (
        kind(*values) for kind, values in zip((cell.Gates, cell.State), vectors, strict=True)
    )
    draws = cell.Draws(dict.fromkeys(jax.eval_shape(lambda: _drawn(cell)), row))
    return jax.make_jaxpr(one_step)(gates, state, theta, *([draws] if cell.noisy else []))


def _drawn(cell: Cell) -> dict[str, Array]:
    """Returns the random vectors of one row."""
    keys = jax.random.split(jax.random.key(0))
    theta = {name: jnp.asarray(value) for name, value in cell.init_theta(keys[0]).items()}
    return dict(cell.draw(cell.Theta(theta), keys[1]))


def _primitives(jaxpr: Any) -> Iterator[str]:
    """Yields the primitives of a jaxpr and its calls; "constants" for closed-over arrays."""
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
