"""The kernels for Hopper GPUs: the numbers of reference, simulated; lowering; what is refused."""

import functools
import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

import lstm_jax as lj
from lstm_jax.engines import Mosaic, Reference, mosaic
from lstm_jax.engines.lowerable import lowerable
from lstm_jax.engines.mosaic import OLDEST
from tests.engines.kernels import OTHERS, QUICK, Jittered, Own, problem, slope
from tests.engines.test_engines import assert_close
from tests.products import mostly_slow

C = lj.cells
H = 40  # two warpgroups of 32 units
SIZE = (3, 70)  # two tiles of 64 rows
HALF, FULL = jnp.bfloat16, jnp.float32
simulated = functools.partial(Mosaic, "gpu", interpret=True)

with_mosaic = pytest.mark.skipif(
    jax.__version_info__ < OLDEST, reason="the kernels need jax 0.12 or later"
)


# Numbers. -----------------------------------------------------------------------------------------


WIDE = [
    C.LSTM(H), C.GRU(H), Own(H), C.PeepholeLSTM(H, gate_recurrence=True, clip=0.3), C.SLSTM(H),
    C.MinLSTM(H), C.RNN(H), C.LayerNormLSTM(32), C.LayerNormLSTM(64), C.MemoryBlocks(12, size=3),
    C.Zoneout(C.LSTM(H), {"h": 0.3, "c": 0.4}), Jittered(H),
]  # fmt: skip
NARROW = [(cell, None) for cell in (*QUICK, *OTHERS)]


@with_mosaic
@pytest.mark.parametrize(
    "cell, cluster",
    mostly_slow(
        [*itertools.product(WIDE, (None, True)), *NARROW],
        [(WIDE[0], None), (WIDE[1], True), (WIDE[2], None)],
    ),
    ids=str,
)
def test_it_has_the_gradients_of_reference(cell, cluster):
    """With masks, resets, carried and initial states, and noise; no access to memory races."""
    smooth, given = problem(cell, dtype=FULL, size=SIZE)
    got, want = (
        jax.jit(functools.partial(slope, cell, engine))(smooth, *given)
        for engine in (simulated(cluster=cluster), Reference())
    )
    assert_close(got, want, 1e-5)


@with_mosaic
@pytest.mark.slow
@pytest.mark.parametrize("cluster", [None, True])
def test_trials_may_be_mapped(cluster):
    cell, engine = C.LSTM(H), simulated(cluster=cluster)
    (params, *shared), given = problem(cell, dtype=FULL, size=SIZE)
    trials = jax.tree.map(lambda a: np.stack([a, 0.7 * a, -a]), jax.device_get(params))

    def slopes(engine):
        return jax.vmap(lambda p: slope(cell, engine, (p, *shared), *given))(trials)

    got, want = (jax.jit(lambda e=e: slopes(e))() for e in (engine, Reference()))
    assert_close(got, want, 1e-5)


@with_mosaic
@pytest.mark.slow
@pytest.mark.parametrize("cluster", [None, True])
def test_bfloat16_has_sums_and_states_of_float32(cluster):
    cell = C.LSTM(H)
    (params, x, *states), _ = problem(cell, dtype=FULL, size=(30, 16))

    def slopes(engine, dtype):
        def score(params, x):
            final, h = lj.unroll(cell, params, x.astype(dtype), *states[:1], engine=engine)
            return sum(jnp.sum(a.astype(FULL) ** 2) for a in (h, *final)), final

        return jax.jit(lambda: jax.grad(score, (0, 1), has_aux=True)(params, x))()

    got = slopes(simulated(cluster=cluster), HALF)
    assert_close(got, slopes(Reference(), FULL), 1e-2)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(FULL)}


# Lowering. ----------------------------------------------------------------------------------------

LOWERED = [
    *itertools.product([*WIDE, C.LayerNormLSTM(16), C.SLSTM(40, heads=2)], (HALF, FULL)),
    (C.LSTM(128), HALF), (C.LSTM(256), HALF), (C.LSTM(512), HALF), (C.GRU(512), HALF),
    (C.LSTM(128), FULL), (C.LSTM(320), FULL), (C.RNN(512), FULL),
]  # fmt: skip


@with_mosaic
@pytest.mark.parametrize(
    "cell, dtype, trials",
    mostly_slow(
        [(*pair, trials) for pair in LOWERED for trials in (None, 3)],
        [(C.LSTM(H), FULL, None), (C.LSTM(256), HALF, None)],
    ),
    ids=str,
)
def test_both_kernels_are_lowered_and_fit_into_shared_memory(cell, dtype, trials):
    """The shared memory of a block is counted by the lowering too, which fails above 227 KB."""
    params = jax.eval_shape(lambda: lj.init(cell, jax.random.key(0), 2))
    x = jax.ShapeDtypeStruct((5, 70, 2), dtype)
    flags = jax.ShapeDtypeStruct(x.shape[:2], bool)
    noise = lj.Noise(jax.random.split(jax.random.key(0), 5)) if cell.noisy else None

    def gradient(params, x, mask, reset):
        def score(params, x):
            engine = Mosaic("gpu")
            h = lj.unroll(cell, params, x, mask=mask, reset=reset, noise=noise, engine=engine)[1]
            return jnp.sum(h.astype(FULL) ** 2)

        return jax.grad(score, (0, 1))(params, x)

    if trials:
        params = jax.tree.map(lambda p: jax.ShapeDtypeStruct((trials, *p.shape), p.dtype), params)
        gradient = jax.vmap(gradient, (0, None, None, None))
    allowed = [export.DisabledSafetyCheck.custom_call("mosaic_gpu_v2")]
    lowered = export.export(jax.jit(gradient), platforms=["cuda"], disabled_checks=allowed)
    assert lowered(params, x, flags, flags).mlir_module().count("@mosaic_gpu_v2") == 2


