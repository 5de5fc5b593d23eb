"""Laws of the time loop, for every cell under every engine."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.engines import Reference, Scan, scan
from tests.cells_under_test import CELLS, drawn_params
from tests.oracle import lstm, lstm_gradients
from tests.products import mostly_slow

T, B, D = 11, 3, 4
ENGINES = [
    Scan("joined", "rebuilt", chunk=4),
    Scan("joined", "saved"),
    Scan("hoisted", "rebuilt", chunk=1, unroll=3),
    Scan("hoisted", "saved", chunk=4),
    Scan("joined", "sqrt", chunk=2),
]
EVERY = [Reference(), Scan(chunk=4)]
name = str


# A loop with the values and gradients of Reference has its laws, too; so have cells of one kind.
PAIRS = mostly_slow(
    itertools.product(CELLS, EVERY),
    [(CELLS[0], EVERY[0]), *((cell, EVERY[1]) for cell in (CELLS[0], *CELLS[-2:]))],
)


def problem(cell, seed=0, dtype=jnp.float64):
    """Returns parameters, inputs, a carried and an initial state, a mask with gaps, and resets."""
    rng = np.random.default_rng(seed)
    params = drawn_params(cell, D, rng, dtype)
    x = jnp.asarray(rng.normal(size=(T, B, D)), dtype)
    state, initial = (
        cell.State(*(jnp.asarray(0.5 * rng.normal(size=(B, cell.width(s))), dtype)
                     for s in cell.states)) for _ in range(2)
    )  # fmt: skip
    mask, reset = rng.random((T, B)) < 0.7, rng.random((T, B)) < 0.2
    mask[:, 1], reset[0, 0] = False, True
    return params, x, state, initial, jnp.asarray(mask), jnp.asarray(reset)


def score(cell, engine, params, x, state, initial, mask, reset, noise=None):
    """Returns a number that depends on the outputs and the final state; on every one, if masked."""
    inputs = (cell, params, x, state)
    given: dict[str, Any] = dict(initial=initial, mask=mask, reset=reset, noise=noise)
    if mask is None:
        final, h = lj.unroll(*inputs, **given, engine=engine)
        leaves = [h, *final]
    else:
        final, h, states, _ = lj.trace(*inputs, **given, engine=engine)
        leaves = [h, *states, *final]
    return sum(jnp.sum(jnp.sin(leaf * (i + 1.0))) for i, leaf in enumerate(leaves))


def assert_close(got, want, tolerance):
    leaves = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True)
    for (path, *pair), other in leaves:
        g, w = (np.asarray(a, np.float64) for a in (*pair, other))
        error, size = np.linalg.norm(g - w), np.linalg.norm(w)
        assert error <= tolerance * (size + 1e-3), (jax.tree_util.keystr(path), error, size)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("cell", [CELLS[0], CELLS[-1]], ids=name)
def test_an_input_product_for_each_block_has_the_gradients_of_reference(cell, monkeypatch):
    """The form of wide batches; other tests are narrow."""
    monkeypatch.setattr(scan, "NARROW", 0)
    params, x, state, initial, mask, reset = problem(cell)

    def slopes(engine):
        def number(params, x, state, initial):
            return score(cell, engine, params, x, state, initial, mask, reset)

        return jax.grad(number, (0, 1, 2, 3))(params, x, state, initial)

    want, got = jax.jit(lambda: (slopes(Reference()), slopes(Scan("hoisted", "saved"))))()
    assert_close(got, want, 1e-10)


FLAGS = ["mask, reset", "mask", "reset", ""]
# Each cell meets every engine and all flags; by default one of them.
SQUARE = [
    [(cell, engine, FLAGS[(n // 2 + k) % 4]) for k, engine in enumerate(ENGINES)]
    for n, cell in enumerate(CELLS)
]


@pytest.mark.parametrize(
    "cell, engine, flags",
    mostly_slow(itertools.chain(*SQUARE), [row[n % len(row)] for n, row in enumerate(SQUARE)]),
    ids=name,
)
def test_every_engine_has_the_gradients_of_reference(cell, engine, flags, x64):
    """With masks, resets, carried and initial states, under vmap over parameters, or without."""
    given = [problem(cell, seed) for seed in (0, 1)]
    both = jax.tree.map(lambda *leaves: np.stack(leaves), *given)

    def one(engine, params, x, state, initial, mask, reset):
        given: dict[str, Any] = {
            "mask": mask if "mask" in flags else None, "reset": reset if "reset" in flags else None
        }  # fmt: skip

        def total(*smooth):
            return score(cell, engine, *smooth, **given)

        return jax.value_and_grad(total, (0, 1, 2, 3))(params, x, state, initial)

    def gradients(engine):
        return jax.vmap(functools.partial(one, engine))(*both) if flags else one(engine, *given[0])

    got, want = jax.jit(lambda: (gradients(engine), gradients(Reference())))()
    assert_close(got, want, 1e-10)


@pytest.mark.parametrize("engine", mostly_slow([Reference(), *ENGINES], EVERY), ids=name)
def test_the_lstm_equals_the_oracle(engine, x64):
    """Outputs, gates, final state and every gradient, against NumPy with four separate gates."""
    cell = lj.cells.LSTM(5)
    params, x, state, _, mask, reset = problem(cell)
    weights = {
        k: tuple(np.asarray(a) for a in ws)
        for k, *ws in zip(
            cell.gates,
            jnp.split(params.w_x, 4, 1),
            jnp.split(jnp.asarray(params.w_h), 4, 1),
            jnp.split(params.b, 4),
            strict=True,
        )
    }
    d_h, (d_final_h, d_final_c) = (
        np.cos(np.arange(T * B * 5.0)).reshape(T, B, 5),
        (
            np.ones((B, 5)),
            2 * np.ones((B, 5)),
        ),
    )

    def loss(params, x, state):
        final, h = lj.unroll(cell, params, x, state, mask=mask, reset=reset, engine=engine)
        return (h * d_h).sum() + (final.h * d_final_h).sum() + (final.c * d_final_c).sum(), h

    (_, h), got = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(params, x, state)
    seen = jnp.where(mask[..., None], x, 0)  # a masked step has gates, those of an input of zero
    numpy = [np.asarray(a) for a in (seen, state.h, state.c, mask, reset)]
    want_h, _, tape = lstm(weights, *numpy)
    grads, d_x, (d_h0, d_c0) = lstm_gradients(
        weights, tape, d_h, d_final_h, d_final_c, np.asarray(reset)
    )
    assert_close(h, want_h, 1e-12)
    gates = lj.trace(cell, params, x, state, mask=mask, reset=reset, engine=engine).gates
    assert_close(gates, cell.Gates(*(np.array([t[n] for t in tape]) for n in (3, 4, 5, 6))), 1e-12)
    w_x, w_h, b = (np.concatenate([grads[k][n] for k in cell.gates], -1) for n in range(3))
    d_params, *d_others = got
    assert_close(d_params[:3], (w_x, w_h, b), 1e-10)
    assert_close(d_others, [d_x, lj.LSTMState(d_h0, d_c0)], 1e-10)


@pytest.mark.parametrize("cell, engine", PAIRS, ids=name)
def test_laws_of_time(cell, engine, x64):
    """Split between chunks, streaming, held states, resets, rows apart and in any order."""
    params, x, state, initial, mask, reset = problem(cell)
    x, mask, reset = (a[:10] for a in (x, mask, reset))  # two equal parts are one compilation

    @jax.jit
    def run(x, state, mask, reset):
        kept = lj.trace(cell, params, x, state, initial=initial, mask=mask, reset=reset,
                        engine=engine)  # fmt: skip
        return kept.final, kept.h, kept.states

    final, h, states = run(x, state, mask, reset)
    middle, h_1, _ = run(x[:5], state, mask[:5], reset[:5])
    end, h_2, _ = run(x[5:], middle, mask[5:], reset[5:])
    assert_close((end, np.concatenate([h_1, h_2])), (final, h), 1e-12)

    assert_close(jax.tree.map(lambda s: s[-1], states), final, 0)
    assert not np.any(np.asarray(h)[~np.asarray(mask)]), "a masked step must be silent"
    state, initial, states = jax.tree.map(np.asarray, (state, initial, states))
    mask, reset, x = (np.asarray(a) for a in (mask, reset, x))
    before = jax.tree.map(lambda s0, s: np.concatenate([s0[None], s[:-1]]), state, states)
    start = jax.tree.map(lambda i, s: np.where(reset[..., None], i, s), initial, before)
    held = jax.tree.map(lambda s, s0: np.where(mask[..., None], 0, s - s0), states, start)
    assert not any(map(np.any, held)), "a masked step must hold the state"

    order = np.array([2, 0, 1])
    shuffled = run(x[:, order], jax.tree.map(lambda s: s[order], state), mask[:, order],
                   reset[:, order])  # fmt: skip
    if jax.tree.leaves(initial)[0].ndim == 1:
        assert_close(shuffled[1], h[:, order], 1e-12)


@pytest.mark.parametrize("cell, engine", PAIRS, ids=name)
def test_a_reset_is_a_fresh_start_and_a_stream_is_an_unroll(cell, engine, x64):
    params, x, state, initial, _, _ = problem(cell)
    at = 4
    reset = np.arange(T)[:, None].repeat(B, 1) == at
    run = jax.jit(lambda x, s, r: lj.unroll(cell, params, x, s, initial=initial, reset=r,
                                            engine=engine))  # fmt: skip
    _, h = run(x, state, reset)
    _, fresh = run(x[at:], initial, np.zeros((T - at, B), bool))
    assert_close(h[at:], fresh, 1e-12)

    step = jax.jit(lambda s, x_t: lj.step(cell, params, s, x_t))
    streamed, streaming = [], state
    for t in range(at):
        streaming, h_t = step(streaming, x[t])
        streamed.append(h_t)
    assert_close(np.stack(streamed), h[:at], 1e-12)


@pytest.mark.parametrize("cell, engine", PAIRS, ids=name)
def test_the_past_and_other_rows_are_all_that_is_seen(cell, engine, x64):
    """Causality and batch independence, by gradient."""
    params, x, state, *_ = problem(cell)
    at, row = 5, 1

    def output(x):
        return jnp.sum(jnp.sin(lj.unroll(cell, params, x, state, engine=engine)[1][at, row]))

    seen = np.asarray(jax.jit(jax.grad(output))(x))
    assert not seen[at + 1 :].any(), "an output must not depend on later inputs"
    assert not np.delete(seen, row, axis=1).any(), "rows must not see each other"
    assert np.abs(seen[at, row]).min() > 0
    assert np.abs(seen[0, row]).max() > 0, "the first input must reach the output"


@pytest.mark.parametrize(
    "cell", [CELLS[0], *(pytest.param(c, marks=pytest.mark.slow) for c in CELLS[1:-1]), CELLS[-1]],
    ids=name,
)  # fmt: skip
def test_edges(cell):
    """T = 0 and 1, B = 1, and rows that are masked throughout, gradients finite."""
    params, x, state, _, _, reset = problem(cell, dtype=jnp.float32)
    nothing, one = jnp.zeros((T, B), bool), (slice(None), slice(0, 1))

    def grads(x, state, mask, reset):
        def loss(params, x, state):
            final, h = lj.unroll(
                cell, params, x, state, mask=mask, reset=reset, engine=Scan(chunk=4)
            )
            return jnp.sum(h**2) + sum(jnp.sum(s) for s in final), (final, h)

        return jax.grad(loss, (0, 1, 2), has_aux=True)(params, x, state)

    row = jax.tree.map(lambda s: s[:1], state)
    empty, first, alone, masked = jax.jit(
        lambda x: (
            grads(x[:0], state, nothing[:0], reset[:0]),
            grads(x[:1], state, None, None),
            grads(x[one], row, None, reset[one]),
            grads(x, state, nothing, None),
        )
    )(x)
    for (d_params, d_x, d_state), (final, h) in (empty, masked):
        assert_close((final, d_state), (state, jax.tree.map(jnp.ones_like, state)), 0)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves((d_params, d_x, h)))
    _, (final, h) = first
    want, want_h = lj.step(cell, params, state, x[0])
    assert_close((final, h[0]), (want, want_h), 1e-6)
    assert alone[1][1].shape == (T, 1, h.shape[-1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((first, alone)))


@pytest.mark.parametrize("engine", EVERY, ids=name)
def test_checkpoint_and_bfloat16(engine):
    cell = lj.cells.LSTM(16)
    params, x, *_ = problem(cell, dtype=jnp.float32)

    def loss(params, x):
        return jnp.sum(lj.unroll(cell, params, x, engine=engine)[1] ** 2)

    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (params, x))
    plain, again, low = jax.jit(
        lambda: (
            jax.grad(loss)(params, x),
            jax.grad(jax.checkpoint(loss))(params, x),
            jax.grad(loss)(*half),
        )
    )()
    assert_close(again, plain, 1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype(jnp.bfloat16)}
    assert_close(low, plain, 3e-2)


def test_vmap_over_data_is_a_batch():
    cell = lj.cells.GRU(5)
    params, x, *_ = problem(cell, dtype=jnp.float32)

    @jax.jit
    def both(x):
        one = jax.vmap(lambda x: lj.unroll(cell, params, x[:, None])[1][:, 0], 1, 1)(x)
        return one, lj.unroll(cell, params, x)[1]

    one, whole = both(x)
    assert_close(one, whole, 1e-6)


def test_forward_mode_belongs_to_reference():
    cell = lj.cells.LSTM(5)
    params, x, *_ = problem(cell, dtype=jnp.float32)

    def loss(x, engine):
        return jnp.sum(lj.unroll(cell, params, x, engine=engine)[1] ** 2)

    @jax.jit
    def ways(x):
        push = jax.jvp(lambda x: loss(x, "reference"), (x,), (jnp.ones_like(x),))[1]
        return push, jnp.sum(jax.grad(lambda x: loss(x, "scan"))(x))

    push, pull = ways(x)
    np.testing.assert_allclose(push, pull, rtol=1e-5)


@pytest.mark.parametrize("engine", ["scan", pytest.param("scan_sqrt", marks=pytest.mark.slow)])
def test_second_derivatives(engine, x64):
    """Reverse over reverse, and forward over reverse, are those of reference."""
    cell = lj.cells.LSTM(5)
    params, x, *_ = problem(cell)

    def products(engine):
        def loss(x):
            return jnp.sum(lj.unroll(cell, params, x, engine=engine)[1] ** 2)

        def slope(x):
            return jnp.sum(jnp.sin(jax.grad(loss)(x)))

        return jax.grad(slope)(x), jax.jvp(jax.grad(loss), (x,), (jnp.cos(x),))[1]

    assert_close(
        jax.jit(lambda: products(engine))(), jax.jit(lambda: products("reference"))(), 1e-10
    )


def test_sqrt_keeps_the_states_between_blocks_and_one_block():
    """Temporaries of a gradient grow as sqrt(T); one with a loop's states grows as T."""
    cell, B = lj.cells.LSTM(16), 8
    params = lj.init(cell, jax.random.key(0), 1)

    def temporaries(T, engine):
        def loss(params, x):
            return jnp.sum(lj.unroll(cell, params, x, engine=engine)[0].h)

        x = jax.ShapeDtypeStruct((T, B, 1), jnp.float32)
        compiled = jax.jit(jax.grad(loss)).lower(params, x).compile()
        planned: Any = compiled.memory_analysis()
        return planned.temp_size_in_bytes

    states = 2 * 4 * B * cell.hidden  # bytes of one time step
    assert temporaries(4096, "scan") > 4096 * states
    for T in (256, 4096):
        assert temporaries(T, "scan_sqrt") < 12 * T**0.5 * states


def test_auto_is_one_of_the_named_engines():
    narrow, wide, widest = (
        lj.engines.resolve("auto", lj.cells.LSTM(hidden), "cpu") for hidden in (128, 256, 512)
    )
    assert (narrow, wide) == (Scan("joined", "rebuilt"), Scan("joined", "saved"))
    assert widest == Scan("hoisted", "saved")
    assert lj.engines.resolve("scan_sqrt", lj.cells.LSTM(512), "cpu") == Scan("hoisted", "sqrt")
    for platform in ("gpu", "tpu"):
        elsewhere = lj.engines.resolve("auto", lj.cells.LSTM(128), platform)
        assert elsewhere == Scan("hoisted", chunk=64, unroll=8)
