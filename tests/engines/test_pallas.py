"""The fused engine: the numbers of reference from both kernels, interpreted; what it refuses."""

import contextlib
import functools
import itertools
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.nn import tanh
from jax.sharding import AbstractDevice, AbstractMesh, PartitionSpec, use_abstract_mesh

import lstm_jax as lj
from experiments import long_memory
from experiments.common import runner
from lstm_jax.cells import sigmoid
from lstm_jax.engines import Pallas, Reference, Tiles, fused, mosaic, tiles
from lstm_jax.training import parallel
from tests.cells_under_test import CIFG, Peephole, Uneven, drawn_params
from tests.engines.test_engines import assert_close, mostly_slow
from tests.engines.test_precision import dots, dtypes

T, B, D, H = 5, 18, 2, 5  # two tiles of 16 rows; on a TPU three chunks, the last one filled up
GPU, TPU = Pallas("gpu", interpret=True), Pallas("tpu", interpret=True)
C = lj.cells


@dataclass(frozen=True)
class Own(lj.Cell):
    """A cell of a user's: a scalar in theta, a gate that reads the input only, a feedback."""

    gates = ("f", "g")
    states = ("h", "s")
    reads = {"g": "x"}

    def init_theta(self, key):
        return {"rate": jnp.float32(0.3)}

    def feedback(self, state):
        return state.h * (1 + state.s)

    def update(self, gates, state, theta):
        f, g = sigmoid(gates.f), tanh(gates.g)
        h = f * state.h + (1 - f) * g
        s = state.s + theta.rate * (h - state.s)
        return state._replace(h=h, s=s), gates._replace(f=f, g=g)


class Joined(Own):
    """One vector where two would do."""

    def feedback(self, state):
        return jnp.concatenate([state.h, state.s])


class Swapped(Own):
    """Units that see their neighbours."""

    def feedback(self, state):
        return state.h[::-1]


@dataclass(frozen=True)
class Jittered(C.GRU):
    """A GRU whose candidates are moved by noise; what scales it gets no gradient."""

    def init_theta(self, key):
        return {"scale": jnp.float32(0.2)}

    def draw(self, theta, key):
        step = jax.random.normal(key, (self.hidden,), theta.scale.dtype)
        return {"step": theta.scale * step}

    def update(self, gates, state, theta, draws=None):
        moved = gates if draws is None else gates._replace(nx=gates.nx + draws.step)
        return super().update(moved, state, theta)


class Tossed(Jittered):
    """One coin for all units."""

    def draw(self, theta, key):
        return {"step": jax.random.normal(key, (1,))}


FGR = C.PeepholeLSTM(H, gate_recurrence=True, clip=0.3)
SHARED, ZONED = C.MemoryBlocks(6, size=3), C.Zoneout(C.LSTM(H), {"h": 0.3, "c": 0.4})
QUICK = [C.LSTM(H), FGR, Own(H), C.LayerNormLSTM(16), SHARED, ZONED]
OTHERS = [
    C.GRU(H), C.SLSTM(H), C.MinLSTM(H), *(C.odyssey(variant, H) for variant in C.ODYSSEY),
    C.MemoryBlocks(H),
    C.MemoryBlocks(H, truncated=True, forget_gate=True), C.MemoryBlocks(H, recurrent=False),
    C.MemoryBlocks(H, forget_gate=True, gate_recurrence=False),
    C.RNN(H), C.RNN(H, activation="relu"), C.JANET(H), C.URLSTM(H), C.MinGRU(H),
    C.SLSTM(6, heads=2), C.SLSTM(H, forget_gate="exponential"), CIFG(H), Peephole(H),
    C.MemoryBlocks(4, size=2, truncated=True, forget_gate=True), C.MemoryBlocks(4, size=4),
    C.Zoneout(SHARED, {"c": 0.4}), C.Zoneout(FGR, {"f": 0.4}), Jittered(H),
]  # fmt: skip
REFUSED = {
    C.Zoneout(C.MemoryBlocks(4, size=2), {"i": 0.1}): "i is 2 wide, and not 4",
    C.LayerNormLSTM(H): "its units are dependent (reduce_sum): 5 cannot be padded to ",
    Joined(H): "a vector that it feeds back is 10 wide, and not 5",
    Swapped(H): "its equations use rev",
    Tossed(H): "step, which it draws, is of shape (1,), and not (5,)",
    Uneven(H): "f is 1 wide, and not 5",
    C.LSTM(1024): "its 4 recurrent matrices of 1024 x 1024 take 8192 KB in bfloat16, and ",
}


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(fused, "TILE", 16)
    monkeypatch.setattr(fused, "CHUNK", 2)


