"""The laws of one time step: declarations, results, purity, ranges, and the use of all parts."""

import dataclasses
import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.cells import Cell, LinearCell, feedback_parts, initial_state
from lstm_jax.testing.laws import agree, quick, require, same, theta_of
from lstm_jax.types import Array, Row

SAMPLES = 16  # rows of one time step


def check_declarations(cell: Cell) -> None:
    """Checks the members that name gates and states, and equality."""
    for member in ("gates", "states"):
        names = getattr(cell, member)
        fact = isinstance(names, tuple) and names and all(isinstance(n, str) for n in names)
        require(cell, fact, f"{member} must be a tuple of names, got {names!r}")
        require(cell, len(set(names)) == len(names), f"{member} has a name twice: {names}")
    own = all(getattr(type(cell), m) is not getattr(Cell, m) for m in ("output", "feedback"))
    law = f"states must have h, or the cell methods output and feedback, got {cell.states}"
    require(cell, own or "h" in cell.states, law)
    gates, both = set(cell.gates), {*cell.gates, *cell.states}
    for member, named, valid in (
        ("reads", cell.reads, gates),
        ("bias", cell.bias, gates),
        ("unbiased", cell.unbiased, gates),
        ("ranges", cell.ranges, both),
        ("widths()", cell.widths(), both),
    ):
        unknown = sorted(set(named) - valid)
        law = f"{member} must name some of {sorted(valid)}, got {unknown}"
        require(cell, not unknown, law)
    same = dataclasses.replace(cell)
    fact = cell == same and hash(cell) == hash(same)
    require(cell, fact, "a cell must equal, and hash like, another one of the same fields")


def check_results(cell: Cell) -> None:
    """Checks types, widths and dtypes of everything that the methods return."""
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        state = initial_state(cell, (), dtype)
        theta = theta_of(cell, jax.random.key(0), dtype)
        for name, value in theta._asdict().items():
            law = f"init_theta must return vectors and scalars, got {name} of shape"
            require(cell, value.ndim <= 1, f"{law} {list(value.shape)}")
        gates = cell.Gates(*(jnp.zeros(cell.width(g), dtype) for g in cell.gates))
        _check_result(cell, gates, state, theta)
        if cell.noisy:
            _check_result(cell, gates, state, theta, _draws(cell, theta, dtype))
        output = jax.eval_shape(cell.output, state)
        parts = jax.eval_shape(functools.partial(feedback_parts, cell), state)
        for name, vector in (("output", output), *(("feedback", part) for part in parts)):
            width = vector.shape[-1:] if hasattr(vector, "shape") else ()
            _check_array(cell, name, vector, width or ("width",), dtype)


def _draws(cell: Cell, theta: Row, dtype: Any) -> Row:
    """Returns the draws of one row, after a check of their types."""
    draws = dict(cell.draw(theta, jax.random.key(0)))
    for name, value in draws.items():
        fact = getattr(value, "ndim", None) == 1 and jnp.issubdtype(value.dtype, jnp.floating)
        law = f"draw: {name} must be a vector of floats, got {getattr(value, 'aval', value)}"
        require(cell, fact, law)
    return cell.Draws({name: value.astype(dtype) for name, value in draws.items()})


def _check_result(cell: Cell, gates: Row, state: Row, theta: Row, *draws: Row) -> None:
    try:
        result = jax.eval_shape(cell.update, gates, state, theta, *draws)
    except Exception as error:
        case = "on one row of the declared widths" + (" with draws" if draws else "")
        raise AssertionError(f"{cell}: update fails {case}: {error}") from error
    fact = type(result) is tuple and len(result) == 2
    require(cell, fact, "update must return a pair: the new state, the activated gates")
    for part, got, want in zip(("state", "gates"), result, (state, gates), strict=True):
        fact = type(got) is type(want)
        law = f"update must return its {part} as {type(want).__name__}, got {type(got).__name__}"
        require(cell, fact, law)
        for name, value, like in zip(want._fields, got, want, strict=True):
            _check_array(cell, f"update: {part}.{name}", value, like.shape, like.dtype)


