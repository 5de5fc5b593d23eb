"""A check of the laws that every cell obeys, also for cells of your own."""

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
from lstm_jax.engines import Associative, Reference, Scan, step, trace, unroll
from lstm_jax.engines.choice import Engine
from lstm_jax.nn.initializers import init
from lstm_jax.types import Array, CellParams, Noise, Row

T, B, CUT = 8, 3, 4
SAMPLES = 16  # rows of one time step
ENGINES = (Scan("joined", "rebuilt", chunk=4), Scan("hoisted", "saved", chunk=4), Associative())
# The functions run once, for a few time steps: compilation dominates the time.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def check_cell(cell: Cell, *, input_size: int = 3, seed: int = 0) -> None:
    """Asserts that `cell` satisfies the interface of `lj.Cell`.

    For one time step it checks:

    - The declared members are consistent.
    - `update` returns a state and gates of the declared names, widths and dtypes.
    - Equal arguments give equal results, which are finite and in `ranges`.
    - Every gate, state and small parameter is used.
    - `linear` of a `LinearCell` agrees with its `update`, and `uniform()` has the same equations.
    - A noisy cell satisfies all this with its draws, which depend on the key only, and uses them.

    Over time, in float64, it checks:

    - Streaming and splitting, with masks and resets, give the results of one unroll.
    - Outputs depend neither on later time steps nor on other rows.
    - Every engine that runs the cell on a CPU has the gradients of `Reference`, also under `vmap`
      over parameters.

    Args:
      cell: a small cell; most of the time is compilation. A noisy one needs rates above zero.
      input_size: D, the width of the input.
      seed: seed of parameters and data.

    Raises:
      AssertionError: the message names the cell, the law and the field.
      TypeError: `cell` is no cell.
    """
    if not isinstance(cell, Cell):
        raise TypeError(f"cell must be a cell, such as LSTM(64), got {cell!r}")
    with jax.enable_x64(True):
        _check_declarations(cell)
        _check_results(cell)
        samples = _samples(cell, seed)
        _check_purity(cell, samples)
        update = _quick(jax.vmap(functools.partial(_update, cell), in_axes=(0, 0, None)))
        _check_ranges(cell, update, samples)
        states = _states(cell, update, samples)
        if isinstance(cell, LinearCell):
            _check_linear(cell, update, samples, states[1])
        if cell.noisy:
            _check_noise(cell, samples, states[0])
        if cell.uniform() != cell:
            _check_uniform(cell, samples, states[0])
        _check_use(cell, update, samples, *states)
        _check_time(cell, input_size, seed, *states)


def _quick(function: Callable) -> Callable:
    """Returns the function compiled in little time, its results in NumPy."""
    compiled = jax.jit(function, compiler_options=QUICK)
    return lambda *args: jax.device_get(compiled(*args))


def _require(cell: Cell, fact: Any, law: str) -> None:
    if not fact:
        raise AssertionError(f"{cell}: {law}")


def _check_declarations(cell: Cell) -> None:
    for member in ("gates", "states"):
        names = getattr(cell, member)
        fact = isinstance(names, tuple) and names and all(isinstance(n, str) for n in names)
        _require(cell, fact, f"{member} must be a tuple of names, got {names!r}")
        _require(cell, len(set(names)) == len(names), f"{member} has a name twice: {names}")
    own = all(getattr(type(cell), m) is not getattr(Cell, m) for m in ("output", "feedback"))
    law = f"states must have h, or the cell methods output and feedback, got {cell.states}"
    _require(cell, own or "h" in cell.states, law)
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
        _require(cell, not unknown, law)
    same = dataclasses.replace(cell)
    fact = cell == same and hash(cell) == hash(same)
    _require(cell, fact, "a cell must equal, and hash like, another one of the same fields")


