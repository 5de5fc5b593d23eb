"""Noise in the loop: laws of keys and of what is kept of the feedback, under every engine."""

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.engines import Reference, Scan
from tests.cells_under_test import Uneven
from tests.engines.test_engines import B, D, T, assert_close, problem, score
from tests.products import mostly_slow

H = 5
ZONED = lj.cells.Zoneout(lj.cells.LSTM(H), {"h": 0.3, "c": 0.4})
QUIET = ZONED.cell
KEYS = jax.random.split(jax.random.key(0), T)
ENGINES = [Scan("joined", "rebuilt", chunk=4), Scan("hoisted", "saved", chunk=3, unroll=2),
           Scan("joined", "sqrt")]  # fmt: skip


def noise_of(cell, seed=9, dtype=jnp.float64, instants=T) -> Any:
    """Keys where the cell is noisy, and about half of the feedback kept, doubled."""
    keep = 2 * np.random.default_rng(seed).integers(0, 2, (B, lj.cells.feedback_width(cell)))
    keys = jax.random.split(jax.random.key(seed), instants) if cell.noisy else None
    return lj.Noise(keys, jnp.asarray(keep, dtype))


KINDS = ["zoneout", "pair", "uneven"]


@pytest.mark.parametrize(
    "kind, engine",
    mostly_slow(
        itertools.product(KINDS, ENGINES), [(k, ENGINES[n % 3]) for n, k in enumerate(KINDS)]
    ),
    ids=str,
)
def test_every_engine_has_the_gradients_of_reference(kind, engine, x64):
    """Keys, a mask of the feedback, padding, resets, carried and initial states; float64."""
    cell = Uneven(H) if kind == "uneven" else ZONED
    params, x, state, initial, mask, reset = problem(cell)
    if kind == "pair":
        pair = (np.asarray(params.w_h)[:, :2], np.asarray(params.w_h)[:2])
        params = params._replace(w_h=pair)
    noise = noise_of(cell)

    def results(noise):
        def one(engine, smooth):
            def total(params, x, state, initial):
                return score(cell, engine, params, x, state, initial, mask, reset, noise)

            return jax.value_and_grad(total, (0, 1, 2, 3))(*smooth)

        return [one(e, (params, x, state, initial)) for e in (engine, Reference())]

    got, want = jax.jit(results)(noise)
    assert_close(got, want, 1e-10)
    quiet = jax.jit(lambda: score(cell, Reference(), params, x, state, initial, mask, reset))()
    assert abs(quiet - want[0]) > 1e-3, "the noise must do something"


def test_splitting_streaming_and_rows(x64):
    """A sequence with its keys in parts; instants one by one; no row sees another or its draw."""
    params, x, state, initial, mask, reset = problem(ZONED)
    noise = noise_of(ZONED)

    def run(start, stop, state, x, noise):
        part = slice(start, stop)
        return lj.unroll(
            ZONED, params, x[part], state, initial=initial, mask=mask[part], reset=reset[part],
            noise=noise._replace(keys=noise.keys[part]), engine=ENGINES[0],
        )  # fmt: skip

    @jax.jit
    def results(x, noise):
        middle, h_1 = run(0, 4, state, x, noise)
        end, h_2 = run(4, T, middle, x, noise)
        disturbed = run(0, T, state, x.at[:, 1:].add(1.0), noise)[1]
        return run(0, T, state, x, noise), (end, jnp.concatenate([h_1, h_2])), disturbed

    whole, parts, disturbed = results(x, noise)
    assert_close(parts, whole, 1e-12)
    np.testing.assert_array_equal(disturbed[:, 0], whole[1][:, 0])

    @jax.jit
    def stream(state, x, noise):
        streamed, whole = [], lj.unroll(ZONED, params, x, state, noise=noise)[1]
        for x_t, key in zip(x, noise.keys, strict=True):
            state, h_t = lj.step(ZONED, params, state, x_t, noise=lj.Noise(key, noise.keep))
            streamed.append(h_t)
        return jnp.stack(streamed), whole

    few = noise._replace(keys=noise.keys[:3])
    streamed, whole = stream(state, x[:3], few)
    assert_close(streamed, whole, 1e-12)


def test_rows_draw_for_themselves_and_keys_decide():
    params, x, state, *_ = problem(ZONED, dtype=jnp.float32)
    alike, same = (
        jax.tree.map(lambda a: np.asarray(a)[..., :1, :].repeat(B, -2), a) for a in (x, state)
    )
    run = jax.jit(lambda keys: lj.unroll(ZONED, params, alike, same, noise=lj.Noise(keys))[1])
    h, again, other = (np.asarray(run(keys)) for keys in (KEYS, KEYS, KEYS[::-1]))
    assert np.abs(h[:, 0] - h[:, 1]).max() > 1e-3
    np.testing.assert_array_equal(again, h)
    assert np.abs(other - h).max() > 1e-3


