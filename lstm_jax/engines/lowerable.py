"""Functions of matrices in primitives that Mosaic GPU lowers.

Pallas has no rule for some primitives of the catalogue's equations and of their derivatives, and
no layout of registers for a column [rows, 1]. `lowerable` replaces both.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

from lstm_jax.types import Array

MISSING = {"ceil", "floor", "pow"}
SHAPES = {"broadcast_in_dim", "reshape"}


def lowerable(function: Callable) -> Callable:
    """Returns a function equal to `function` whose primitives Mosaic GPU lowers.

    The function maps matrices [rows, units] row by row. In between, a value of each row is a matrix
    as well, with equal columns.
    """

    def replaced(*arguments):
        jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        leaves = jax.tree.leaves(arguments)
        values = _evaluated(jaxpr, leaves, leaves[0].shape)
        return jax.tree.unflatten(jax.tree.structure(shapes), values)

    return replaced


def _log1p(x: Array, accuracy: Any = None) -> Array:
    """Returns log(1 + x), also exact for small x, as log(u) x / (u - 1) with u = 1 + x."""
    u = 1 + x
    return jnp.where(u == 1, x, jnp.log(u) * x / jnp.where(u == 1, 1, u - 1).astype(x.dtype))


def _expm1(x: Array, accuracy: Any = None) -> Array:
    """Returns exp(x) - 1, exact for small x too: tanh(x / 2) (exp(x) + 1)."""
    return jnp.tanh(x / 2) * (jnp.exp(x) + 1)


def _integer_pow(x: Array, y: int) -> Array:
    power = functools.reduce(jnp.multiply, [x] * abs(y), jnp.ones_like(x))
    return power if y >= 0 else 1 / power


REPLACED: dict[str, Callable[..., Array]] = {
    "add_any": jnp.add,
    "copy": lambda x: x,
    "expm1": _expm1,
    "integer_pow": _integer_pow,
    "is_finite": lambda x: x - x == 0,
    "log1p": _log1p,
    "stop_gradient": lambda x: x,
}


def _evaluated(closed: ClosedJaxpr, values: list[Array], shape: tuple[int, int]) -> list[Array]:
    """Returns the outputs of a jaxpr, whose calls are inlined and primitives replaced."""
    jaxpr = closed.jaxpr
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *values), strict=True))

    def read(variable):
        return variable.val if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        given = [*map(read, equation.invars)]
        inner = _inner(equation)
        if inner is None:
            made = [_applied(equation, given, shape)]
        else:
            made = _evaluated(inner, given, shape)
        known.update(zip(equation.outvars, made, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _inner(equation: Any) -> ClosedJaxpr | None:
    """Returns the jaxpr that an equation calls, or None if it calls none."""
    inner = [v for v in equation.params.values() if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
    if not inner:
        return None
    return inner[0] if hasattr(inner[0], "consts") else ClosedJaxpr(inner[0], ())


def _applied(equation: Any, given: list[Array], shape: tuple[int, int]) -> Array:
    name, first = equation.primitive.name, given[0]
    if name in SHAPES:
        return first if jnp.ndim(first) else jnp.broadcast_to(first, shape)
    if name.startswith("reduce_"):
        if equation.invars[0].aval.shape[-1] == 1:
            return first
        return lax.broadcast_in_dim(equation.primitive.bind(first, **equation.params), shape, (0,))
    if name in REPLACED:
        return REPLACED[name](*given, **equation.params)
    return equation.primitive.bind(*given, **equation.params)
