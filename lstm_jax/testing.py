"""The laws every cell keeps, as one check to run on a cell of one's own."""

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
ENGINES = (Scan("joined", "rebuilt", chunk=4), Scan("hoisted", "saved", chunk=4), Associative())
# A few instants, once: what counts is the time to compile.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def check_cell(cell: Cell, *, input_size: int = 3, seed: int = 0) -> None:
    """Asserts that `cell` keeps the contract of `lj.Cell`, whatever its equations are.

    The words it declares fit together. `update` gives a state and gates of the declared names,
    widths and dtypes, the same ones for the same arguments; they are finite and in `ranges`; every
    gate, state and small parameter is used. Over time, in float64: streaming, splitting, masks and
    resets give the numbers of one unroll, the future and other rows are not seen, and every engine
    that runs it on a CPU has the gradients of `Reference`, under `vmap` over parameters too. The
    `linear` of a `LinearCell` says what its `update` does, and `uniform()` is the same equations. A
    noisy cell keeps all this with its draws, draws from its key and from nothing else, and uses
    every draw.

    Args:
      cell: the cell, small: the time it takes is that of compiling; if it is noisy, with rates
        that are not zero.
      input_size: D, the width of the input.
      seed: of parameters and data.

    Raises:
      AssertionError: naming the cell, the law and the field.
    """
    with jax.enable_x64(True):
        _check_words(cell)
        _check_results(cell)
        rows = _rows(cell, seed)
        _check_purity(cell, *rows)
        instant = jax.jit(jax.vmap(functools.partial(_instant, cell), in_axes=(0, 0, None)),
                          compiler_options=QUICK)  # fmt: skip
        _check_ranges(cell, instant, rows)
        reached = _reached(cell, instant, rows)
        if isinstance(cell, LinearCell):
            _check_linear(cell, instant, rows, reached[1])
        if cell.noisy:
            _check_noise(cell, rows, reached[0])
        if cell.uniform() != cell:
            _check_uniform(cell, rows, reached[0])
        _check_use(cell, instant, rows, *reached)
        _check_time(cell, input_size, seed, *reached)


def _require(cell: Cell, fact: Any, law: str) -> None:
    if not fact:
        raise AssertionError(f"{cell}: {law}")


def _check_words(cell: Cell) -> None:
    for word in ("gates", "states"):
        names = getattr(cell, word)
        fact = isinstance(names, tuple) and names and all(isinstance(n, str) for n in names)
        _require(cell, fact, f"{word} must be a tuple of names, got {names!r}")
        _require(cell, len(set(names)) == len(names), f"{word} has a name twice: {names}")
    gates, both = set(cell.gates), {*cell.gates, *cell.states}
    for word, named, known in (
        ("reads", cell.reads, gates),
        ("bias", cell.bias, gates),
        ("unbiased", cell.unbiased, gates),
        ("ranges", cell.ranges, both),
        ("widths()", cell.widths(), both),
    ):
        unknown = sorted(set(named) - known)
        _require(cell, not unknown, f"{word} names {unknown}; there are {sorted(known)}")
    same = dataclasses.replace(cell)
    fact = cell == same and hash(cell) == hash(same)
    _require(cell, fact, "a cell must equal, and hash like, another one of the same fields")


def _check_results(cell: Cell) -> None:
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        state = initial_state(cell, (), dtype)
        theta = _theta(cell, jax.random.key(0), dtype)
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
    """Draws for one row, and checks what comes."""
    found = dict(cell.draw(theta, jax.random.key(0)))
    for name, value in found.items():
        fact = getattr(value, "ndim", None) == 1 and jnp.issubdtype(value.dtype, jnp.floating)
        law = f"draw: {name} must be a vector of floats, got {getattr(value, 'aval', value)}"
        _require(cell, fact, law)
    return cell.Draws({name: value.astype(dtype) for name, value in found.items()})