def test_trace_sees_what_the_loop_saw(x64):
    """The gates of full gate recurrence are states as well: both ways they are the same numbers."""
    cell = lj.cells.odyssey("FGR", H)
    params, x, state, *_ = problem(cell)
    kept = jax.jit(lambda n: lj.trace(cell, params, x, state, noise=n))(noise_of(cell))
    for name in ("i", "f", "o"):
        assert_close(getattr(kept.gates, name), getattr(kept.states, name), 1e-12)


def shapes_over_time(cell, engine, noise):
    """The kinds of arrays with an axis of many instants in a program of value and gradient."""
    instants = 4096
    params, x, *_ = problem(cell, dtype=jnp.float32)
    x = jnp.zeros((instants, B, D))

    def loss(params, x):
        return jnp.sum(lj.unroll(cell, params, x, engine=engine, noise=noise)[1])

    program = str(jax.make_jaxpr(jax.value_and_grad(loss, (0, 1)))(params, x))
    arrays = re.findall(r":(\w+)\[([\d,]+)\]", program)
    sizes = {(kind, tuple(map(int, shape.split(",")))) for kind, shape in arrays}
    chunks = {instants, instants // 64, instants // 85, instants // 86}
    return {(kind, shape) for kind, shape in sizes if chunks & set(shape)}


@pytest.mark.parametrize("product", ["joined", "hoisted"])
def test_draws_are_made_again_and_never_stored(product):
    """Over all instants the noisy program has the keys, and else only what the quiet one has."""
    engine, quiet = Scan(product, chunk=64), ZONED.cell
    noise = noise_of(ZONED, dtype=jnp.float32, instants=4096)
    found = shapes_over_time(ZONED, engine, noise)
    plain = shapes_over_time(quiet, engine, None)
    assert ("f32", (4096, B, H)) in plain
    assert {kind for kind, _ in found - plain} <= {"key<fry>"}, found - plain
    stored = shapes_over_time(ZONED, Reference(), noise) - shapes_over_time(
        quiet, Reference(), None
    )
    assert any(kind == "bool" for kind, _ in stored), "plain autodiff does store them"


def test_no_noise_costs_nothing():
    """The program of a quiet call knows nothing of noise; a factor of one changes nothing."""
    cell = lj.cells.LSTM(H)
    params, x, *_ = problem(cell, dtype=jnp.float32)

    def program(cell, noise):
        def loss(params):
            return jnp.sum(lj.unroll(cell, params, x, noise=noise)[1])

        return str(jax.make_jaxpr(jax.grad(loss))(params))

    bare = program(cell, None)
    assert len(bare) == len(program(cell, lj.Noise()))
    assert "random" not in bare and "key<" not in bare
    ones = lj.Noise(keep=jnp.ones((B, H)))
    run = jax.jit(lambda noise: lj.unroll(cell, params, x, noise=noise)[1])
    plain, kept = run(None), run(ones)
    np.testing.assert_array_equal(kept, plain)


def test_noise_is_a_constant():
    cell = lj.cells.LSTM(H)
    params, x, *_ = problem(cell, dtype=jnp.float32)

    def loss(keep, engine):
        return jnp.sum(lj.unroll(cell, params, x, noise=lj.Noise(keep=keep), engine=engine)[1])

    ones = jnp.ones((B, H))
    for engine in (Reference(), ENGINES[0]):
        slope = jax.jit(jax.grad(loss), static_argnums=1)(ones, engine)
        np.testing.assert_array_equal(slope, np.zeros((B, H)))


@pytest.mark.parametrize(
    ("cell", "noise", "error", "words"),
    [
        (QUIET, lj.Noise(KEYS), ValueError, r"noise.keys must be None for LSTM\(hidden=5\), which"),
        (ZONED, KEYS, TypeError, r"noise must be lj.Noise\(keys, keep\), got "),
        (ZONED, lj.Noise(KEYS[1:]), ValueError, r"keys must have shape \[T\] = \(11,\), got \(10,"),
        (ZONED, lj.Noise(KEYS[0]), ValueError, r"noise.keys must have shape \[T\] = \(11,\), got"),
        (ZONED, lj.Noise(jnp.ones(T)), TypeError, "noise.keys must be keys of jax.random.key, got"),
        (QUIET, lj.Noise(keep=jnp.ones((H, B))), ValueError, r"keep must have shape \[B, F\] ="),
        (QUIET, lj.Noise(keep=jnp.ones((B, H), bool)), TypeError, "keep must have dtype float32"),
    ],
)  # fmt: skip
def test_bad_noise_is_named(cell, noise, error, words):
    params, x, *_ = problem(cell, dtype=jnp.float32)
    with pytest.raises(error, match=words):
        lj.unroll(cell, params, x, noise=noise)


def test_a_step_takes_one_key():
    params, x, state, *_ = problem(ZONED, dtype=jnp.float32)
    with pytest.raises(ValueError, match=r"noise.keys must have shape \[\] = \(\), got \(11,\)"):
        lj.step(ZONED, params, state, x[0], noise=lj.Noise(KEYS))