def row_sums(x):
    """A norm of rows, by every way to a column: a sum, a mean, a maximum with kept axes."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.sum(centred**2, -1) + 1)[:, None] * x.max(-1, keepdims=True)


POINTWISE = [
    jnp.log1p, jnp.expm1, lambda x: x**-3, lambda x: lax.integer_pow(x, 4), jnp.isfinite,
    lambda x: jnp.sin(x) * jnp.cos(x), jax.nn.softplus,
]  # fmt: skip


@pytest.mark.parametrize(
    "function, tolerance", [*((f, 1e-12) for f in POINTWISE), (row_sums, 1e-4)]
)
def test_replaced_primitives_have_equal_values_and_gradients(function, tolerance):
    x = jnp.asarray([[1e-6, -1e-3, 0.5, 3.0, 20.0], [-0.5, -0.9, 1e-9, -1e-7, 2.0]])

    def both(x, cotangent):
        value, back = jax.vjp(lambda x: function(x).astype(FULL), x)
        return value, back(cotangent)[0]

    for got, want in zip(lowerable(both)(x, x), both(x, x), strict=True):
        np.testing.assert_allclose(got, want, 1e-5, tolerance)
    made = {e.primitive.name for e in jax.make_jaxpr(lowerable(both))(x, x).eqns}
    assert not made & {"add_any", "expm1", "integer_pow", "is_finite", "log1p", "reshape"}


# Refusals. ----------------------------------------------------------------------------------------


@pytest.fixture
def _any_jax(monkeypatch):
    monkeypatch.setattr(mosaic, "OLDEST", (0, 0))


class Powered(Own):
    """Raises to a power that is an array."""

    def update(self, gates, state, theta):
        state, gates = super().update(gates, state, theta)
        return state._replace(s=jnp.abs(state.s) ** theta.rate), gates


@pytest.mark.usefixtures("_any_jax")
@pytest.mark.parametrize(
    "cell, dtype, cluster, reason",
    [
        (C.LSTM(8), jnp.float16, None, "it takes x of float32 or bfloat16, not of float16"),
        (C.LSTM(321), FULL, None, "it takes 240 KB of shared memory a block in float32, of 227 KB"),
        (C.LSTM(513), HALF, None, "H = 513 takes 17 thread blocks, and a cluster 16"),
        (C.LSTM(129), HALF, False, "H = 129 takes 5 warpgroups, and a block has 4"),
        (C.LayerNormLSTM(128), HALF, None, "its units are dependent, and H = 128 is not 16, 32 or"),
        (Powered(8), HALF, None, "its equations use pow, which Mosaic GPU does not have"),
    ],
    ids=str,
)
def test_what_it_cannot_hold_is_refused_with_the_reason(cell, dtype, cluster, reason):
    engine = Mosaic("gpu", cluster=cluster)
    with pytest.raises(ValueError, match=re.escape(f" cannot run {cell}: {reason}")):
        lj.engines.resolve(engine, cell, "gpu", dtype)


def test_it_is_for_a_new_jax_and_a_gpu(monkeypatch):
    cell = C.LSTM(8)
    for platform in ("cpu", "tpu"):
        reason = Mosaic(platform).refuses(cell)
        assert reason == f"it is a kernel for a gpu, not for a {platform}"
    monkeypatch.setattr(mosaic, "OLDEST", (9, 1))
    reason = Mosaic("gpu").refuses(cell)
    assert reason == f"it needs jax 9.1 or later, not {jax.__version__}"


@pytest.mark.usefixtures("_any_jax")
def test_full_products_of_float32_are_refused():
    with jax.default_matmul_precision("float32"):
        reason = "its products of float32 are TF32's, and float32 precision is asked for"
        assert Mosaic("gpu").refuses(C.LSTM(8), FULL) == reason
        assert Mosaic("gpu").refuses(C.LSTM(8), HALF) is None
        assert simulated().refuses(C.LSTM(8), FULL) is None
    with jax.default_matmul_precision("tensorfloat32"):
        assert Mosaic("gpu").refuses(C.LSTM(8), FULL) is None


@pytest.mark.usefixtures("_any_jax")
def test_it_is_for_hopper_gpus(monkeypatch):
    class Device:
        platform, compute_capability = "gpu", "10.0"

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    reason = "it needs a GPU of compute capability 9.0, not 10.0"
    assert Mosaic("gpu").refuses(C.LSTM(8)) == reason
    Device.compute_capability = "9.0"
    assert Mosaic("gpu").refuses(C.LSTM(8)) is None


def test_the_guide_has_the_shared_memory_that_the_engine_counts():
    """Its table has rows | cell | dtype | blocks | warpgroups | KB |."""
    guide = Path(__file__).parents[2] / "docs" / "accelerators.md"
    pattern = r"^\| `(\w+\(\d+\))` \| (\w+) \| (\d+) \| (\d+) \| (\d+) \|$"
    rows = re.findall(pattern, guide.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 10
    for made, dtype, blocks, groups, size in rows:
        cell = eval(made, {**vars(C)})
        plan = Mosaic("gpu").plan(cell, jnp.dtype(dtype))
        assert (plan.blocks, plan.groups) == (int(blocks), int(groups)), made
        assert Mosaic("gpu").shared_memory(cell, jnp.dtype(dtype)) == int(size) * 1024, made
