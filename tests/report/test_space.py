"""Search spaces: their measure against its definition, and what is refused by name."""

import numpy as np
import pytest

from lstm_jax.report import space
from lstm_jax.report.space import Parameter
from lstm_jax.search.space import Choice, Int, Log, LogInt, Uniform

UNIFORM = Parameter("noise", Uniform(-1.0, 3.0))
LOG = Parameter("rate", Log(1e-4, 1e-1))
INT = Parameter("layers", Int(1, 4))
LOG_INT = Parameter("width", LogInt(2, 9))
CHOICE = Parameter("cell", Choice(("lstm", "gru", "rnn")))
ALL = (UNIFORM, LOG, INT, LOG_INT, CHOICE)


def test_a_position_is_the_share_of_the_space_below():
    np.testing.assert_allclose(UNIFORM.positions([-1, 0, 3]), [0, 0.25, 1])
    np.testing.assert_allclose(LOG.positions([1e-4, 1e-3, 1e-1]), [0, 1 / 3, 1])
    np.testing.assert_allclose(INT.positions([1, 2, 4]), [1 / 8, 3 / 8, 7 / 8])
    np.testing.assert_allclose(CHOICE.positions(["rnn", "lstm"]), [5 / 6, 1 / 6])
    whole = np.log(9.5 / 1.5)
    np.testing.assert_allclose(LOG_INT.positions([2, 5]), np.log([2 / 1.5, 5 / 1.5]) / whole)


@pytest.mark.parametrize("parameter", ALL, ids=lambda p: p.name)
def test_values_and_positions_are_inverse(parameter):
    at = parameter.grid(50)
    assert np.all((at > 0) & (at < 1)) and np.all(np.diff(at) > 0)
    values = parameter.values(at)
    np.testing.assert_allclose(parameter.positions(values), at, rtol=1e-12)
    if parameter.choices or parameter.is_whole:
        every = parameter.choices or tuple(range(int(parameter.low), int(parameter.high) + 1))
        assert tuple(values) == every


@pytest.mark.parametrize("parameter", [INT, LOG_INT], ids=lambda p: p.name)
def test_a_boundary_parts_whole_numbers_by_their_measure(parameter):
    numbers = np.arange(parameter.low, parameter.high + 1)
    if not parameter.is_log:
        weights = np.ones(len(numbers)) / len(numbers)
    else:
        weights = np.log((numbers + 0.5) / (numbers - 0.5)) / np.log(9.5 / 1.5)
    at = parameter.positions(numbers)
    for threshold in [-np.inf, 0.0, *np.random.default_rng(0).random(50), *at, 1.0, np.inf]:
        below = weights[at <= threshold].sum()
        np.testing.assert_allclose(parameter.measure_below(np.array(threshold)), below, atol=1e-12)


def test_between_numbers_a_boundary_is_its_position():
    np.testing.assert_array_equal(LOG.measure_below(np.array([-np.inf, 0.3, 9.0])), [0, 0.3, 1])


@pytest.mark.parametrize(
    "parameter, value, words",
    [
        (LOG, 0.2, r"rate: 0.2, need a number in \[0.0001, 0.1\]"),
        (LOG, 0.9e-4, "rate: 9e-05"),
        (LOG, None, "rate: None"),
        (LOG, float("nan"), "rate: nan"),
        (UNIFORM, "1", "noise: '1'"),
        (INT, 2.5, r"layers: 2.5, need a whole number in \[1, 4\]"),
        (INT, True, "layers: True"),
        (CHOICE, "tanh", r"cell: 'tanh' is none of \('lstm', 'gru', 'rnn'\)"),
    ],
)
def test_a_value_outside_of_its_parameter_is_refused(parameter, value, words):
    with pytest.raises(ValueError, match=words):
        parameter.positions([value])


def test_a_bound_may_be_rounded_to_float32():
    ninths = Parameter("share", Uniform(1 / 9, 2 / 3))
    low, high = (float(str(np.float32(bound))) for bound in (1 / 9, 2 / 3))
    assert low < 1 / 9 and high > 2 / 3
    assert ninths.positions([low, high]).tolist() == [0, 1]


def test_trials_are_points_of_the_cube():
    records = [{"rate": 1e-3, "cell": "gru", "loss": 0.1}, {"rate": 1e-1, "cell": "rnn"}]
    np.testing.assert_allclose(space.points([LOG, CHOICE], records), [[1 / 3, 0.5], [1, 5 / 6]])
    with pytest.raises(ValueError, match=r"record 1 has no 'loss', only \['cell', 'rate'\]"):
        space.column(records, "loss")
    with pytest.raises(ValueError, match=r"parameters \['rate', 'rate'\]"):
        space.points([LOG, LOG], records)