def _check_result(cell: Cell, gates: Row, state: Row, theta: Row, *draws: Row) -> None:
    try:
        result = jax.eval_shape(cell.update, gates, state, theta, *draws)
    except Exception as error:
        given = "on one row of the declared widths" + (" with what was drawn" if draws else "")
        raise AssertionError(f"{cell}: update fails {given}: {error}") from error
    fact = type(result) is tuple and len(result) == 2
    _require(cell, fact, "update must return a pair: the new state, the activated gates")
    for what, got, want in zip(("state", "gates"), result, (state, gates), strict=True):
        fact = type(got) is type(want)
        law = f"update must return its {what} as {type(want).__name__}, got {type(got).__name__}"
        _require(cell, fact, law)
        for name, value, like in zip(want._fields, got, want, strict=True):
            _check_array(cell, f"update: {what}.{name}", value, like.shape, like.dtype)


def _check_array(cell: Cell, what: str, value: Any, shape: tuple, dtype: Any) -> None:
    law = f"{what} must be an array of shape {shape}, got {getattr(value, 'shape', value)}"
    _require(cell, getattr(value, "shape", None) == shape, law)
    law = f"{what} must keep the dtype {jnp.dtype(dtype)}, got {value.dtype}"
    _require(cell, value.dtype == dtype, law)


def _theta(cell: Cell, key: Array, dtype: Any) -> Row:
    values = cell.init_theta(key)
    return cell.Theta({name: jnp.asarray(value, dtype) for name, value in values.items()})


class _Rows(NamedTuple):
    """Pre-activations and small parameters: two draws of each, to put one for the other."""

    gates: Row
    others: Row
    theta: Row


def _rows(cell: Cell, seed: int, count: int = 16) -> _Rows:
    rng = np.random.default_rng(seed)

    def draw():
        sizes = [(count, cell.width(g)) for g in cell.gates]
        return cell.Gates(*(jnp.asarray(rng.normal(size=size)) for size in sizes))

    return _Rows(draw(), draw(), _theta(cell, jax.random.key(seed), jnp.float64))


def _instant(cell: Cell, gates: Row, state: Row, theta: Row, *draws: Row):
    new, activated = cell.update(gates, state, theta, *draws)
    return new, activated, (cell.output(state), cell.feedback(state))


def _check_purity(cell: Cell, gates: Row, others: Row, theta: Row) -> None:
    del others
    row = jax.tree.map(lambda a: a[0], gates)
    state = initial_state(cell, (), jnp.float64)
    key = jax.random.key(0)
    calls = {
        "update": lambda: _instant(cell, row, state, theta),
        "init_theta": lambda: dict(cell.init_theta(key)),
    }
    if cell.noisy:
        draws = _draws(cell, theta, jnp.float64)
        calls["draw"] = lambda: dict(cell.draw(theta, key))
        calls["update with draws"] = lambda: _instant(cell, row, state, theta, draws)
    for name, call in calls.items():
        law = f"{name} is impure: the same arguments gave other results"
        _require(cell, _same(call(), call()), law)
    law = "update is impure: it keeps what it is given"
    _require(cell, not _kept(cell, row, state, theta), law)


def _kept(cell: Cell, *args: Row) -> bool:
    """Says whether any traced argument outlives the tracing (sooner than `jax.checking_leaks`)."""
    given = []

    def watched(*args):
        given.extend(map(weakref.ref, jax.tree.leaves(args)))
        return _instant(cell, *args)

    def alive():
        return any(tracer() is not None for tracer in given)

    jax.make_jaxpr(watched)(*args)
    if alive():
        gc.collect()  # what only holds itself is not kept
    return alive()


def _same(a: Row, b: Row) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in leaves)


def _check_ranges(cell: Cell, instant: Callable, rows: _Rows) -> None:
    for scale in (1.0, 30.0):
        state = _zeros(cell, rows)
        for t in range(8):
            gates = jax.tree.map(lambda g, s=scale, t=t: s * jnp.roll(g, t, 0), rows.gates)
            state, activated, _ = instant(gates, state, rows.theta)
            values = {**activated._asdict(), **state._asdict()}
            _check_in_range(cell, values, f"where pre-activations are of size {scale}")


def _check_in_range(cell: Cell, values: dict[str, Array], where: str) -> None:
    for name, value in values.items():
        _require(cell, np.isfinite(value).all(), f"{name} is not finite {where}")
    for name, (low, high) in cell.ranges.items():
        found = float(values[name].min()), float(values[name].max())
        law = f"{name} leaves its range [{low}, {high}] {where}: it lies in {found}"
        _require(cell, low <= found[0] and found[1] <= high, law)