def problem(cell, seed=0, dtype=jnp.float64, size=(T, B)):
    """Returns what is differentiated, and a mask with gaps, resets, and noise of every kind."""
    rng = np.random.default_rng(seed)
    params = drawn_params(cell, D, rng, dtype)
    x = jnp.asarray(rng.normal(size=(*size, D)), dtype)
    state, initial = (
        cell.State(*(jnp.asarray(rng.random((size[1], cell.width(s))), dtype) for s in cell.states))
        for _ in range(2)
    )
    mask, reset = (jnp.asarray(rng.random(size) < rate) for rate in (0.7, 0.2))
    keep = jnp.asarray(rng.random((size[1], C.feedback_width(cell))), dtype)
    draws = jax.random.split(jax.random.key(seed), size[0]) if cell.noisy else None
    return (params, x, state, initial), (mask, reset, lj.Noise(draws, keep))


def outputs(cell, engine, params, x, state, initial, mask=None, reset=None, noise=None):
    """Returns the final state and h."""
    return lj.unroll(
        cell, params, x, state, initial=initial, mask=mask, reset=reset, noise=noise, engine=engine
    )


def slope(cell, engine, smooth, mask=None, reset=None, noise=None):
    """Returns a number that outputs and the final state enter, and all its gradients."""

    def score(params, x, state, initial):
        final, h = outputs(cell, engine, params, x, state, initial, mask, reset, noise)
        return sum(jnp.sum(jnp.sin((i + 1) * leaf)) for i, leaf in enumerate((h, *final)))

    return jax.value_and_grad(score, (0, 1, 2, 3))(*smooth)


@pytest.mark.usefixtures("x64", "_small")
@pytest.mark.parametrize(
    "cell", [*QUICK, *(pytest.param(cell, marks=pytest.mark.slow) for cell in OTHERS)], ids=str
)
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


def kernel_grids(jaxpr):
    """Returns the grid of every kernel in a program, whatever calls it."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            found.append(equation.params["grid_mapping"].grid)
        else:
            inner = (
                v for v in equation.params.values() if hasattr(v, "eqns") or hasattr(v, "jaxpr")
            )
            for value in inner:
                found += kernel_grids(getattr(value, "jaxpr", value))
    return found


def test_tiles_come_from_the_table_by_device_width_and_dtype(monkeypatch):
    """An engine's own tiles come first; what is not in the table has the defaults."""
    cell, size = C.RNN(H), (T, 40)

    def grids(engine, dtype):
        smooth, _ = problem(cell, dtype=dtype, size=size)
        return kernel_grids(jax.make_jaxpr(lambda: slope(cell, engine, smooth))().jaxpr)

    assert Tiles() == (16, 8, True) and grids(GPU, jnp.float32) == [(3, 1)] * 2
    found = {"float32": {"16": {"rows": 32, "warps": 4, "prefetch": False}}}
    monkeypatch.setattr(tiles, "table", lambda: {"cpu": found, "elsewhere": {}})
    assert tiles.measured("cpu", 16, jnp.float32) == (32, 4, False)
    assert grids(GPU, jnp.float32) == [(2, 1)] * 2
    own = Pallas("gpu", interpret=True, tiles=Tiles(rows=64))
    assert grids(own, jnp.float32) == [(1, 1)] * 2
    for other in (("elsewhere", 16, jnp.float32), ("cpu", 32, jnp.float32), ("cpu", 16, jnp.int8)):
        assert tiles.measured(*other) == Tiles()
    smooth, given = problem(cell, dtype=jnp.float32)
    got, want = jax.jit(lambda: [slope(cell, e, smooth, *given) for e in (GPU, Reference())])()
    assert_close(got, want, 1e-5)