def _check_array(cell: Cell, label: str, value: Any, shape: tuple, dtype: Any) -> None:
    law = f"{label} must be an array of shape {shape}, got {getattr(value, 'shape', value)}"
    require(cell, getattr(value, "shape", None) == shape, law)
    law = f"{label} must have the dtype {jnp.dtype(dtype)}, got {value.dtype}"
    require(cell, value.dtype == dtype, law)


class Samples(NamedTuple):
    """Small parameters, and two draws of pre-activations that can replace each other."""

    gates: Row
    others: Row
    theta: Row


def draw_samples(cell: Cell, seed: int) -> Samples:
    """Returns samples of a seed, in float64."""
    rng = np.random.default_rng(seed)

    def draw():
        sizes = [(SAMPLES, cell.width(g)) for g in cell.gates]
        return cell.Gates(*(rng.normal(size=size) for size in sizes))

    return Samples(draw(), draw(), theta_of(cell, jax.random.key(seed), jnp.float64))


def update_and_read(cell: Cell, gates: Row, state: Row, theta: Row, *draws: Row):
    """Returns the new state and gates, and what is read of the state before."""
    new, activated = cell.update(gates, state, theta, *draws)
    return new, activated, (cell.output(state), cell.feedback(state))


def check_purity(cell: Cell, samples: Samples) -> None:
    """Checks that equal arguments give equal results, and that none outlives the call."""
    row, theta = jax.tree.map(lambda a: a[0], samples.gates), samples.theta
    state = initial_state(cell, (), jnp.float64)
    key = jax.random.key(0)
    calls = {
        "update": (functools.partial(update_and_read, cell), row, state, theta),
        "init_theta": (lambda key: dict(cell.init_theta(key)), key),
    }
    if cell.noisy:
        draws = _draws(cell, theta, jnp.float64)
        calls["draw"] = (lambda *args: dict(cell.draw(*args)), theta, key)
        calls["update with draws"] = (*calls["update"], draws)
    for name, (call, *args) in calls.items():
        once, again = (quick(lambda *args, f=call: f(*args))(*args) for _ in range(2))
        law = f"{name} is impure: the same arguments gave other results"
        require(cell, same(once, again), law)
    law = "update is impure: its arguments outlive the call"
    require(cell, not _leaks(cell, row, state, theta), law)


def _leaks(cell: Cell, *args: Row) -> bool:
    """Returns whether any traced argument outlives the tracing.

    It is faster than `jax.checking_leaks`.
    """
    references = []

    def update(*args):
        references.extend(map(weakref.ref, jax.tree.leaves(args)))
        return update_and_read(cell, *args)

    def alive():
        return any(tracer() is not None for tracer in references)

    jax.make_jaxpr(update)(*args)
    if alive():
        gc.collect()  # a cycle of references is no leak
    return alive()


def check_ranges(cell: Cell, update: Callable, samples: Samples) -> None:
    """Checks that gates and states are finite and in their ranges over eight time steps."""
    for scale in (1.0, 30.0):
        state = _zeros(cell, samples)
        for t in range(8):
            gates = jax.tree.map(lambda g, s=scale, t=t: s * np.roll(g, t, 0), samples.gates)
            state, activated, _ = update(gates, state, samples.theta)
            values = {**activated._asdict(), **state._asdict()}
            _check_in_range(cell, values, f"with pre-activations of size {scale}")


def _check_in_range(cell: Cell, values: dict[str, Array], where: str) -> None:
    for name, value in values.items():
        require(cell, np.isfinite(value).all(), f"{name} is not finite {where}")
    for name, (low, high) in cell.ranges.items():
        lowest, highest = np.min(values[name]), np.max(values[name])
        law = f"{name} leaves its range [{low}, {high}] {where}, got [{lowest}, {highest}]"
        require(cell, low <= lowest and highest <= high, law)


def _zeros(cell: Cell, samples: Samples) -> Row:
    return initial_state(cell, (len(samples.gates[0]),), jnp.float64)


def states_after(cell: Cell, update: Callable, samples: Samples) -> tuple[Row, Row]:
    """Returns the states after one and after two time steps from zero."""
    first, *_ = update(samples.others, _zeros(cell, samples), samples.theta)
    second, *_ = update(samples.gates, first, samples.theta)
    return first, second


