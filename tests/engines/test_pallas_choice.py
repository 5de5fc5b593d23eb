"""The fused engine: what it refuses, where it fits, and that it is lowered for its chips."""

import contextlib
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import pytest
from jax import export
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

import lstm_jax as lj
from experiments import long_memory
from experiments.common import runner
from lstm_jax.engines import Pallas, Reference, Tiles, fused, mosaic, tiles
from tests.cells_under_test import Uneven
from tests.engines.kernels import (
    GPU,
    B,
    C,
    D,
    H,
    Jittered,
    Own,
    T,
    kernel_grids,
    problem,
    slope,
)
from tests.engines.test_engines import assert_close
from tests.products import mostly_slow


class Joined(Own):
    """One vector where two would do."""

    def feedback(self, state):
        return jnp.concatenate([state.h, state.s])


class Swapped(Own):
    """Units that see their neighbours."""

    def feedback(self, state):
        return state.h[::-1]


class Tossed(Jittered):
    """One coin for all units."""

    def draw(self, theta, key):
        return {"step": jax.random.normal(key, (1,))}


REFUSED = {
    C.Zoneout(C.MemoryBlocks(4, size=2), {"i": 0.1}): "i is 2 wide, and not 4",
    C.LayerNormLSTM(H): "its units are dependent (reduce_sum): 5 cannot be padded to ",
    Joined(H): "a vector that it feeds back is 10 wide, and not 5",
    Swapped(H): "its equations use rev",
    Tossed(H): "step, which it draws, is of shape (1,), and not (5,)",
    Uneven(H): "f is 1 wide, and not 5",
    C.LSTM(1024): "its 4 recurrent matrices of 1024 x 1024 take 8192 KB in bfloat16, and ",
}


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
        [(LOWERED[0], "tpu"), (LOWERED[0], "gpu"), (LOWERED[2], "gpu"), (LOWERED[3], "tpu")],
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
    half, full = jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)

    def fits(engine, cell, dtype):
        return engine._too_large(cell.uniform(), dtype) is None

    assert fits(gpu, C.LSTM(128), half) and not fits(gpu, C.LSTM(129), half)
    assert fits(gpu, C.LSTM(32), full) and not fits(gpu, C.LSTM(33), full)
    assert fits(gpu, C.RNN(256), half) and fits(gpu, C.GRU(64), full)
    blocks, gates = C.MemoryBlocks, functools.partial(C.odyssey, "FGR")  # 9 matrices, and 16
    assert fits(gpu, blocks(64), half) and not fits(gpu, blocks(65), half)
    assert fits(gpu, gates(64), half) and not fits(gpu, gates(17), full)
    assert fits(tpu, gates(256), full) and not fits(tpu, gates(257), full)
    assert fits(tpu, C.LSTM(512), full) and not fits(tpu, C.LSTM(513), full)
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