def _zeros(cell: Cell, rows: _Rows) -> Row:
    return initial_state(cell, (len(rows.gates[0]),), jnp.float64)


def _reached(cell: Cell, instant: Callable, rows: _Rows) -> tuple[Row, Row]:
    first, *_ = instant(rows.others, _zeros(cell, rows), rows.theta)
    second, *_ = instant(rows.gates, first, rows.theta)
    return first, second


def _check_linear(cell: LinearCell, instant: Callable, rows: _Rows, state: Row) -> None:
    given = cell.Gates(*(g[0] for g in rows.gates)), rows.theta
    result = jax.eval_shape(cell.linear, *given)
    fact = type(result) is tuple and len(result) == 3
    _require(cell, fact, "linear must return three: a, b, the activated gates")
    for name, value in zip("ab", result, strict=False):
        _check_array(cell, f"linear: {name}", value, state[0].shape[1:], state[0].dtype)
    a, b, _ = jax.vmap(cell.linear, in_axes=(0, None))(rows.gates, rows.theta)
    new, *_ = instant(rows.gates, state, rows.theta)
    _agree(cell, "linear must give what update does: a * h + b", new[0], a * state[0] + b)


def _check_use(cell: Cell, instant: Callable, rows: _Rows, first: Row, state: Row) -> None:
    gates, others, theta = rows
    new, _, read = instant(gates, state, theta)
    for name in cell.gates:
        changed, *_ = instant(gates._replace(**{name: getattr(others, name)}), state, theta)
        _require(cell, not _same(changed, new), f"gate {name} is not used: no state depends on it")
    for name in cell.states:
        swapped = state._replace(**{name: getattr(first, name)})
        changed, _, read_now = instant(gates, swapped, theta)
        law = f"state {name} is not used: neither update nor output nor feedback depends on it"
        _require(cell, not _same((changed, read_now), (new, read)), law)
    for name in theta._fields:
        value = getattr(theta, name)
        changed, *_ = instant(gates, state, theta._replace(**{name: value + 0.3 * jnp.cos(value)}))
        law = f"theta.{name} is not used: no state depends on it"
        _require(cell, not _same(changed, new), law)


def _check_noise(cell: Cell, rows: _Rows, state: Row) -> None:
    """Draws several times for the same rows: from the key, of use, and in range."""
    noisy = jax.jit(jax.vmap(functools.partial(_instant, cell), in_axes=(0, 0, None, 0)),
                    compiler_options=QUICK)  # fmt: skip
    keys = jax.random.split(jax.random.key(0), (4, len(rows.gates[0])))
    draws = jax.vmap(jax.vmap(lambda key: cell.Draws(cell.draw(rows.theta, key))))(keys)
    once, *others = (jax.tree.map(lambda d, n=n: d[n], draws) for n in range(4))
    results = noisy(rows.gates, state, rows.theta, once)
    for name in once._fields:
        values = [getattr(other, name) for other in others]
        moved = [not _same(getattr(once, name), value) for value in values]
        _require(cell, any(moved), f"draw: the key is not used, all keys give the same {name}")
        changed = [noisy(rows.gates, state, rows.theta, once._replace(**{name: v})) for v in values]
        moved = [not _same(results, other) for other in changed]
        _require(cell, any(moved), f"draw: {name} is not used, no state depends on it")
        for new, activated, _ in (results, *changed):
            _check_in_range(cell, {**activated._asdict(), **new._asdict()}, "with what was drawn")