def _check_results(cell: Cell) -> None:
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        state = initial_state(cell, (), dtype)
        theta = _theta(cell, jax.random.key(0), dtype)
        for name, value in theta._asdict().items():
            law = f"init_theta must return vectors and scalars, got {name} of shape"
            _require(cell, value.ndim <= 1, f"{law} {list(value.shape)}")
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
        _require(cell, fact, law)
    return cell.Draws({name: value.astype(dtype) for name, value in draws.items()})


def _check_result(cell: Cell, gates: Row, state: Row, theta: Row, *draws: Row) -> None:
    try:
        result = jax.eval_shape(cell.update, gates, state, theta, *draws)
    except Exception as error:
        case = "on one row of the declared widths" + (" with draws" if draws else "")
        raise AssertionError(f"{cell}: update fails {case}: {error}") from error
    fact = type(result) is tuple and len(result) == 2
    _require(cell, fact, "update must return a pair: the new state, the activated gates")
    for part, got, want in zip(("state", "gates"), result, (state, gates), strict=True):
        fact = type(got) is type(want)
        law = f"update must return its {part} as {type(want).__name__}, got {type(got).__name__}"
        _require(cell, fact, law)
        for name, value, like in zip(want._fields, got, want, strict=True):
            _check_array(cell, f"update: {part}.{name}", value, like.shape, like.dtype)


def _check_array(cell: Cell, label: str, value: Any, shape: tuple, dtype: Any) -> None:
    law = f"{label} must be an array of shape {shape}, got {getattr(value, 'shape', value)}"
    _require(cell, getattr(value, "shape", None) == shape, law)
    law = f"{label} must have the dtype {jnp.dtype(dtype)}, got {value.dtype}"
    _require(cell, value.dtype == dtype, law)


def _theta(cell: Cell, key: Array, dtype: Any) -> Row:
    values = cell.init_theta(key)
    return cell.Theta({name: jnp.asarray(value, dtype) for name, value in values.items()})


class _Samples(NamedTuple):
    """Small parameters, and two draws of pre-activations that can replace each other."""

    gates: Row
    others: Row
    theta: Row


def _samples(cell: Cell, seed: int) -> _Samples:
    rng = np.random.default_rng(seed)

    def draw():
        sizes = [(SAMPLES, cell.width(g)) for g in cell.gates]
        return cell.Gates(*(rng.normal(size=size) for size in sizes))

    return _Samples(draw(), draw(), _theta(cell, jax.random.key(seed), jnp.float64))


def _update(cell: Cell, gates: Row, state: Row, theta: Row, *draws: Row):
    new, activated = cell.update(gates, state, theta, *draws)
    return new, activated, (cell.output(state), cell.feedback(state))


def _check_purity(cell: Cell, samples: _Samples) -> None:
    row, theta = jax.tree.map(lambda a: a[0], samples.gates), samples.theta
    state = initial_state(cell, (), jnp.float64)
    key = jax.random.key(0)
    calls = {
        "update": (functools.partial(_update, cell), row, state, theta),
        "init_theta": (lambda key: dict(cell.init_theta(key)), key),
    }
    if cell.noisy:
        draws = _draws(cell, theta, jnp.float64)
        calls["draw"] = (lambda *args: dict(cell.draw(*args)), theta, key)
        calls["update with draws"] = (*calls["update"], draws)
    for name, (call, *args) in calls.items():
        once, again = (_quick(lambda *args, f=call: f(*args))(*args) for _ in range(2))
        law = f"{name} is impure: the same arguments gave other results"
        _require(cell, _same(once, again), law)
    law = "update is impure: its arguments outlive the call"
    _require(cell, not _leaks(cell, row, state, theta), law)


def _leaks(cell: Cell, *args: Row) -> bool:
    """Returns whether any traced argument outlives the tracing.

    It is faster than `jax.checking_leaks`.
    """
    references = []

    def update(*args):
        references.extend(map(weakref.ref, jax.tree.leaves(args)))
        return _update(cell, *args)

    def alive():
        return any(tracer() is not None for tracer in references)

    jax.make_jaxpr(update)(*args)
    if alive():
        gc.collect()  # a cycle of references is no leak
    return alive()


