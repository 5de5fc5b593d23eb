"""Laws of the two functions that learning sees: values, draws, trials, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax import cells
from lstm_jax.nn import (
    Rates,
    SequenceSpec,
    initializers,
)
from tests.nn.small_models import (
    CELL,
    ENGINE,
    KEY,
    MASK,
    SIMPLE,
    ZONED,
    B,
    D,
    H,
    T,
    assert_equal,
    draw,
    drawn,
    params_of,
    spec_of,
)


def test_a_spec_is_its_value() -> None:
    def make(**changes):
        return spec_of(
            b=initializers.gate_bias(f=2.0), w_x=initializers.torch_uniform(H), **changes
        )

    traces = []

    def count(spec, x):
        traces.append(spec)
        return x

    for spec in (make(), make(dtype=jnp.float32), make(engine=ENGINE)):
        assert spec == make()
        assert hash(spec) == hash(make())
        jax.jit(count, static_argnums=0)(spec, 1.0)
    assert len(traces) == 1
    changes = dict(
        cell=cells.LSTM(H + 1), input_size=4, output_size=3, readout="every", depth=2,
        bidirectional=True, w_h=initializers.orthogonal(), learn_initial=True,
        engine=lj.engines.Reference(), dtype="bfloat16",
    )  # fmt: skip
    different = [make(**{name: value}) for name, value in changes.items()]
    assert len({make(), *different, make(front="dense", front_width=3)}) == len(changes) + 2


def test_gradients_through_a_batch_of_trials_are_those_of_each_alone() -> None:
    spec = spec_of(cell=ZONED, **SIMPLE)
    x = draw(1, T, B, D)
    start = {
        "scale": jnp.array([0.5, 1.0, 2.0]),
        "gate_bias": {"f": jnp.array([-1.0, 0.0, 3.0]), "o": jnp.array([1.0, 0.0, -1.0])},
    }
    rates = Rates(
        zoneout={"h": jnp.array([0.0, 0.2, 0.4])},
        dropout=jnp.array([0.0, 0.3, 0.6]),
        input_dropout=jnp.array([0.0, 0.1, 0.2]),
        recurrent_dropout=jnp.array([0.3, 0.0, 0.3]),
        weight_drop=jnp.array([0.3, 0.0, 0.5]),
    )
    keys = jax.random.split(jax.random.key(5), (3, 2))

    def one(trial, keys):
        start, rates = trial
        params = spec.init(keys[0], **start)

        def total(params):
            return jnp.sum(spec.apply(params, x, mask=MASK, rates=rates, key=keys[1]) ** 2)

        return params, jax.value_and_grad(total)(params)

    trials = start, rates
    together = jax.jit(jax.vmap(one))(trials, keys)
    alone, together = jax.jit(one), jax.device_get(together)
    for r in range(3):
        expected = alone(jax.tree.map(lambda a, r=r: np.asarray(a)[r], trials), keys[r])
        assert_equal(jax.tree.map(lambda a, r=r: a[r], together), expected, rtol=1e-4, atol=1e-5)
    assert len(np.unique(together[1][0])) == 3


@pytest.mark.parametrize("front", ["dense", "embed"])
def test_init_scale_multiplies_every_weight_and_no_bias(front) -> None:
    spec = spec_of(
        front=front, front_width=4, learn_initial=True, **SIMPLE,
    )  # fmt: skip
    plain, doubled = (drawn(spec, scale=scale) for scale in (1.0, 2.0))
    assert_equal(plain, drawn(spec))
    weights = {"kernel", "embedding", "w_x", "w_h"}
    seen = set()
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(plain), jax.tree.leaves(doubled), strict=True
    ):
        name = path[-1].key
        seen.add(name)
        assert_equal(new, old * (2.0 if name in weights else 1.0))
        assert name in weights | {"bias", "b", "h", "c"}
        assert np.any(np.asarray(old)) == (name in weights | {"b"})
    assert {"w_x", "w_h", "b", "kernel"} < seen


def test_gate_bias_sets_its_block_in_every_layer_whatever_the_initialiser_says() -> None:
    spec = spec_of(depth=2, bidirectional=True, **SIMPLE)
    plain = drawn(spec)
    params = drawn(spec, gate_bias={"i": -3.0})
    for layer, before in zip(params["stack"]["layers"], plain["stack"]["layers"], strict=True):
        for direction in ("forward", "backward"):
            expected = np.array(before[direction]["b"]).reshape(4, H)
            assert np.any(expected[0] != -3.0)
            expected[0] = -3.0
            assert_equal(layer[direction]["b"].reshape(4, H), expected)
    with pytest.raises(ValueError, match="b and gate_bias name gates, got z"):
        spec.init(jax.random.key(0), gate_bias={"z": 1.0})


def test_zoneout_of_a_trial_takes_the_place_of_the_cells_own_in_every_layer() -> None:
    """With a key and without; a state that the trial does not name keeps the cell's own rate."""
    other = cells.Zoneout(CELL, {**dict(ZONED.rates), "h": 0.6})
    spec, want = (spec_of(cell=c, depth=2, bidirectional=True, **SIMPLE) for c in (ZONED, other))
    params, x, trial = params_of(spec), draw(1, T, B, D), Rates(zoneout={"h": jnp.float32(0.6)})
    for key in (None, jax.random.key(1)):
        given = jax.jit(spec.apply)(params, x, rates=trial, key=key)
        own = jax.jit(want.apply)(params, x, key=key)
        np.testing.assert_allclose(given, own, rtol=1e-6)
    for cell in (CELL, cells.Zoneout(CELL, {"c": 0.1})):
        other = spec_of(cell=cell)
        with pytest.raises(ValueError, match=r"zoneout names state 'h', for which .* no rate"):
            other.apply(params_of(other), x, rates=Rates(zoneout={"h": 0.5}))


