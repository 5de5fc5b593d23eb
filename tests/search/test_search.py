"""Search: what a space means, what it refuses, and what its points depend on."""

import dataclasses
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from lstm_jax import cells
from lstm_jax.search import space as search
from lstm_jax.search.space import Choice, Int, Log, LogInt, Uniform, parse
from lstm_jax.training.trials import Trials

STRUCTURE = {"cell": ("lstm", "gru"), "hidden": range(1, 1001)}
TEXT = "learning_rate=log:1e-4:1e-1 forget_bias=uniform:-2:6 cell=lstm,gru hidden=int:8:64 clip=1"


def test_a_space_is_read_as_it_is_written():
    space = parse(TEXT, STRUCTURE)
    assert dict(space.parameters) == {
        "learning_rate": Log(1e-4, 1e-1),
        "forget_bias": Uniform(-2.0, 6.0),
        "cell": Choice(("lstm", "gru")),
        "hidden": Int(8, 64),
        "clip": Choice((1.0,)),
    }
    assert space.free == ("learning_rate", "forget_bias", "cell", "hidden")
    assert parse(str(space), STRUCTURE) == space
    assert all(dataclasses.is_dataclass(d) and hash(d) for _, d in space.parameters)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate=log:1:1", "learning_rate=log:1:1: low must be below high, got 1 and 1"),
        ("hidden=int:9:8", "hidden=int:9:8: low must be below high, got 9 and 8"),
        ("forget_bias=uniform:2:-2", "low must be below high, got 2 and -2"),
        ("learning_rate=log:0:1", "learning_rate=log:0:1: a logarithm needs numbers above 0"),
        ("hidden=logint:0:8", "hidden=logint:0:8: a logarithm needs numbers above 0, got 0"),
        ("cell=", "cell=: the choice is empty"),
        (
            "momentum=0.9",
            "momentum is unknown: need cell, hidden, learning_rate, decay, warmup, b1",
        ),
        ("seed=1", "seed is unknown"),
        ("gate_bias=1", "gate_bias is unknown"),
        ("clip=1 clip=2", "clip is there twice"),
        ("clip=1,1", "clip=1,1: need each value once"),
        ("cell=lstm,elman", "cell=lstm,elman: need one of lstm, gru, got elman"),
        ("cell=int:1:2", "cell=int:1:2: need a choice of lstm, gru"),
        ("hidden=uniform:8:64", "need whole numbers: int, logint or a choice"),
        ("hidden=8,9.5", "need a whole number, got 9.5"),
        ("hidden=int:0:8", "hidden=int:0:8: need 1 to 1000"),
        ("dropout=uniform:0:1", r"dropout must be in \[0, 1\), got 1.0"),
        ("learning_rate=-1", "learning_rate must be positive"),
        ("learning_rate=log:1e-3", "need log:low:high"),
        ("learning_rate=log:a:1", "need a number, got a"),
        ("learning_rate=normal:0:1", "need log, uniform, int, logint or a choice, got normal"),
        ("hidden=int:1:99999999999", "hidden=int:1:99999999999: need 1 to 1000"),
        (f"clip=int:1:{10**400}", "need whole numbers up to 9007199254740992, got 1000"),
        ("forget_bias=nan", "forget_bias=nan: gate_bias.* must be finite, got nan"),
        ("forget_bias=uniform:0:1e300", r"gate_bias.* must be finite, got 1e\+300"),
        ("forget_bias=uniform:0:inf", "need finite numbers"),
        ("learning_rate", "learning_rate: need words like name=log:low:high"),
        ("=1", "a nameless parameter is unknown"),
        ("", "need at least one parameter"),
    ],
)
def test_bad_spaces_are_refused_by_name(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text, STRUCTURE)


DOMAINS = (Uniform(-2, 6), Log(1e-4, 1e-1), Int(3, 5), LogInt(3, 70), Choice((1.0, 3.0, 2.0)))


@hypothesis.given(st.floats(0, 1, exclude_max=True), st.sampled_from(DOMAINS))
def test_every_value_is_within_the_ends(u, domain):
    value = domain.sample(u)
    if isinstance(domain, Choice):
        assert value in domain.values
    else:
        assert domain.low <= value <= domain.high
        assert isinstance(value, int) == isinstance(domain, Int)


def test_values_are_as_likely_as_they_should_be():
    u = np.linspace(0, 1, 9, endpoint=False)
    assert Uniform(-2, 6).sample(0.5) == 2 and Log(1e-4, 1e-2).sample(0.5) == pytest.approx(1e-3)
    assert [Int(3, 5).sample(x) for x in u] == [3, 3, 3, 4, 4, 4, 5, 5, 5]
    assert [Choice((7, 1, 2)).sample(x) for x in u] == [7, 7, 7, 1, 1, 1, 2, 2, 2]
    many = [LogInt(1, 3).sample(x) for x in np.linspace(0, 1, 100_000, endpoint=False)]
    for n in (1, 2, 3):
        assert many.count(n) / 1e5 == pytest.approx(math.log((n + 0.5) / (n - 0.5), 7), abs=1e-4)