def test_the_table_of_tiles_is_of_tiles():
    for device, by_dtype in tiles.table().items():
        for dtype, by_width in by_dtype.items():
            for width in by_width:
                rows, warps, _ = tiles.measured(device, int(width), dtype)
                assert rows >= 16 and rows & (rows - 1) == 0 and warps & (warps - 1) == 0


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


ON_DEVICE = [pytest.param(Pallas(p), marks=getattr(pytest.mark, p)) for p in ("gpu", "tpu")]


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


def gpu_elsewhere():
    """A GPU to lower for on a machine that has none."""
    device = AbstractDevice(device_kind="NVIDIA H100", num_cores=None, platform="gpu")
    return use_abstract_mesh(AbstractMesh((), (), abstract_device=device))


CHIPS = ["gpu", "tpu"]
LOWERED = [
    C.LSTM(128), C.SLSTM(20), C.LayerNormLSTM(128), Own(20), C.odyssey("FGR", 20),
    C.MemoryBlocks(20, size=2), C.Zoneout(C.LSTM(20), {"h": 0.1, "c": 0.1}),
]  # fmt: skip


@pytest.mark.parametrize(
    "cell, platform",
    mostly_slow(
        itertools.product(LOWERED, CHIPS),
        [(LOWERED[0], "tpu"), *((cell, CHIPS[n % 2]) for n, cell in enumerate(LOWERED))],
    ),
    ids=str,
)
def test_both_kernels_are_lowered_for_their_chips(cell, platform):
    """What a compiler on the machine makes of them is for a machine that has one."""
    params = jax.eval_shape(lambda: lj.init(cell, jax.random.key(0), D))
    x = jax.ShapeDtypeStruct((T, B, D), jnp.bfloat16)
    flags = jax.ShapeDtypeStruct((T, B), bool)
    noise = lj.Noise(jax.random.split(jax.random.key(0), T)) if cell.noisy else None

    def gradient(params, x, mask, reset):
        def score(params, x):
            _, h = lj.unroll(
                cell, params, x, mask=mask, reset=reset, noise=noise, engine=Pallas(platform)
            )
            return jnp.sum(h.astype(jnp.float32) ** 2)

        return jax.grad(score, (0, 1))(params, x)

    call = {"gpu": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}[platform]
    lowered = export.export(
        jax.jit(gradient), platforms=[{"gpu": "cuda", "tpu": "tpu"}[platform]],
        disabled_checks=[export.DisabledSafetyCheck.custom_call(call)],
    )  # fmt: skip
    with gpu_elsewhere() if platform == "gpu" else contextlib.nullcontext():
        told = lowered(params, x, flags, flags)
    assert told.mlir_module().count(f"@{call}") == 2


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
@pytest.mark.parametrize("cell", REFUSED, ids=str)
def test_what_it_cannot_hold_is_refused_with_the_reason(cell, platform):
    wanted = f"engine='pallas' cannot run {cell}: {REFUSED[cell]}"
    with pytest.raises(ValueError, match=f"^{re.escape(wanted)}.*; 'reference' and 'scan'.* can$"):
        lj.engines.resolve("pallas", cell, platform)


