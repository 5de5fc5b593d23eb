"""Choosing a rate: the middle of those that solve most seeds, or the most accurate."""

import numpy as np

from experiments.common import tuning


def results(*trials: tuple[int, int], status: str = "finished") -> list[dict]:
    """Results of trials that got so many of 100 right in so many steps."""
    return [
        {"validation_correct": correct, "validation_n": 100, "step": step, "status": status}
        for correct, step in trials
    ]


def test_trials_are_every_rate_with_every_seed():
    trials = tuning.trials([5, 6], [1e-3, 1e-2, 1e-1], clip=1.0)
    assert trials.seed.tolist() == [5, 6] * 3
    np.testing.assert_allclose(trials.learning_rate, np.repeat([1e-3, 1e-2, 1e-1], 2), rtol=1e-6)
    assert set(trials.clip.tolist()) == {1.0}


def test_most_seeds_solved_comes_before_accuracy():
    assert tuning.chosen((1, 2), results((95, 9), (10, 9), (94, 9), (94, 9))) == 1


def test_of_equally_many_solved_the_middle_wins_whatever_the_order():
    assert tuning.chosen((1, 2, 3, 4), results((10, 9), (96, 9), (95, 1), (99, 2))) == 3
    assert tuning.chosen((4, 1, 3, 2), results((99, 2), (10, 9), (95, 1), (96, 9))) == 3
    assert tuning.chosen((1, 2), results((96, 9), (99, 1))) == 1


def test_none_solved_the_most_accurate_wins_and_the_first_of_equals():
    assert tuning.chosen((1, 2, 3), results((10, 9), (30, 9), (20, 9))) == 2
    assert tuning.chosen((1, 2, 3), results((10, 9), (30, 9), (30, 9))) == 2


def test_trials_that_diverged_have_nothing_right():
    diverged = results((20, 1), (99, 1), status="diverged")
    assert tuning.chosen((1, 2), [*diverged, *results((10, 9), (10, 9))]) == 2


def test_there_is_no_choice_without_results():
    assert tuning.chosen((1, 2), []) is None


def test_the_least_mean_score_is_chosen_without_diverged_seeds():
    losses = [3.0, 1.0, 2.0, 1.5, 0.1, 0.1]
    results = [{"status": "finished", "validation_loss": loss} for loss in losses]
    results[-1]["status"] = "diverged"
    assert tuning.lowest_loss((1e-3, 1e-2, 1e-1), results) == 1e-2
    assert tuning.lowest_loss((1e-3, 1e-2), []) is None