def check_linear(cell: LinearCell, update: Callable, samples: Samples, state: Row) -> None:
    """Checks that `linear` agrees with `update`."""
    gates = cell.Gates(*(g[0] for g in samples.gates))
    result = jax.eval_shape(cell.linear, gates, samples.theta)
    fact = type(result) is tuple and len(result) == 3
    require(cell, fact, "linear must return three: a, b, the activated gates")
    for name, value in zip("ab", result, strict=False):
        _check_array(cell, f"linear: {name}", value, state[0].shape[1:], state[0].dtype)
    linear = quick(jax.vmap(cell.linear, in_axes=(0, None)))
    a, b, _ = linear(samples.gates, samples.theta)
    new, *_ = update(samples.gates, state, samples.theta)
    agree(cell, "linear must agree with update: a * h + b", new[0], a * state[0] + b)


def check_use(cell: Cell, update: Callable, samples: Samples, first: Row, state: Row) -> None:
    """Checks that every gate, state and small parameter has an effect."""
    gates, others, theta = samples
    new, _, read = update(gates, state, theta)
    for name in cell.gates:
        changed, *_ = update(gates._replace(**{name: getattr(others, name)}), state, theta)
        require(cell, not same(changed, new), f"gate {name} is not used: no state depends on it")
    for name in cell.states:
        swapped = state._replace(**{name: getattr(first, name)})
        changed, _, read_now = update(gates, swapped, theta)
        law = f"state {name} is not used: neither update nor output nor feedback depends on it"
        require(cell, not same((changed, read_now), (new, read)), law)
    for name in theta._fields:
        value = getattr(theta, name)
        changed, *_ = update(gates, state, theta._replace(**{name: value + 0.3 * np.cos(value)}))
        law = f"theta.{name} is not used: no state depends on it"
        require(cell, not same(changed, new), law)


def check_noise(cell: Cell, samples: Samples, state: Row) -> None:
    """Checks that draws depend on the key, are used, and respect the ranges."""
    noisy = quick(jax.vmap(functools.partial(update_and_read, cell), in_axes=(0, 0, None, 0)))
    keys = jax.random.split(jax.random.key(0), (4, len(samples.gates[0])))
    draw = jax.vmap(jax.vmap(lambda key: cell.Draws(cell.draw(samples.theta, key))))
    draws = quick(draw)(keys)
    once, *others = (jax.tree.map(lambda d, n=n: d[n], draws) for n in range(4))
    results = noisy(samples.gates, state, samples.theta, once)
    for name in once._fields:
        values = [getattr(other, name) for other in others]
        moved = [not same(getattr(once, name), value) for value in values]
        require(cell, any(moved), f"draw: the key is not used, all keys give the same {name}")
        changed = [
            noisy(samples.gates, state, samples.theta, once._replace(**{name: v})) for v in values
        ]
        moved = [not same(results, other) for other in changed]
        require(cell, any(moved), f"draw: {name} is not used, no state depends on it")
        for new, activated, _ in (results, *changed):
            _check_in_range(cell, {**activated._asdict(), **new._asdict()}, "with draws")


def check_uniform(cell: Cell, samples: Samples, state: Row) -> None:
    """Compares one time step of both cells, with narrow vectors repeated for the uniform one."""
    uniform, H = cell.uniform(), cell.hidden
    for member in ("gates", "states", "h_blocks", "x_blocks"):
        fact = getattr(uniform, member) == getattr(cell, member)
        require(cell, fact, f"uniform() must have the same {member}")
    for name in (*cell.gates, *cell.states):
        fact = uniform.width(name) == H and H % cell.width(name) == 0
        law = f"uniform(): {name} must have width {H}, and a divisor of it in the cell"
        require(cell, fact, law)

    def repeated(row):
        return jax.tree.map(lambda a: np.repeat(a, H // a.shape[-1], axis=-1), row)

    one, other = (
        quick(jax.vmap(functools.partial(update_and_read, kind), (0, 0, None)))(*given)
        for kind, given in (
            (cell, (samples.gates, state, samples.theta)),
            (uniform, (*repeated((samples.gates, state)), samples.theta)),
        )
    )
    agree(cell, "uniform() must give the cell's results, repeated", other, repeated(one))
