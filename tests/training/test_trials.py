"""Trials: numbers and lists become [R], and what cannot be a setting is refused by name."""

import jax
import numpy as np
import pytest

from lstm_jax.training.trials import describe_trials, keys, make_trials


def test_numbers_are_repeated_for_each_trial_and_lists_are_taken_as_they_are():
    trials = make_trials(seed=[5, 2**32 - 1, 0], learning_rate=0.1, gate_bias={"f": [1, 2, 3]})
    assert trials.seed.tolist() == [5, 2**32 - 1, 0] and trials.seed.dtype == np.uint32
    assert trials.learning_rate.tolist() == [np.float32(0.1)] * 3
    assert trials.gate_bias["f"].tolist() == [1, 2, 3]
    assert np.all(np.isinf(trials.clip))
    assert {leaf.shape for leaf in jax.tree.leaves(trials)} == {(3,)}


def test_what_is_not_given_is_no_part_of_the_program_nor_of_the_records():
    rates = {"dropout", "input_dropout", "recurrent_dropout", "weight_drop", "input_noise"}
    assert not rates & set(describe_trials(make_trials()))
    assert len(jax.tree.leaves(make_trials())) == 7
    given = make_trials(
        dropout=0.1, input_dropout=0.2, recurrent_dropout=0.3, weight_drop=[0, 0.5], input_noise=2
    )
    assert rates <= set(describe_trials(given))
    assert given.weight_drop.tolist() == [0, 0.5]


def test_records_name_the_bias_of_each_gate_and_the_zoneout_of_each_state():
    described = describe_trials(make_trials(gate_bias={"i": -1, "f": 2}, zoneout={"c": 0.5}))
    assert described["gate_bias_f"].tolist() == [2] and described["gate_bias_i"].tolist() == [-1]
    assert described["zoneout_c"].tolist() == [0.5]
    assert not {"gate_bias", "zoneout"} & set(described)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"learning_rate": 0}, "learning_rate must be positive and finite, got 0"),
        ({"learning_rate": [1, -0.5]}, "learning_rate must be .* got -0.5 for trial 1"),
        ({"learning_rate": 1e-60}, "learning_rate must be positive"),  # zero in float32
        ({"learning_rate": np.nan}, "learning_rate must be positive and finite, got nan"),
        ({"learning_rate": 1e39}, "learning_rate must be positive and finite"),
        ({"clip": 0}, r"clip must be positive \(inf for none\), got 0"),
        ({"decay": [9, 0]}, r"decay must be positive \(inf for never\), got 0 for trial 1"),
        ({"seed": -1}, r"seed must be a whole number in \[0, 4294967295\], got -1"),
        ({"seed": 2**32}, r"seed must be a whole number in \[0, 4294967295\], got 4294967296"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"b1": 1}, r"b1 must be in \[0, 1\), got 1"),
        ({"b2": 1 - 1e-9}, r"b2 must be in \[0, 1\)"),  # one in float32
        ({"dropout": 1.5}, r"dropout must be in \[0, 1\), got 1.5"),
        ({"weight_drop": 1}, r"weight_drop must be in \[0, 1\), got 1"),
        ({"input_noise": -1}, "input_noise must be at least 0 and finite, got -1"),
        ({"input_dropout": -1}, r"input_dropout must be in \[0, 1\), got -1"),
        ({"recurrent_dropout": [0, 2]}, r"recurrent_dropout must be .* got 2 for trial 1"),
        ({"zoneout": {"h": -0.1}}, r"zoneout\['h'\] must be in \[0, 1\), got -0.1"),
        ({"zoneout": 0.1}, "zoneout must map names to numbers or lists, got 0.1"),
        ({"weight_decay": -1}, "weight_decay must be at least 0 and finite, got -1"),
        ({"init_scale": 0}, "init_scale must be positive and finite, got 0"),
        ({"gate_bias": {"f": np.inf}}, r"gate_bias\['f'\] must be finite, got inf"),
        ({"seed": [0, 1], "clip": [1, 2, 3]}, "equal length, got {'seed': 2, 'clip': 3}"),
        ({"seed": []}, "seed must be a number or a list of them"),
        ({"clip": [[1.0]]}, "clip must be a number or a list of them"),
        ({"clip": "much"}, "clip must be positive .*, got .'much'"),
    ],
)
def test_what_cannot_be_a_setting_is_refused_by_name(wrong, words):
    with pytest.raises(ValueError, match=words):
        make_trials(**wrong)


def test_the_four_streams_of_a_seed_differ_and_depend_on_nothing_else():
    def data(**settings):
        trials = jax.tree.map(lambda leaf: leaf[0], make_trials(**settings))
        return np.stack([jax.random.key_data(key) for key in keys(trials)])

    assert len({tuple(row) for row in data(seed=1)}) == 4
    np.testing.assert_array_equal(data(seed=1), data(seed=1, learning_rate=7, dropout=0.5))
    assert np.all(data(seed=1) != data(seed=2))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr": 0.1}, r"make_trials takes no lr, got lr=0.1: did you mean learning_rate\?"),
        ({"drop_out": 0.1}, r"did you mean dropout\?"),
        ({"hidden": 8}, "need one of seed, learning_rate"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_name(given, words):
    with pytest.raises(TypeError, match=words):
        make_trials(**given)
