"""The fused engine: the numbers of reference from both kernels, interpreted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import lstm_jax as lj
from lstm_jax.engines import Reference, fused
from lstm_jax.training import parallel
from tests.engines.kernels import (
    FGR,
    GPU,
    ON_DEVICE,
    OTHERS,
    QUICK,
    TPU,
    ZONED,
    C,
    H,
    Own,
    T,
    kernel_grids,
    outputs,
    problem,
    slope,
)
from tests.engines.test_engines import assert_close
from tests.engines.test_precision import dots, dtypes
from tests.products import mostly_slow


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(fused, "TILE", 16)
    monkeypatch.setattr(fused, "CHUNK", 2)


@pytest.mark.usefixtures("x64", "_small")
@pytest.mark.parametrize("cell", mostly_slow([*QUICK, *OTHERS], QUICK), ids=str)
def test_it_has_the_gradients_of_reference(cell):
    """Masks, resets, carried and initial states, sizes that fill no tile; one kernel's text.

    Layer norm sums over its units: it is as wide as the chip asks for. What draws is asked for what
    is expected, too.
    """
    smooth, given = problem(cell)
    other = TPU if cell in (Own(H), FGR, ZONED) else GPU
    ways = [given, (*given[:2], given[2]._replace(keys=None))][: 1 + cell.noisy]
    want, got = jax.jit(
        lambda smooth, ways: [
            [slope(cell, engine, smooth, *way) for way in ways] for engine in (Reference(), other)
        ]
    )(smooth, ways)
    assert_close(got, want, 1e-10)
    drawn = [float(number) for number, _ in want]
    assert len(set(drawn)) == len(ways)


@pytest.mark.parametrize("engine", [GPU, TPU], ids=str)
def test_what_is_drawn_is_not_kept_for_the_way_back(engine):
    """But for the keys, the gradient of a noisy cell holds what that of the quiet one does."""

    def kept(cell):
        smooth, (mask, reset, noise) = problem(cell, dtype=jnp.float32)

        def forward(params, x):
            return outputs(cell, engine, params, x, *smooth[2:], mask, reset, noise)

        _, back = jax.eval_shape(lambda *given: jax.vjp(forward, *given), *smooth[:2])
        return sorted(f"{leaf.dtype}{leaf.shape}" for leaf in jax.tree.leaves(back))

    noisy, quiet = kept(C.Zoneout(C.GRU(H), {"h": 0.3})), kept(C.GRU(H))
    for shape in quiet:
        noisy.remove(shape)
    assert noisy == [f"key<fry>({T},)"]


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("engine", [pytest.param(GPU, marks=pytest.mark.slow), TPU], ids=str)
def test_trials_are_an_axis_of_the_grid(engine):
    """Under vmap over parameters, whether the input is a trial's own or all trials'."""
    cell = C.LSTM(H)
    (params, *shared), given = problem(cell, dtype=jnp.float32)
    trials = jax.tree.map(lambda a: np.stack([a, 0.7 * a, -a]), jax.device_get(params))
    x = np.asarray(shared[0])
    own = np.stack([x, 0.5 * x, x[:, ::-1]])

    def slopes(engine):
        def one(params, x):
            return slope(cell, engine, (params, x, *shared[1:]), *given)

        return jax.vmap(one)(trials, own), jax.vmap(one, (0, None))(trials, shared[0])

    got, want = jax.jit(lambda: (slopes(engine), slopes(Reference())))()
    assert_close(got, want, 1e-5)
    grids = kernel_grids(jax.make_jaxpr(lambda: slopes(engine))().jaxpr)
    assert grids == [(3, 2, 1 if engine == GPU else 3)] * 4


def test_devices_share_the_trials():
    """Inside shard_map, as `fit` has it."""
    cell = C.RNN(H)
    (params, *shared), _ = problem(cell, dtype=jnp.float32, size=(3, 2))
    trials = jax.tree.map(lambda a: np.stack([a, 0.7 * a, -a, 0 * a]), jax.device_get(params))
    mesh, shards = parallel.everywhere(), PartitionSpec("trials")

    def each(trials):
        return jax.vmap(lambda p: slope(cell, TPU, (p, *shared))[1][0])(trials)

    spread = jax.shard_map(each, mesh=mesh, in_specs=shards, out_specs=shards, check_vma=False)
    got, want = jax.jit(lambda: (spread(trials), each(trials)))()
    assert_close(got, want, 1e-6)


@pytest.mark.usefixtures("_small")
def test_a_projection_one_row_one_instant_and_none():
    """In float32, both kernels: w_h a pair, T = 0 and 1, B = 0 and 1, resets alone or no flags."""
    cell = C.LSTM(H)
    smooth, (_, reset, _) = problem(cell, dtype=jnp.float32, size=(5, 1))
    params, x, *states = smooth
    w_h = np.asarray(params.w_h)
    pair = params._replace(w_h=(w_h[:, :3], w_h[:3]))
    nobody = jax.tree.map(lambda s: s[:0], states)

    def slopes(engine):
        return {
            "pair": slope(cell, engine, (pair, x, *states)),
            "reset": slope(cell, engine, (params, x[:1], *states), reset=reset[:1]),
            "T=0": slope(cell, engine, (params, x[:0], *states)),
            "B=0": slope(cell, engine, (params, x[:, :0], *nobody)),
        }

    want, *others = jax.jit(lambda: [slopes(e) for e in (Reference(), GPU, TPU)])()
    for got in others:
        assert_close(got, want, 1e-5)


@pytest.mark.parametrize("engine", [GPU, TPU, *ON_DEVICE], ids=str)
def test_bfloat16_keeps_its_word(engine):
    """Products take bfloat16 and h is it; all else is float32: within 1 % over 100 instants."""
    cell = C.LSTM(16)
    smooth, given = problem(cell, dtype=jnp.float32, size=(100, 16))

    def gradients(engine, dtype):
        def score(params, x, state, initial):
            made = outputs(cell, engine, params, x.astype(dtype), state, initial, *given)
            return sum(jnp.sum(a.astype(jnp.float32) ** 2) for a in jax.tree.leaves(made)), made

        return jax.grad(score, (0, 1, 2, 3), has_aux=True)(*smooth)

    with jax.default_matmul_precision("highest"):
        want = jax.jit(lambda: gradients(Reference(), jnp.float32))()
    slopes, (final, h) = jax.jit(lambda: gradients(engine, jnp.bfloat16))()
    assert h.dtype == jnp.bfloat16
    assert dtypes((slopes, final)) == {jnp.dtype(jnp.float32)}
    assert_close((slopes, (final, h)), want, 1e-2)


@pytest.mark.parametrize("engine", [GPU, TPU], ids=str)
def test_every_product_takes_bfloat16_and_sums_in_float32(engine):
    """Around the kernels and in them; of states every instant is kept in float32."""
    cell = C.LSTM(H)
    (params, x, state, initial), given = problem(cell, dtype=jnp.float32)
    w_h = np.asarray(params.w_h)
    pair = params._replace(w_h=(w_h[:, :3], w_h[:3]))

    def slopes(params, x):
        def score(params, x):
            final, h = outputs(cell, engine, params, x, state, initial, *given)
            return sum(jnp.sum(a.astype(jnp.float32)) for a in (h, *final))

        return jax.grad(score, (0, 1))(params, x)

    half, full = jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)
    for dtype in (half, full):
        for w in (params, pair):
            found = dots(jax.make_jaxpr(slopes)(w, x.astype(dtype)).jaxpr)
            assert set(found) == {(dtype, dtype, full)}
            assert len(found) >= 12  # four in either kernel, and around them
    kept = jax.eval_shape(lambda: lj.trace(cell, params, x.astype(half), engine=engine))
    assert kept.h.dtype == half
    assert dtypes((kept.final, kept.states, kept.gates)) == {full}


@pytest.mark.parametrize("cell", QUICK, ids=str)
@pytest.mark.parametrize("engine", ON_DEVICE, ids=str)
def test_on_a_device_it_has_the_gradients_of_reference(engine, cell):
    if cell == C.LayerNormLSTM(16) and engine.platform == "tpu":
        cell = C.LayerNormLSTM(128)
    smooth, given = problem(cell, dtype=jnp.float32)
    with jax.default_matmul_precision("highest"):
        got, want = jax.jit(
            lambda: [slope(cell, e, smooth, *given) for e in (engine, Reference())]
        )()
    assert_close(got, want, 1e-4)