def _same(a: Row, b: Row) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in leaves)


def _check_ranges(cell: Cell, update: Callable, samples: _Samples) -> None:
    for scale in (1.0, 30.0):
        state = _zeros(cell, samples)
        for t in range(8):
            gates = jax.tree.map(lambda g, s=scale, t=t: s * np.roll(g, t, 0), samples.gates)
            state, activated, _ = update(gates, state, samples.theta)
            values = {**activated._asdict(), **state._asdict()}
            _check_in_range(cell, values, f"with pre-activations of size {scale}")


def _check_in_range(cell: Cell, values: dict[str, Array], where: str) -> None:
    for name, value in values.items():
        _require(cell, np.isfinite(value).all(), f"{name} is not finite {where}")
    for name, (low, high) in cell.ranges.items():
        lowest, highest = np.min(values[name]), np.max(values[name])
        law = f"{name} leaves its range [{low}, {high}] {where}, got [{lowest}, {highest}]"
        _require(cell, low <= lowest and highest <= high, law)


def _zeros(cell: Cell, samples: _Samples) -> Row:
    return initial_state(cell, (len(samples.gates[0]),), jnp.float64)


def _states(cell: Cell, update: Callable, samples: _Samples) -> tuple[Row, Row]:
    """Returns the states after one and after two time steps from zero."""
    first, *_ = update(samples.others, _zeros(cell, samples), samples.theta)
    second, *_ = update(samples.gates, first, samples.theta)
    return first, second


def _check_linear(cell: LinearCell, update: Callable, samples: _Samples, state: Row) -> None:
    gates = cell.Gates(*(g[0] for g in samples.gates))
    result = jax.eval_shape(cell.linear, gates, samples.theta)
    fact = type(result) is tuple and len(result) == 3
    _require(cell, fact, "linear must return three: a, b, the activated gates")
    for name, value in zip("ab", result, strict=False):
        _check_array(cell, f"linear: {name}", value, state[0].shape[1:], state[0].dtype)
    linear = _quick(jax.vmap(cell.linear, in_axes=(0, None)))
    a, b, _ = linear(samples.gates, samples.theta)
    new, *_ = update(samples.gates, state, samples.theta)
    _agree(cell, "linear must agree with update: a * h + b", new[0], a * state[0] + b)


def _check_use(cell: Cell, update: Callable, samples: _Samples, first: Row, state: Row) -> None:
    gates, others, theta = samples
    new, _, read = update(gates, state, theta)
    for name in cell.gates:
        changed, *_ = update(gates._replace(**{name: getattr(others, name)}), state, theta)
        _require(cell, not _same(changed, new), f"gate {name} is not used: no state depends on it")
    for name in cell.states:
        swapped = state._replace(**{name: getattr(first, name)})
        changed, _, read_now = update(gates, swapped, theta)
        law = f"state {name} is not used: neither update nor output nor feedback depends on it"
        _require(cell, not _same((changed, read_now), (new, read)), law)
    for name in theta._fields:
        value = getattr(theta, name)
        changed, *_ = update(gates, state, theta._replace(**{name: value + 0.3 * np.cos(value)}))
        law = f"theta.{name} is not used: no state depends on it"
        _require(cell, not _same(changed, new), law)


