"""Mixed precision: products of 16 bits, everything that adds up in 32."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lstm_jax as lj
from lstm_jax import cells, interop, tasks
from lstm_jax.engines import Associative, Pallas, Reference, Scan
from lstm_jax.nn import Bidirectional, Rates, Recurrent, SequenceSpec
from tests.engines.test_engines import assert_close, problem

BF16, F32 = jnp.dtype("bfloat16"), jnp.dtype("float32")
ENGINES = [
    Reference(), Scan("joined", chunk=4), Scan("hoisted", "saved", chunk=4, unroll=2),
    Scan("joined", "sqrt"),
]  # fmt: skip
KERNEL = Pallas("gpu", interpret=True)
T, B, D, H, V = 7, 4, 3, 5, 2


def dtypes(tree: Any) -> set:
    return {leaf.dtype for leaf in jax.tree.leaves(tree)}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def results(cell: lj.Cell, engine: Any, dtype: Any, params, x, state, mask, reset):
    """Outputs, final state, and gradients in the parameters, the input and the state."""

    def score(params, x, state):
        given: dict[str, Any] = dict(mask=mask, reset=reset, engine=engine)
        final, h = lj.unroll(cell, params, x.astype(dtype), state, **given)
        wide = jax.tree.map(lambda a: a.astype(params.b.dtype), (h, final))
        return sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves(wide)), (h, final)

    gradients, made = jax.grad(score, (0, 1, 2), has_aux=True)(params, x, state)
    return made, gradients


def test_every_engine_rounds_alike_and_is_near_the_truth(x64) -> None:
    cell = cells.PeepholeLSTM(8)
    params, x, state, _, mask, reset = problem(cell)
    exact = results(cell, Reference(), jnp.float64, params, x, state, mask, reset)
    single = jax.tree.map(lambda a: np.asarray(a, F32), (params, x, state))
    made = [results(cell, engine, BF16, *single, mask, reset) for engine in ENGINES]
    for (h, final), gradients in made:
        assert h.dtype == BF16
        assert dtypes((final, gradients)) == {F32}
    precise = [jax.tree.map(lambda a: np.asarray(a, np.float64), one) for one in made]
    for one in precise:
        assert_close(one, exact, 2e-2)
        assert_close(one, precise[0], 2e-3)


KERNELS = [KERNEL, dataclasses.replace(KERNEL, platform="tpu")]


@pytest.mark.parametrize(
    "engine", [Scan(), *(pytest.param(k, marks=pytest.mark.slow) for k in KERNELS)], ids=str
)
def test_errors_do_not_grow_over_two_thousand_steps(engine, x64) -> None:
    cell = cells.LSTM(16)
    params = lj.init(cell, jax.random.key(0), 8)
    x = jax.random.normal(jax.random.key(1), (2048, 4, 8), F32)
    wide, narrow = (jax.tree.map(lambda a, d=d: a.astype(d), params) for d in (jnp.float64, F32))

    @functools.partial(jax.jit, static_argnums=(0, 2))
    def made(engine, params, dtype):
        def score(params):
            h = lj.unroll(cell, params, x.astype(dtype), engine=engine)[1].astype(params.b.dtype)
            return jnp.sum(jnp.sin(h)), h

        return jax.grad(score, has_aux=True)(params)

    truth = made(Reference(), wide, jnp.float64)
    for dtype, bound in ((F32, 1e-5), (BF16, 1e-2)):
        found = made(engine, narrow, dtype)
        for pair in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
            one, true = (np.asarray(a, np.float64) for a in pair)
            assert np.linalg.norm(one - true) < bound * np.linalg.norm(true)


def dots(jaxpr: Any) -> list[tuple]:
    """The dtypes of operands and result of every product, in whatever the program calls."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(tuple(v.aval.dtype for v in (*equation.invars, *equation.outvars)))
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                found += dots(inner) if hasattr(inner, "eqns") else []
    return found


