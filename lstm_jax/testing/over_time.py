"""The laws over time: streaming, splitting, causality, and the gradients of all engines."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.cells import Cell
from lstm_jax.engines import Associative, Reference, Scan, step, trace, unroll
from lstm_jax.engines.choice import Engine
from lstm_jax.nn.initializers import init
from lstm_jax.testing.laws import agree, quick, theta_of
from lstm_jax.types import Array, CellParams, Noise, Row

T, B, CUT = 8, 3, 4
ENGINES = (Scan("joined", "rebuilt", chunk=4), Scan("hoisted", "saved", chunk=4), Associative())


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
    theta = jax.tree.map(lambda a: np.stack([a, a]), theta_of(cell, key, jnp.float64))
    params = jax.tree.map(normal, shapes._replace(theta=()))._replace(theta=theta)
    x = rng.normal(size=(2, T, B, input_size))
    mask, reset = rng.random((2, T, B)) < 0.7, rng.random((2, T, B)) < 0.2
    mask[:, :, 1], reset[:, 2, 0] = False, True
    state = jax.tree.map(lambda a, b: np.stack([a[:B], b[:B]]), first, second)
    initial = jax.tree.map(lambda s: np.stack([0 * s[1], s[0]]), state)
    keys = jax.random.split(jax.random.key(seed), (2, T)) if cell.noisy else None
    x, mask, reset = map(jnp.asarray, (x, mask, reset))
    return _Problem(params, x, state, initial, mask, reset, Noise(keys))


def check_time(cell: Cell, input_size: int, seed: int, first: Row, second: Row) -> None:
    """Computes all results in one compiled function, then compares them."""
    facts = quick(functools.partial(_facts, cell))
    problems = _problems(cell, input_size, seed, first, second)
    whole, others, streamed, split, gradients = facts(problems)
    agree(cell, "streaming by step must equal unroll", streamed, whole)
    agree(cell, "a sequence in two parts must equal the whole", split, whole)
    got, early = (run["h"][:CUT, 0] for run in (others, whole))
    agree(cell, "outputs must not depend on later inputs or other rows", got, early, 0)
    want = gradients[str(Reference())]
    for engine in _engines(cell):
        law = f"the gradients of {engine} must equal those of {Reference()}"
        agree(cell, law, gradients[str(engine)], want, 1e-10)


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
