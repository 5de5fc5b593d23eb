"""What the initialisers promise: orthogonal blocks, lags within range, variances, names refused."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike

import lstm_jax as lj
from lstm_jax import cells
from lstm_jax.nn import initializers

KEY = jax.random.key(0)


def blocks(cell: lj.Cell, names: tuple[str, ...], packed: ArrayLike) -> Mapping[str, np.ndarray]:
    ends = np.cumsum([cell.width(name) for name in names])
    return dict(zip(names, np.split(np.asarray(packed), ends[:-1], axis=-1), strict=True))


def biases(cell: lj.Cell, b: initializers.BiasInit | None) -> Mapping[str, np.ndarray]:
    params = lj.init(cell, KEY, 0, w_h=initializers.identity(), b=b)
    return blocks(cell, tuple(cell.gates), params.b)


@dataclasses.dataclass(frozen=True)
class TwoWidths(cells.LSTM):
    """An LSTM whose `f` block is 3 wide, as far as initialisers care."""

    def widths(self):
        return {"f": 3}


# Weights. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [cells.LSTM(24), cells.GRU(24)])
def test_each_recurrent_block_is_orthogonal_and_no_two_are_equal(cell: lj.Cell) -> None:
    params = lj.init(cell, KEY, 5)
    parts = list(blocks(cell, cell.h_blocks, np.asarray(params.w_h)).values())
    for part in parts:
        np.testing.assert_allclose(np.matmul(part.T, part), np.eye(24), atol=1e-6)
    assert not np.allclose(parts[0], parts[1], atol=1e-2)


@pytest.mark.parametrize("shape", [(7, 4), (1, 5)])
def test_an_orthogonal_block_that_is_not_square_is_so_on_its_shorter_side(shape) -> None:
    w = np.asarray(initializers.orthogonal()(KEY, shape))
    tall = w if shape[0] >= shape[1] else w.T
    gram = np.matmul(tall.T, tall)
    np.testing.assert_allclose(gram, np.eye(min(shape)), atol=1e-6)


def test_a_scaled_block_is_the_orthogonal_one_times_its_scale() -> None:
    plain, twice = initializers.orthogonal()(KEY, (5, 5)), initializers.orthogonal(2.0)(KEY, (5, 5))
    np.testing.assert_allclose(twice, 2 * np.asarray(plain), rtol=1e-6)
    assert hash(initializers.orthogonal(2.0)) == hash(initializers.orthogonal(2.0))
    assert initializers.orthogonal(2.0) != initializers.orthogonal()


def test_orthogonal_knows_float64_and_bfloat16(x64: None) -> None:
    exact = initializers.orthogonal()(KEY, (9, 9), jnp.float64)
    np.testing.assert_allclose(exact.T @ exact, np.eye(9), atol=1e-14)
    rough = initializers.orthogonal()(KEY, (9, 9), jnp.bfloat16)
    assert rough.dtype == jnp.bfloat16
    rough = np.asarray(rough, np.float32)
    np.testing.assert_allclose(rough.T @ rough, np.eye(9), atol=2**-7)  # bfloat16 keeps 8 bits


def test_glorot_has_the_variance_of_its_block_and_not_of_all_blocks_together() -> None:
    cell = cells.LSTM(200)
    for part in blocks(cell, cell.x_blocks, lj.init(cell, KEY, 100).w_x).values():
        bound = np.sqrt(6 / (100 + 200))
        assert np.abs(part).max() <= bound
        # 20,000 draws: the sample variance of a uniform has a relative standard error of 0.63 %.
        np.testing.assert_allclose(part.var(), bound**2 / 3, rtol=0.03)


def test_normal_has_its_deviation_whatever_the_width() -> None:
    for width in (50, 200):
        w_h = np.asarray(lj.init(cells.LSTM(width), KEY, 2, w_h=initializers.normal(0.3)).w_h)
        # Of 10,000 draws or more the sample deviation has a relative standard error of 0.7 %.
        np.testing.assert_allclose([w_h.mean(), w_h.std()], [0, 0.3], rtol=0.03, atol=0.012)


def test_identity_is_scale_times_the_identity_in_every_block() -> None:
    cell = cells.GRU(3)
    w_h = lj.init(cell, KEY, 2, w_h=initializers.identity(0.5)).w_h
    np.testing.assert_array_equal(w_h, 0.5 * np.tile(np.eye(3), 3))


def test_torch_uniform_fills_its_range_whatever_the_shape_of_the_block() -> None:
    cell, bound = cells.LSTM(64), 64**-0.5
    uniform = initializers.torch_uniform(64)
    params = lj.init(cell, KEY, 400, w_x=uniform, w_h=uniform, b=initializers.torch_uniform_bias())
    for leaf, rtol in ((params.w_x, 0.02), (params.w_h, 0.03), (params.b, 0.25)):
        drawn = np.asarray(leaf)
        assert np.abs(drawn).max() <= bound
        assert np.abs(drawn).max() > 0.95 * bound
        # The sample variance of a uniform has a relative standard error of sqrt(0.8 / n).
        np.testing.assert_allclose(np.var(drawn), bound**2 / 3, rtol=rtol)
        assert abs(np.mean(drawn)) < 4 * bound / np.sqrt(3 * drawn.size)
    assert len(np.unique(params.b)) == cell.hidden * 4


# Biases. ------------------------------------------------------------------------------------------


def test_without_an_initialiser_the_bias_is_the_cells_own_and_zero_elsewhere() -> None:
    found = biases(cells.LSTM(3), None)
    assert {g: set(v.tolist()) for g, v in found.items()} == {
        "i": {0.0}, "f": {1.0}, "g": {0.0}, "o": {0.0},
    }  # fmt: skip


def test_gate_bias_sets_the_blocks_it_names_and_no_other() -> None:
    found = biases(TwoWidths(4), initializers.gate_bias(o=-2.0, f=5.0))
    assert {g: v.tolist() for g, v in found.items()} == {
        "i": [0.0] * 4, "f": [5.0] * 3, "g": [0.0] * 4, "o": [-2.0] * 4,
    }  # fmt: skip


def test_chrono_covers_the_lags_and_closes_the_input_gate_as_far_as_it_opens_the_other() -> None:
    longest = 300
    b = initializers.chrono(longest)(KEY, cells.LSTM(4000))
    np.testing.assert_array_equal(b["i"], -b["f"])
    assert set(b) == {"i", "f"}
    lag = np.exp(np.asarray(b["f"]))  # U[1, longest - 1]
    assert lag.min() >= 1 - 1e-6
    assert lag.max() <= (longest - 1) * (1 + 1e-6)
    # The mean of 4,000 uniforms has a standard error of 0.29 / sqrt(4000) of the range.
    assert abs(lag.mean() - longest / 2) < 4 * 0.29 * (longest - 2) / np.sqrt(4000)
    assert abs(np.mean(lag < longest / 4) - 1 / 4) < 4 * np.sqrt(0.25 * 0.75 / 4000)


def test_chrono_serves_a_cell_of_one_forget_gate() -> None:
    found = biases(cells.GRU(50), initializers.chrono(10, forget="z", input=None))
    assert found["z"].min() >= 0
    assert found["z"].max() <= np.log(9) + 1e-6
    assert all(set(found[g]) == {0.0} for g in ("r", "nx", "nh"))


def test_the_shortest_lag_of_chrono_is_two_instants_where_every_bias_is_zero() -> None:
    assert set(initializers.chrono(2)(KEY, cells.LSTM(5))["f"].tolist()) == {0.0}


@pytest.mark.parametrize(
    ("b", "block"),
    [
        (initializers.gate_bias(forget=1.0), "forget"),
        (initializers.chrono(10, forget="z"), "z"),
        (initializers.chrono(10, input="j"), "j"),
    ],
)
def test_a_block_that_the_cell_does_not_have_is_refused_by_name(b, block: str) -> None:
    with pytest.raises(ValueError, match=f"gates, got {block}: need some of i, f, g, o"):
        biases(cells.LSTM(3), b)


# Of all. ------------------------------------------------------------------------------------------

SAME_SETTINGS = [
    initializers.glorot,
    initializers.orthogonal,
    lambda: initializers.normal(0.2),
    lambda: initializers.identity(0.9),
    lambda: initializers.torch_uniform(8),
    initializers.torch_uniform_bias,
    lambda: initializers.gate_bias(f=1.0, i=-1.0),
    lambda: initializers.chrono(30),
    initializers.uniform_gate,
]


@pytest.mark.parametrize("make", SAME_SETTINGS)
def test_initialisers_of_the_same_settings_are_equal_and_hash_equal(make) -> None:
    assert make() == make()
    assert hash(make()) == hash(make())
    assert sum(make() == other() for other in SAME_SETTINGS) == 1
    assert eval(repr(make()), dict(vars(initializers))) == make()


def test_a_uniform_gate_is_uniform_between_its_bounds() -> None:
    cell = cells.URLSTM(1000)
    b = initializers.uniform_gate()(KEY, cell)
    np.testing.assert_array_equal(b["r"], -b["f"])
    kept = np.sort(1 / (1 + np.exp(-np.float64(b["f"]))))
    assert kept[0] >= 0.99e-3 and kept[-1] <= 1 - 0.99e-3
    assert np.abs(kept - np.linspace(0, 1, 1000)).max() < 1.63 / np.sqrt(1000)  # Kolmogorov, 1%
    assert set(initializers.uniform_gate("z", None)(KEY, cells.GRU(4))) == {"z"}


def test_initialisers_of_other_settings_differ() -> None:
    assert initializers.identity(1.0) != initializers.identity(0.5)
    assert initializers.chrono(10) != initializers.chrono(11)
    assert initializers.gate_bias(f=1.0) != initializers.gate_bias(i=1.0)
    assert initializers.gate_bias(f=1.0, i=2.0) == initializers.gate_bias(i=2.0, f=1.0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_initialiser_gives_the_dtype_and_draws_by_its_key(
    dtype,
) -> None:
    cell = cells.LSTM(8)
    fixed = initializers.torch_uniform(8), initializers.normal()
    for w in (initializers.glorot(), initializers.orthogonal(), *fixed):
        one, other = (w(jax.random.key(seed), (8, 8), dtype) for seed in (0, 1))
        assert one.dtype == dtype
        assert not np.array_equal(np.float32(one), np.float32(other))
    for b in (initializers.torch_uniform_bias(), initializers.chrono(30)):
        one, other = (b(jax.random.key(seed), cell, dtype) for seed in (0, 1))
        assert one["f"].dtype == dtype
        assert not np.array_equal(np.float32(one["f"]), np.float32(other["f"]))
    assert initializers.identity()(KEY, (8, 8), dtype).dtype == dtype
    assert initializers.gate_bias(f=1.0)(KEY, cell, dtype)["f"].dtype == dtype


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initializers.chrono(1), "max_lag must be at least 2 time steps, got 1"),
        (
            lambda: initializers.chrono(float("nan")),
            "max_lag must be at least 2 time steps, got nan",
        ),
        (lambda: initializers.torch_uniform(0), "hidden must be an integer of at least 1, got 0"),
        (lambda: lj.init(cells.LSTM(2), KEY, -1), "input_size must be .* of at least 0, got -1"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("given", [{"b": "chrono"}, {"w_x": "glorot"}, {"w_h": 1.0}, {"key": 0}])
def test_what_is_no_initialiser_or_key_is_refused_by_name(given) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(given))} must be an? "):
        lj.init(cells.LSTM(2), **{"key": KEY, "input_size": 1, **given})
