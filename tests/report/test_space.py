"""Search spaces: their measure against its definition, and what is refused by name."""

import numpy as np
import pytest

from lstm_jax.report import space
from lstm_jax.report.space import Parameter

UNIFORM = Parameter("noise", "uniform", -1.0, 3.0)
LOG = Parameter("rate", "log", 1e-4, 1e-1)
INT = Parameter("layers", "int", 1, 4)
LOG_INT = Parameter("width", "log_int", 2, 9)
CHOICE = Parameter("cell", "choice", choices=("lstm", "gru", "rnn"))
ALL = (UNIFORM, LOG, INT, LOG_INT, CHOICE)


def test_a_position_is_the_share_of_the_space_below():
    np.testing.assert_allclose(UNIFORM.positions([-1, 0, 3]), [0, 0.25, 1])
    np.testing.assert_allclose(LOG.positions([1e-4, 1e-3, 1e-1]), [0, 1 / 3, 1])
    np.testing.assert_allclose(INT.positions([1, 2, 4]), [1 / 8, 3 / 8, 7 / 8])
    np.testing.assert_allclose(CHOICE.positions(["rnn", "lstm"]), [5 / 6, 1 / 6])
    whole = np.log(9.5 / 1.5)
    np.testing.assert_allclose(LOG_INT.positions([2, 5]), np.log([2 / 1.5, 5 / 1.5]) / whole)


@pytest.mark.parametrize("parameter", ALL, ids=lambda p: p.kind)
def test_values_and_positions_are_inverse(parameter):
    at = parameter.grid(50)
    assert np.all((at > 0) & (at < 1)) and np.all(np.diff(at) > 0)
    values = parameter.values(at)
    np.testing.assert_allclose(parameter.positions(values), at, rtol=1e-12)
    if parameter.kind in ("int", "log_int", "choice"):
        every = parameter.choices or tuple(range(int(parameter.low), int(parameter.high) + 1))
        assert tuple(values) == every


@pytest.mark.parametrize("parameter", [INT, LOG_INT], ids=lambda p: p.kind)
def test_a_boundary_parts_whole_numbers_by_their_measure(parameter):
    numbers = np.arange(parameter.low, parameter.high + 1)
    if parameter.kind == "int":
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
    "arguments, words",
    [
        (("rate", "logarithmic", 1, 2), "rate: kind 'logarithmic' is unknown"),
        (("rate", "log", 0.1, 0.1), "rate: low 0.1, high 0.1: need finite numbers, low below high"),
        (("rate", "log", 0.0, 1.0), "rate: low 0.0, high 1.0: kind 'log' needs low above 0"),
        (("rate", "uniform", 0.0, np.inf), "rate: low 0.0, high inf: need finite"),
        (("rate", "uniform"), "rate: low nan, high nan: need finite"),
        (("width", "int", 1, 2.5), "width: low 1, high 2.5: kind 'int' needs whole numbers"),
        (("width", "log_int", 0, 8), "kind 'log_int' needs low above 0"),
        (("cell", "choice"), r"cell: choices \(\), need one or more, different"),
        (("cell", "choice", np.nan, np.nan, ("a", "a")), r"cell: choices \('a', 'a'\)"),
        (("cell", "choice", 0, 1, ("a",)), "cell: low 0, high 1: a choice has no bounds"),
        (("rate", "log", 1, 2, ("a",)), r"rate: choices \('a',\) for 'log', need none"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(arguments, words):
    with pytest.raises(ValueError, match=words):
        Parameter(*arguments)


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
    ninths = Parameter("share", "uniform", 1 / 9, 2 / 3)
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