@pytest.mark.parametrize(
    "dtype, projection", [(BF16, None), (jnp.dtype("float16"), 3), (F32, 3)], ids=str
)
@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_products_take_16_bits_and_sum_in_32(engine, projection, dtype) -> None:
    """Forward and backward, as traced and as lowered; in float32 alone nothing changes."""
    cell = cells.LSTM(H)
    params = jax.eval_shape(lambda: lj.init(cell, jax.random.key(0), D, projection=projection))

    def gradients(params, x):
        return jax.grad(lambda *a: jnp.sum(lj.unroll(cell, *a, engine=engine)[1]), (0, 1))(
            params, x
        )

    traced = jax.jit(gradients).trace(params, jax.ShapeDtypeStruct((T, B, D), dtype))
    found = dots(traced.jaxpr)
    assert len(found) >= 5  # forward, and back to state, input and both weights
    assert set(found) == {(dtype, dtype, F32)}
    name = {"bfloat16": "bf16", "float16": "f16"}.get(dtype.name, "f32")
    lines = [line for line in traced.lower().as_text().splitlines() if "dot_general" in line]
    assert lines
    for line in lines:
        operands, product = line.rsplit(" : ", 1)[1].split(" -> ")
        assert operands.count(f"x{name}>") == 2
        assert product.endswith("xf32>")


@pytest.mark.parametrize(
    "engine, stored",
    [(e, (BF16, F32)[n % 2]) for n, e in enumerate([*ENGINES, Associative(), KERNEL, Reference()])],
    ids=str,
)
def test_sums_over_time_do_not_stall(engine, stored) -> None:
    """h_t = h_{t-1} + w x_t from 1, x = 2^-9: in 16 bits 1 + 2^-9 is 1, and so is every sum."""

    @dataclasses.dataclass(frozen=True)
    class Sum(lj.LinearCell):
        gates = ("g",)

        def linear(self, gates, theta):
            return jnp.ones_like(gates.g), gates.g, gates

    cell, steps = Sum(1), 1024
    shapes = jax.eval_shape(lambda: lj.init(cell, jax.random.key(0), 1))
    params = jax.tree.map(lambda a: jnp.asarray(np.ones(a.shape), stored), shapes)
    params = params._replace(b=jnp.asarray(np.zeros(1), stored))
    x = jnp.asarray(np.full((steps, 1, 1), 2.0**-9), BF16)

    def total(params):
        final, _ = lj.unroll(cell, params, x, cell.State(jnp.ones((1, 1))), engine=engine)
        return final.h[0, 0]

    value, gradients = jax.jit(jax.value_and_grad(total))(params)
    assert value == 3.0
    assert gradients.w_x == 2.0 and gradients.b == steps
    assert dtypes(gradients) == {stored}


def test_a_stream_in_mixed_precision_is_the_whole_sequence() -> None:
    cell = cells.LSTM(H)
    params, x, *_ = problem(cell, dtype=F32)
    x, state = jnp.asarray(np.asarray(x), BF16), lj.initial_state(cell, len(x[0]))
    final, h = jax.jit(lambda x: lj.unroll(cell, params, x))(x)
    stepped, outputs = jax.jit(
        lambda state, x: jax.lax.scan(lambda s, x_t: lj.step(cell, params, s, x_t), state, x)
    )(state, x)
    assert outputs.dtype == BF16
    assert dtypes(stepped) == {F32}
    assert_close(stepped, final, 1e-5)
    np.testing.assert_array_equal(np.asarray(outputs, F32), np.asarray(h, F32))


# Layers and models. -------------------------------------------------------------------------------

EVERYTHING: list[dict[str, Any]] = [
    {},
    dict(bidirectional=True, projection=3),
    dict(front="dense", front_width=4, depth=2, learn_initial=True, readout="every"),
    dict(front="embed", front_width=4, cell=cells.Zoneout(cells.LSTM(H), {"h": 0.1})),
]


def spec_of(**changes: Any) -> SequenceSpec:
    return SequenceSpec(**({"cell": cells.LSTM(H), "input_size": D, "output_size": V} | changes))