def _check_noise(cell: Cell, samples: _Samples, state: Row) -> None:
    """Checks that draws depend on the key, are used, and respect the ranges."""
    noisy = _quick(jax.vmap(functools.partial(_update, cell), in_axes=(0, 0, None, 0)))
    keys = jax.random.split(jax.random.key(0), (4, len(samples.gates[0])))
    draw = jax.vmap(jax.vmap(lambda key: cell.Draws(cell.draw(samples.theta, key))))
    draws = _quick(draw)(keys)
    once, *others = (jax.tree.map(lambda d, n=n: d[n], draws) for n in range(4))
    results = noisy(samples.gates, state, samples.theta, once)
    for name in once._fields:
        values = [getattr(other, name) for other in others]
        moved = [not _same(getattr(once, name), value) for value in values]
        _require(cell, any(moved), f"draw: the key is not used, all keys give the same {name}")
        changed = [
            noisy(samples.gates, state, samples.theta, once._replace(**{name: v})) for v in values
        ]
        moved = [not _same(results, other) for other in changed]
        _require(cell, any(moved), f"draw: {name} is not used, no state depends on it")
        for new, activated, _ in (results, *changed):
            _check_in_range(cell, {**activated._asdict(), **new._asdict()}, "with draws")


def _check_uniform(cell: Cell, samples: _Samples, state: Row) -> None:
    """Compares one time step of both cells, with narrow vectors repeated for the uniform one."""
    uniform, H = cell.uniform(), cell.hidden
    for member in ("gates", "states", "h_blocks", "x_blocks"):
        fact = getattr(uniform, member) == getattr(cell, member)
        _require(cell, fact, f"uniform() must have the same {member}")
    for name in (*cell.gates, *cell.states):
        fact = uniform.width(name) == H and H % cell.width(name) == 0
        law = f"uniform(): {name} must have width {H}, and a divisor of it in the cell"
        _require(cell, fact, law)

    def repeated(row):
        return jax.tree.map(lambda a: np.repeat(a, H // a.shape[-1], axis=-1), row)

    one, other = (
        _quick(jax.vmap(functools.partial(_update, kind), (0, 0, None)))(*given, samples.theta)
        for kind, given in (
            (cell, (samples.gates, state)),
            (uniform, repeated((samples.gates, state))),
        )
    )
    _agree(cell, "uniform() must give the cell's results, repeated", other, repeated(one))


class _Problem(NamedTuple):
    """The arguments of a loop."""

    params: CellParams
    x: Array
    state: Row
    initial: Row
    mask: Array
    reset: Array
    noise: Noise


def _problems(cell: Cell, input_size: int, seed: int, first: Row, second: Row) -> _Problem:
    """Returns two problems on a new axis, one of them with resets to zeros."""
    rng = np.random.default_rng(seed)

    def normal(like):
        return 0.5 * rng.normal(size=(2, *like.shape))

    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: init(cell, key, input_size, dtype=jnp.float64))
    theta = jax.tree.map(lambda a: np.stack([a, a]), _theta(cell, key, jnp.float64))
    params = jax.tree.map(normal, shapes._replace(theta=()))._replace(theta=theta)
    x = rng.normal(size=(2, T, B, input_size))
    mask, reset = rng.random((2, T, B)) < 0.7, rng.random((2, T, B)) < 0.2
    mask[:, :, 1], reset[:, 2, 0] = False, True
    state = jax.tree.map(lambda a, b: np.stack([a[:B], b[:B]]), first, second)
    initial = jax.tree.map(lambda s: np.stack([0 * s[1], s[0]]), state)
    keys = jax.random.split(jax.random.key(seed), (2, T)) if cell.noisy else None
    x, mask, reset = map(jnp.asarray, (x, mask, reset))
    return _Problem(params, x, state, initial, mask, reset, Noise(keys))


def _check_time(cell: Cell, input_size: int, seed: int, first: Row, second: Row) -> None:
    """Computes all results in one compiled function, then compares them."""
    facts = _quick(functools.partial(_facts, cell))
    problems = _problems(cell, input_size, seed, first, second)
    whole, others, streamed, split, gradients = facts(problems)
    _agree(cell, "streaming by step must equal unroll", streamed, whole)
    _agree(cell, "a sequence in two parts must equal the whole", split, whole)
    got, early = (run["h"][:CUT, 0] for run in (others, whole))
    _agree(cell, "outputs must not depend on later inputs or other rows", got, early, 0)
    want = gradients[str(Reference())]
    for engine in _engines(cell):
        law = f"the gradients of {engine} must equal those of {Reference()}"
        _agree(cell, law, gradients[str(engine)], want, 1e-10)


def _engines(cell: Cell) -> list[Engine]:
    return [engine for engine in ENGINES if not engine.refuses(cell)]


def _facts(cell: Cell, both: _Problem):
    one = jax.tree.map(lambda a: a[0], both)
    disturbed = one.x.at[CUT:].add(1.0).at[:, 1:].add(1.0)
    runs = jax.vmap(lambda x: _run(cell, one._replace(x=x)))(jnp.stack([one.x, disturbed]))
    whole, others = (jax.tree.map(lambda a, n=n: a[n], runs) for n in range(2))
    gradients = {str(e): jax.vmap(functools.partial(_slope, cell, e))(both) for e in _engines(cell)}
    gradients[str(Reference())] = jax.lax.map(functools.partial(_slope, cell, Reference()), both)
    return whole, others, _stream(cell, one), _split(cell, one), gradients


def _slope(cell: Cell, engine: Engine, problem: _Problem) -> dict[str, Any]:
    """Returns the gradient of a function of all outputs and the final state."""
    *smooth, mask, reset, noise = problem

    def score(params, x, state, initial):
        final, h = unroll(cell, params, x, state, initial=initial, mask=mask, reset=reset,
                          noise=noise, engine=engine)  # fmt: skip
        return sum(jnp.sum(jnp.sin((i + 1.0) * leaf)) for i, leaf in enumerate((h, *final)))

    gradients = jax.grad(score, argnums=(0, 1, 2, 3))(*smooth)
    return dict(zip(("params", "x", "state", "initial"), gradients, strict=True))


def _run(cell: Cell, problem: _Problem) -> dict[str, Any]:
    params, x, state, initial, mask, reset, noise = problem
    run = trace(cell, params, x, state, initial=initial, mask=mask, reset=reset, noise=noise,
                engine="reference")  # fmt: skip
    return dict(final=run.final, h=run.h, states=run.states)


def _stream(cell: Cell, problem: _Problem) -> dict[str, Any]:
    """Runs `step` at each time step."""
    params, x, state, initial, mask, reset, (keys, _) = problem

    def body(state, inputs):
        x_t, mask_t, reset_t, key = inputs
        state, h = step(cell, params, state, x_t, initial=initial, mask_t=mask_t, reset_t=reset_t,
                        noise=Noise(key))  # fmt: skip
        return state, (h, state)

    final, (h, states) = jax.lax.scan(body, state, (x, mask, reset, keys))
    return dict(final=final, h=h, states=states)


def _split(cell: Cell, problem: _Problem) -> dict[str, Any]:
    """Runs the two halves of a sequence, one after the other."""
    params, x, state, initial, mask, reset, noise = problem

    def half(state, part):
        run = _run(cell, _Problem(params, part[0], state, initial, *part[1:]))
        return run.pop("final"), run

    halves = jax.tree.map(lambda a: a.reshape(2, CUT, *a.shape[1:]), (x, mask, reset, noise))
    final, runs = jax.lax.scan(half, state, halves)
    return dict(final=final, **jax.tree.map(lambda a: a.reshape(T, *a.shape[2:]), runs))


def _agree(cell: Cell, law: str, got: Any, want: Any, tolerance: float = 1e-12) -> None:
    leaves = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True)
    for (path, *pair), other in leaves:
        a, b = (np.asarray(leaf) for leaf in (*pair, other))
        where = f"{law}; {jax.tree_util.keystr(path, simple=True, separator='.')}"
        finite = np.isfinite(a).all() and np.isfinite(b).all()
        _require(cell, finite, f"{where} is not finite")
        error = np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-3)
        _require(cell, error <= tolerance, f"{where} differs by {error:.1e} of its size")