def test_without_triton_it_is_refused_on_a_gpu_by_name(monkeypatch):
    monkeypatch.setattr(fused, "triton", None)
    monkeypatch.setattr(mosaic, "OLDEST", (9,))
    message = (
        f"needs the Triton backend of Pallas, which jax {jax.__version__} lacks; 'reference' and"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        lj.engines.resolve("pallas", C.LSTM(H), "gpu")
    assert lj.engines.serves(C.LSTM(H), "gpu") == ("reference", "scan")
    assert lj.engines.serves(C.LSTM(H), "tpu") == ("reference", "scan", "pallas")


def test_where_it_fits_is_a_rule_of_width_blocks_and_dtype(monkeypatch):
    monkeypatch.setattr(mosaic, "OLDEST", (9,))
    gpu, tpu = Pallas("gpu"), Pallas("tpu")
    half, full = jnp.bfloat16, jnp.float32
    assert gpu.fits(C.LSTM(128), half) and not gpu.fits(C.LSTM(129), half)
    assert gpu.fits(C.LSTM(32), full) and not gpu.fits(C.LSTM(33), full)
    assert gpu.fits(C.RNN(256), half) and gpu.fits(C.GRU(64), full)
    blocks, gates = C.MemoryBlocks, functools.partial(C.odyssey, "FGR")  # 9 matrices, and 16
    assert gpu.fits(blocks(64), half) and not gpu.fits(blocks(65), half)
    assert gpu.fits(gates(64), half) and not gpu.fits(gates(17), full)
    assert tpu.fits(gates(256), full) and not tpu.fits(gates(257), full)
    assert tpu.fits(C.LSTM(512), full) and not tpu.fits(C.LSTM(513), full)
    assert lj.engines.resolve("pallas", C.LSTM(128), "gpu") == gpu
    cell = C.LSTM(64)
    params, x = lj.init(cell, jax.random.key(0), D), jnp.ones((T, B, D))
    able = "; 'reference' and 'scan' can"
    message = (
        f"engine={GPU} cannot run LSTM(hidden=64): its 4 recurrent matrices of 64 x 64 take 64 KB "
        f"in float32, and 48 KB fit on chip{able}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        lj.unroll(cell, params, x, engine=GPU)
    message = f"cannot run LSTM(hidden=64): it takes x of float32 or bfloat16, not of float16{able}"
    with pytest.raises(ValueError, match=f"{re.escape(message)}$"):
        lj.unroll(cell, params, x.astype(jnp.float16), engine=GPU)


def test_it_is_for_a_chip_and_for_those_who_name_it(monkeypatch):
    monkeypatch.setattr(mosaic, "OLDEST", (9,))
    cell = C.LSTM(H)
    message = (
        r"^engine='pallas' cannot run LSTM\(hidden=5\): it is a kernel for a gpu or a tpu, not for "
        r"a cpu; 'reference' and 'scan' can$"
    )
    with pytest.raises(ValueError, match=message):
        lj.engines.resolve("pallas", cell, "cpu")
    assert lj.engines.serves(cell, "cpu") == ("reference", "scan")
    for platform in ("gpu", "tpu"):
        assert lj.engines.serves(cell, platform) == ("reference", "scan", "pallas")
        assert lj.engines.resolve("auto", cell, platform) == lj.engines.resolve(
            "scan", cell, platform
        )


@pytest.mark.parametrize(
    ("platform", "told"),
    [
        ("cpu", "cannot run RNN(hidden=64, activation='tanh'): it is a kernel for a gpu or a tpu"),
        ("gpu", "cannot run LSTM(hidden=64): its 4 recurrent matrices of 64 x 64 take 64 KB in f"),
    ],
)
def test_an_experiment_says_so_in_one_line(platform, told, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.chdir(tmp_path)
    arguments = ["long_memory", "--engine=pallas", "--hidden=64"]
    assert runner.main(long_memory.EXPERIMENT, arguments) == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.count("\n") == 1
    assert printed.err.startswith(f"long_memory: --engine=pallas: engine='pallas' {told}")
    assert not list(tmp_path.iterdir())