@pytest.mark.parametrize("changes", EVERYTHING, ids=str)
@pytest.mark.parametrize("param_dtype", [None, "bfloat16"])
def test_a_model_computes_in_one_dtype_and_learns_in_another(changes, param_dtype) -> None:
    """Under strict promotion, with masks, resets and every noise: nothing is promoted unasked."""
    spec = spec_of(dtype="bfloat16", param_dtype=param_dtype, **changes)
    stored = jnp.dtype(param_dtype or "float32")
    rates = set(Rates._fields) - ({"input_noise"} if spec.front == "embed" else set())
    trial = Rates(**{name: jnp.float32(0.5) for name in rates - {"zoneout"}})
    x = jnp.zeros((T, B), int) if spec.front == "embed" else jnp.zeros((T, B, D))
    flags, key = jnp.ones((T, B), bool), jax.random.key(0)

    def gradients():
        params = spec.init(key)

        def score(params):
            given: dict[str, Any] = dict(mask=flags, reset=flags, rates=trial, key=key)
            state, y = spec.unroll(params, x, **given)
            return jnp.sum(y.astype(F32)), (state, y)

        return params, jax.grad(score, has_aux=True)(params)

    params, (slopes, (state, y)) = jax.eval_shape(gradients)
    assert y.dtype == BF16
    assert dtypes(state) == {F32}
    assert dtypes(params) == dtypes(slopes) == {stored}
    if not spec.bidirectional:
        assert dtypes(jax.eval_shape(lambda p: spec.initial_state(p, B), params)) == {F32}


def test_float64_parameters_go_with_float64() -> None:
    assert spec_of(dtype="float64").stored_dtype == jnp.float64
    assert spec_of(dtype="float64", param_dtype="float32").stored_dtype == F32
    assert spec_of(dtype="bfloat16").stored_dtype == F32
    assert spec_of(dtype="bfloat16") != spec_of(dtype="bfloat16", param_dtype="bfloat16")
    with pytest.raises(TypeError, match="param_dtype must be a floating one, got int32"):
        spec_of(param_dtype="int32")


@pytest.mark.parametrize("kind", [Recurrent, Bidirectional])
def test_layers_take_floats_of_any_width_and_put_out_their_own(kind) -> None:
    layer = kind(cells.LSTM(H), D, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    for given in (BF16, F32):
        state, h = jax.eval_shape(lambda x: layer(x), jax.ShapeDtypeStruct((T, B, D), given))
        assert h.dtype == BF16
        assert dtypes(state) == {F32}
    assert dtypes(nnx.state(layer, nnx.Param)) == {F32}
    with pytest.raises(TypeError, match="x must be floats, got int32"):
        layer(jnp.zeros((T, B, D), int))


def test_training_keeps_parameters_and_moments_in_float32(standard_promotion) -> None:
    task = tasks.Recall(lag=4)
    trials = lj.make_trials(seed=[0, 1], learning_rate=1e-2)

    def fit(dtype):
        spec = SequenceSpec(cells.LSTM(8), task.input_size, task.output_size, dtype=dtype)
        return lj.fit(task, spec, trials, 30, progress=False)

    mixed, single = fit("bfloat16"), fit("float32")
    assert dtypes(mixed.params) == {F32}
    assert dtypes(mixed.state.optimizer) <= {F32, jnp.dtype("int32")}
    np.testing.assert_allclose(mixed.loss, single.loss, rtol=2e-3)
    assert any(
        jax.tree.leaves(jax.tree.map(lambda a, b: np.any(a != b), mixed.params, single.params))
    )
    assert_close(mixed.params, single.params, 5e-2)


def test_a_saved_model_keeps_both_dtypes(tmp_path) -> None:
    spec = spec_of(dtype="bfloat16", cell=cells.PeepholeLSTM(H))
    params = jax.jit(spec.init)(jax.random.key(0))
    interop.save_model(tmp_path / "model", spec, params)
    read, found = interop.load_model(tmp_path / "model")
    assert read == spec
    assert dtypes(found) == {F32}
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize("task", [tasks.Recall(lag=4), tasks.Adding(length=12)])
def test_losses_are_computed_in_float32(task) -> None:
    """A mean of 16 bits would be off by up to 2^-9; that of rounded outputs is exact."""
    batch = task.sample(jax.random.key(0), 64)
    outputs = jax.random.normal(jax.random.key(1), (64, task.output_size), BF16)
    loss = task.loss(outputs, batch)
    assert loss.dtype == F32
    np.testing.assert_allclose(loss, task.loss(outputs.astype(F32), batch), rtol=1e-6)
