"""The loop under JAX's own tools: export, sharding, leak checks, checkpoints of trees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lstm_jax as lj
from lstm_jax.engines import Scan
from tests.cells_under_test import drawn_params
from tests.products import mostly_slow

T, B, D = 5, 4, 2
LSTM, LINEAR = lj.cells.LSTM(3), lj.cells.MinGRU(3)
X = np.random.default_rng(0).normal(size=(T, B, D)).astype(np.float32)
RESET = np.arange(T * B).reshape(T, B) % 7 == 0
CASES = [
    (LSTM, "reference"), (LSTM, Scan("joined")), (LSTM, Scan("hoisted", "saved", chunk=2)),
    (LSTM, "scan_sqrt"), (LINEAR, "scan"), (LINEAR, "associative"),
]  # fmt: skip


def loss(cell, engine, params, x, reset=None):
    _, h = lj.unroll(cell, params, x, mask=reset, reset=reset, engine=engine)
    return jnp.sum(h.astype(jnp.float32) ** 2)


def slope(cell, engine):
    return jax.grad(functools.partial(loss, cell, engine), (0, 1))


def params_of(cell):
    return drawn_params(cell, D, np.random.default_rng(0))


def assert_close(got, want, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, tolerance, tolerance), got, want)


DTYPES = ["float32", "bfloat16"]


@pytest.mark.parametrize(
    "cell, engine, dtype",
    mostly_slow(
        [(*case, dtype) for case in CASES for dtype in DTYPES],
        [(*CASES[n], dtype) for n, dtype in ((0, "float32"), (2, "bfloat16"), (5, "bfloat16"))],
    ),
    ids=str,
)
def test_a_batch_sharded_over_devices_has_the_gradients_of_one_device(cell, engine, dtype):
    """By `shard_map` with its checks, and on an explicit mesh with the batch's axis in the type."""
    params, x = params_of(cell), X.astype(dtype)
    want = jax.jit(slope(cell, engine))(params, x, RESET)
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    rows = P(None, "b")

    mesh = jax.make_mesh((2,), ("b",), axis_types=(AxisType.Auto,))
    inside = jax.shard_map(
        slope(cell, engine), mesh=mesh, in_specs=(P(), rows, rows), out_specs=(P(), rows)
    )
    assert_close(jax.jit(inside)(params, x, RESET), want, tolerance)

    explicit = jax.make_mesh((2,), ("b",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(explicit):
        place = functools.partial(jax.device_put, device=NamedSharding(explicit, rows))
        whole = jax.device_put(params, NamedSharding(explicit, P()))
        assert_close(jax.jit(slope(cell, engine))(whole, place(x), place(RESET)), want, tolerance)


@pytest.mark.parametrize("cell, engine", mostly_slow(CASES[:4], CASES[2:3]), ids=str)
def test_an_export_serves_any_length_and_batch(cell, engine):
    t, b = export.symbolic_shape("t, b")
    params = params_of(cell)
    x, flags = (jax.ShapeDtypeStruct(s, d) for s, d in (((t, b, D), "float32"), ((t, b), bool)))
    exported = export.export(jax.jit(slope(cell, engine)))(params, x, flags)
    again = export.deserialize(exported.serialize())
    for T_, B_ in ((5, 4), (1, 1)):
        given = params, X[:T_, :B_], RESET[:T_, :B_]
        assert_close(again.call(*given), jax.jit(slope(cell, engine))(*given))


def test_the_associative_engine_refuses_a_symbolic_length():
    t, b = export.symbolic_shape("t, b")
    x = jax.ShapeDtypeStruct((t, b, D), "float32")
    with pytest.raises(ValueError, match="engine='associative' needs T as a number, got t: use"):
        export.export(
            jax.jit(lambda x: lj.unroll(LINEAR, params_of(LINEAR), x, engine="associative"))
        )(x)


def test_a_streaming_step_with_its_state_is_exported():
    spec = lj.nn.SequenceSpec(lj.cells.PeepholeLSTM(3), D, 1, depth=2)
    params = jax.jit(spec.init)(jax.random.key(0))
    state = spec.initial_state(params, B)
    exported = export.export(jax.jit(spec.stream))(params, state, X[0])
    again = export.deserialize(exported.serialize()).call(params, state, X[0])
    assert jax.tree.structure(again) == jax.tree.structure((state, X))
    assert_close(again, jax.jit(spec.stream)(params, state, X[0]))


@pytest.mark.parametrize("shape", [(T, 0), (0, B), (0, 0)])
def test_the_gradient_of_nothing_is_zero(shape):
    for cell, engine in CASES:
        grads = jax.jit(slope(cell, engine))(params_of(cell), jnp.zeros((*shape, D)))
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("cell, engine", mostly_slow(CASES, [CASES[3], CASES[5]]), ids=str)
def test_no_traced_value_outlives_its_trace(cell, engine):
    params = params_of(cell)  # draws are compiled, not checked
    with jax.checking_leaks():
        jax.jit(functools.partial(loss, cell, engine)).trace(params, X)
        jax.jit(slope(cell, engine)).trace(params, X, RESET)


def test_every_array_of_every_cell_holds_something():
    """Checkpoint libraries refuse arrays of size zero, exports dictionaries of numbers."""
    kinds = {kind for kind in vars(lj.cells).values() if isinstance(kind, type)}
    for kind in kinds - {lj.Cell, lj.LinearCell}:
        cell = kind(LSTM, {"h": 0.1}) if kind is lj.cells.Zoneout else kind(4)
        spec = lj.nn.SequenceSpec(cell, D, 1, depth=2)
        params = jax.eval_shape(spec.init, jax.random.key(0))
        for path, leaf in jax.tree.leaves_with_path(params):
            assert leaf.size, (cell, path)
            keys = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
            assert all(isinstance(key, str) for key in keys), path


def test_an_optimiser_of_parameters_leaves_rates_of_zoneout_alone():
    layer = lj.nn.Recurrent(lj.cells.Zoneout(LSTM, {"h": 0.1}), D, rngs=nnx.Rngs(0))
    assert set(nnx.to_flat_state(nnx.state(layer, nnx.Param)).paths) == {("w_x",), ("w_h",), ("b",)}


def test_a_length_that_chunks_do_not_divide_compiles_no_second_loop():
    """A loop of its own for the remainder would double what a training step takes to compile."""

    def loops(length):
        x = jax.ShapeDtypeStruct((length, B, D), jnp.float32)
        lowered = jax.jit(slope(LSTM, Scan(chunk=16))).lower(params_of(LSTM), x)
        return lowered.as_text().count("stablehlo.while")

    assert loops(101) == loops(100)