def _check_uniform(cell: Cell, rows: _Rows, state: Row) -> None:
    """One instant of both, the narrow vectors repeated for the uniform cell."""
    uniform, H = cell.uniform(), cell.hidden
    for words in ("gates", "states", "h_blocks", "x_blocks"):
        fact = getattr(uniform, words) == getattr(cell, words)
        _require(cell, fact, f"uniform() must have the same {words}")
    for name in (*cell.gates, *cell.states):
        fact = uniform.width(name) == H and H % cell.width(name) == 0
        law = f"uniform(): {name} must be hidden wide, and there a divisor of it"
        _require(cell, fact, law)

    def repeated(row):
        return jax.tree.map(lambda a: jnp.repeat(a, H // a.shape[-1], axis=-1), row)

    one, other = (
        jax.vmap(functools.partial(_instant, kind), in_axes=(0, 0, None))(*given, rows.theta)
        for kind, given in ((cell, (rows.gates, state)), (uniform, repeated((rows.gates, state))))
    )
    _agree(cell, "uniform() must give what the cell does, repeated", other, repeated(one))


class _Problem(NamedTuple):
    """What a loop is given."""

    params: CellParams
    x: Array
    state: Row
    initial: Row
    mask: Array
    reset: Array
    noise: Noise


def _problems(cell: Cell, input_size: int, seed: int, first: Row, second: Row) -> _Problem:
    """Returns two problems on one axis; resets of the one are to zeros, where trouble hides."""
    rng = np.random.default_rng(seed)

    def normal(like):
        return jnp.asarray(0.5 * rng.normal(size=(2, *like.shape)))

    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: init(cell, key, input_size, dtype=jnp.float64))
    theta = jax.tree.map(lambda a: jnp.stack([a, a]), _theta(cell, key, jnp.float64))
    params = jax.tree.map(normal, shapes._replace(theta=()))._replace(theta=theta)
    x = jnp.asarray(rng.normal(size=(2, T, B, input_size)))
    mask = jnp.asarray(rng.random((2, T, B)) < 0.7).at[:, :, 1].set(False)
    reset = jnp.asarray(rng.random((2, T, B)) < 0.2).at[:, 2, 0].set(True)
    state = jax.tree.map(lambda a, b: jnp.stack([a[:B], b[:B]]), first, second)
    initial = jax.tree.map(lambda s: s[::-1].at[0].set(0), state)
    keys = jax.random.split(jax.random.key(seed), (2, T)) if cell.noisy else None
    return _Problem(params, x, state, initial, mask, reset, Noise(keys))


def _check_time(cell: Cell, input_size: int, seed: int, first: Row, second: Row) -> None:
    """Makes all numbers in one compiled function, then compares them."""
    facts = jax.jit(functools.partial(_facts, cell), compiler_options=QUICK)
    problems = _problems(cell, input_size, seed, first, second)
    whole, others, streamed, split, gradients = facts(problems)
    _agree(cell, "streaming by step must equal unroll", streamed, whole)
    _agree(cell, "a sequence in two parts must equal the whole", split, whole)
    early = whole["h"][:CUT, 0]
    _agree(cell, "later inputs or other rows are seen", others["h"][:CUT, 0], early, 0)
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
    """Returns the gradient of a number that every output and the final state enter."""
    *smooth, mask, reset, noise = problem

    def score(params, x, state, initial):
        final, h = unroll(cell, params, x, state, initial=initial, mask=mask, reset=reset,
                          noise=noise, engine=engine)  # fmt: skip
        return sum(jnp.sum(jnp.sin((i + 1.0) * leaf)) for i, leaf in enumerate((h, *final)))

    gradients = jax.grad(score, argnums=(0, 1, 2, 3))(*smooth)
    return dict(zip(("params", "x", "state", "initial"), gradients, strict=True))


def _run(cell: Cell, problem: _Problem) -> dict[str, Any]:
    params, x, state, initial, mask, reset, noise = problem
    kept = trace(cell, params, x, state, initial=initial, mask=mask, reset=reset, noise=noise,
                 engine="reference")  # fmt: skip
    return dict(final=kept.final, h=kept.h, states=kept.states)


def _stream(cell: Cell, problem: _Problem) -> dict[str, Any]:
    """Steps through time, one call of `step` each."""
    params, x, state, initial, mask, reset, (keys, _) = problem

    def instant(state, now):
        x_t, mask_t, reset_t, key = now
        state, h = step(cell, params, state, x_t, initial=initial, mask_t=mask_t, reset_t=reset_t,
                        noise=Noise(key))  # fmt: skip
        return state, (h, state)

    final, (h, states) = jax.lax.scan(instant, state, (x, mask, reset, keys))
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
    for (path, a), b in leaves:
        where = f"{law}; {jax.tree_util.keystr(path, simple=True, separator='.')}"
        finite = np.isfinite(a).all() and np.isfinite(b).all()
        _require(cell, finite, f"{where} is not finite")
        error = np.linalg.norm(np.asarray(a - b)) / (np.linalg.norm(np.asarray(b)) + 1e-3)
        _require(cell, error <= tolerance, f"{where} differs by {error:.1e} of its size")