def test_a_grid_has_both_ends_and_what_lies_evenly_between():
    assert Uniform(-2, 6).grid(3) == [-2, 2, 6]
    assert Log(1e-4, 1e-2).grid(3) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert Int(3, 5).grid(9) == [3, 4, 5] and LogInt(1, 64).grid(4) == [1, 4, 16, 64]
    grid = parse("learning_rate=1,2 cell=lstm,gru hidden=int:4:8", STRUCTURE).grid(2)
    assert grid[:3] == [
        {"learning_rate": 1.0, "cell": "lstm", "hidden": 4},
        {"learning_rate": 1.0, "cell": "lstm", "hidden": 8},
        {"learning_rate": 1.0, "cell": "gru", "hidden": 4},
    ]
    assert len(grid) == len({tuple(point.values()) for point in grid}) == 8
    assert parse("learning_rate=1,2 cell=lstm,gru hidden=int:4:8", STRUCTURE).grid_size(2) == 8


def test_a_point_depends_on_seed_index_and_its_own_parameters_alone():
    space = parse(TEXT, STRUCTURE)
    points = [space.draw(3, i) for i in range(20)]
    assert [space.draw(3, i) for i in reversed(range(20))] == points[::-1]
    rates = {point["learning_rate"] for point in points}
    assert len(rates) == 20 and space.draw(4, 0)["learning_rate"] not in rates
    shares = [
        (math.log10(p["learning_rate"]) / 3 + 4 / 3, p["forget_bias"] / 8 + 0.25) for p in points
    ]
    assert min(abs(one - other) for one, other in shares) > 1e-3  # one does not follow from another
    alone = parse("learning_rate=log:1e-4:1e-1", STRUCTURE)
    assert [alone.draw(3, i)["learning_rate"] for i in range(20)] == [
        point["learning_rate"] for point in points
    ]


def test_trials_are_the_points_with_biases_by_block_and_structure_left_alone():
    space = parse("learning_rate=1e-2,1e-3 forget_bias=2 output_bias=-1 hidden=8", STRUCTURE)
    made = search.trials(space.grid(2), [5, 6], cells.LSTM(8))
    assert made.seed.tolist() == [5, 6] and made.b1.tolist() == [np.float32(0.9)] * 2
    np.testing.assert_allclose(made.learning_rate, [1e-2, 1e-3], rtol=1e-6)
    assert {b: v.tolist() for b, v in made.gate_bias.items()} == {"f": [2, 2], "o": [-1, -1]}


def test_zoneout_has_a_rate_for_each_state_that_the_cell_has():
    space = parse("zoneout_h=0.1 zoneout_c=uniform:0:0.5", {})
    made = search.trials([space.draw(0, 0)], [0], cells.LSTM(2)).zoneout
    assert made["h"].tolist() == [np.float32(0.1)] and 0 <= made["c"][0] <= 0.5
    with pytest.raises(ValueError, match="zoneout_c: GRU has no such state; it has zoneout_h"):
        search.trials([space.draw(0, 0)], [0], cells.GRU(2))
    with pytest.raises(ValueError, match=r"zoneout_h=1: zoneout\['h'\] must be in \[0, 1\)"):
        parse("zoneout_h=1", {})


def test_every_number_of_a_trial_can_be_searched():
    fields = set(Trials._fields) - {"seed", *search.BY_NAME}
    space = parse(" ".join(f"{name}=0.5" for name in fields), {})
    made = search.trials([space.draw(0, 0)], [0], cells.LSTM(2))._asdict()
    assert all(made[name].tolist() == [0.5] for name in fields)


def test_a_bias_belongs_to_the_block_that_does_what_it_says():
    assert search.bias_blocks(["forget_bias", "bias_o", "clip"], cells.LSTM(2)) == {
        "forget_bias": "f",
        "bias_o": "o",
    }
    assert search.bias_blocks(["forget_bias"], cells.GRU(2)) == {"forget_bias": "z"}


@pytest.mark.parametrize(
    ("names", "cell", "words"),
    [
        (["input_bias"], cells.GRU(2), "input_bias: GRU has no such bias; it has bias_r, bias_z"),
        (["forget_bias"], cells.RNN(2), "forget_bias: RNN has no such bias; it has bias_"),
        (["bias_q"], cells.LSTM(2), "bias_q: LSTM has no such bias; it has bias_i, bias_f"),
        (["bias_xi"], cells.LayerNormLSTM(2), "bias_xi: LayerNormLSTM has no such bias"),
        (["bias_f", "forget_bias"], cells.LSTM(2), "forget_bias and bias_f are the same bias"),
    ],
)
def test_a_bias_that_a_cell_does_not_have_is_refused(names, cell, words):
    with pytest.raises(ValueError, match=words):
        search.bias_blocks(names, cell)


def test_rungs_are_those_of_successive_halving():
    assert search.rungs(27, 81, 3, 4) == [(27, 3), (9, 9), (3, 27), (1, 81)]
    assert search.rungs(10, 10, 2, 2) == [(10, 5), (5, 10)]
    assert search.rungs(10, 9, 3, 3) == [(10, 1), (4, 3), (2, 9)]
    for arguments, words in (((8, 81, 3, 3), "need 9 trials"), ((9, 8, 3, 3), "need 9 updates")):
        with pytest.raises(ValueError, match=words):
            search.rungs(*arguments)


def test_the_least_score_is_best_of_equals_the_first_and_infinity_is_nowhere():
    assert search.ranked([2.0, math.inf, 1.0, 2.0, math.nan]) == [2, 0, 3]