def test_parameters_depend_on_the_key_and_on_the_layer() -> None:
    spec = spec_of(depth=2, w_x=initializers.identity())
    one, again, other = (drawn(spec, seed) for seed in (0, 0, 1))
    assert_equal(one, again, atol=0.0)
    layers = one["stack"]["layers"]
    assert not np.allclose(layers[0]["w_h"], layers[1]["w_h"])
    assert not np.allclose(layers[0]["w_h"], other["stack"]["layers"][0]["w_h"])
    assert not np.allclose(one["head"]["kernel"], other["head"]["kernel"])


def test_float64_is_exact_and_bfloat16_rough(x64: None) -> None:
    x = draw(1, T, B, D)
    exact, single, rough = (
        spec_of(cell=ZONED, dtype=dtype, depth=2) for dtype in ("float64", "float32", "bfloat16")
    )
    params = params_of(exact)
    key = jax.random.key(1)
    trial = Rates(**{name: jnp.float32(0.5) for name in Rates._fields if name != "zoneout"})

    def apply(spec):
        same = jax.tree.map(lambda a: a.astype(spec.stored_dtype), params)
        y = jax.jit(spec.apply)(same, x, mask=MASK)
        assert y.dtype == spec.dtype
        noisy = jax.eval_shape(lambda: spec.apply(same, x, mask=MASK, rates=trial, key=key))
        assert noisy.dtype == spec.dtype
        return np.asarray(y, np.float64)

    for spec in (exact, single, rough):
        made = jax.eval_shape(spec.init, key)
        assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {spec.stored_dtype}
    truth = apply(exact)
    error = np.abs(apply(single) - truth).max()
    assert 0 < error < 1e-6
    assert np.abs(apply(rough) - truth).max() < 0.03 * np.abs(truth).max()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(depth=0), ValueError, "depth must be an integer of at least 1, got 0"),
        (dict(depth=True), ValueError, "depth must be an integer of at least 1, got True"),
        (dict(input_size=-1), ValueError, "input_size must be an integer of at least 1, got -1"),
        (
            dict(output_size=2.5),
            ValueError,
            "output_size must be an integer of at least 1, got 2.5",
        ),
        (
            dict(readout="first"),
            ValueError,
            "readout must be one of None, last, every, got",
        ),
        (dict(front="conv"), ValueError, "front must be one of None, dense, embed, got"),
        (dict(front="dense"), ValueError, "front_width must be an integer of at least 1, got None"),
        (dict(front_width=3), ValueError, "front_width must be None without a front, got 3"),
        (dict(dtype="int32"), TypeError, "dtype must be a floating one, got int32"),
        (dict(tied=True), ValueError, "front must be 'embed' for tied=True, got None"),
        (
            dict(tied=True, front="embed", front_width=H),
            ValueError,
            "output_size must be input_size, 3, for tied=True, got 2",
        ),
    ],
)
def test_a_bad_spec_is_refused_by_name(change, error, message: str) -> None:
    with pytest.raises(error, match=message):
        spec_of(**change)


@pytest.mark.parametrize("given", [{}, {"projection": 2}, {"bidirectional": True}])
def test_a_tied_embedding_is_as_wide_as_the_outputs(given) -> None:
    spec = spec_of(tied=True, front="embed", front_width=4, output_size=D, **given)
    width = 2 if "projection" in given else 2 * H if given else H
    words = f"front_width must be {width}, the width of the outputs of the layers, for tied=True"
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(spec.init, KEY)


@pytest.mark.parametrize(
    ("change", "x", "error", "message"),
    [
        ({}, jnp.zeros((T, B)), ValueError, r"x must be \[T, B, D\], time first, with D = 3, got"),
        ({}, jnp.zeros((T, B, D + 1)), ValueError, r"with D = 3, got shape \(7, 4, 4\)"),
        ({}, jnp.zeros((T, B, D), int), TypeError, "x must be floats .*, got int32"),
        (
            "embed",
            jnp.zeros((T, B)),
            TypeError,
            "x must be integers for front='embed', got float32",
        ),
        ("embed", jnp.zeros((T, B, 1), int), ValueError, r"x must be symbols \[T, B\], time first"),
    ],
)
def test_a_bad_input_is_refused_by_name(change, x, error, message: str) -> None:
    spec = spec_of(front="embed", front_width=4) if change else spec_of()
    with pytest.raises(error, match=message):
        jax.eval_shape(lambda: spec.apply(spec.init(jax.random.key(0)), x))


def test_a_model_says_which_engine_it_has_on_another_platform():
    spec = SequenceSpec(cells.LSTM(8), 3, 2)
    assert spec.on("tpu").engine == lj.engines.resolve("auto", spec.cell, "tpu")
    assert spec.on("tpu") != spec.on("cpu")
    named = dataclasses.replace(spec, engine=lj.engines.Reference())
    assert named.on("tpu") == named
