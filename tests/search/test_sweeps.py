"""Sweeps as a library call: any task, cell and model; what is ranked, continued and refused."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import pytest

import lstm_jax as lj
from tests.experiments.common.test_runner import Killed

pytestmark = pytest.mark.usefixtures("standard_promotion")

TASK = lj.tasks.Recall(lag=2, symbols=2)
MODEL = lj.nn.SequenceSpec(lj.cells.RNN(3), TASK.input_size, TASK.output_size, engine="reference")
SETTINGS = {"steps": 4, "batch_size": 4, "best": 1, "seeds": 2, "trials": 4, "progress": False}
SPACE = "learning_rate=log:1e-3:1e-1 hidden=3,4 clip=1"


def test_the_best_of_validation_is_trained_again_from_fresh_seeds_and_tested():
    found = lj.search.sweep(TASK, SPACE, MODEL, **SETTINGS)
    tried = [r for r in found.records if r["kind"] == "result" and "validation_n" in r]
    least = min(tried, key=lambda r: r["validation_loss"])
    assert len(tried) == 4 and {r["seed"] for r in tried} == {0}
    (best,) = found.best
    assert (best.configuration, best.values) == (least["configuration"], least["values"])
    assert best.validation == pytest.approx(least["validation_loss"])
    assert [r["seed"] for r in best.results] == [1, 2] and best.results[0]["test_n"] == 2000
    table = found.table()
    losses = [row["validation_loss"] for row in table]
    assert losses == sorted(losses) and losses[0] == best.validation
    assert [table[0][name] for name in best.values] == list(best.values.values())
    assert len(table) == 4 and len(repr(found.best)) < 200


def searched(count: int, loss: Callable[[Mapping[str, Any]], float]) -> lj.search.SweepResult:
    """A sweep of random points, of which those with a learning rate above 0.05 diverged."""
    space = lj.search.parse("learning_rate=log:1e-3:1e-1 b1=uniform:0:0.9 clip=1", {})
    points = [space.draw(0, i) for i in range(count)]
    records = [
        {
            "kind": "result", "configuration": i, "seed": 0, "values": point, "step": 9,
            "status": "diverged" if point["learning_rate"] > 0.05 else "finished",
            "validation_loss": loss(point), "validation_correct": 1, "validation_n": 2,
        }
        for i, point in enumerate(points)
    ]  # fmt: skip
    search = lj.search.Search(space, {}, lambda s: TASK, lambda s, task: MODEL, steps=9)
    good = [r for r in records if r["status"] == "finished"]
    order = [r["configuration"] for r in sorted(good, key=lambda r: r["validation_loss"])]
    return lj.search.SweepResult([], records, [], search, order)


def test_importance_is_the_share_of_variance_of_each_free_hyperparameter():
    found = searched(60, lambda point: 10 ** (point["learning_rate"] * 20 + point["b1"] / 9))
    assert list(shares := found.importance()) == ["learning_rate", "b1"]
    assert shares["learning_rate"] > 0.8 and 0 <= shares["b1"] < 0.1
    diverged = [row["diverged"] for row in found.table()]
    assert 0 < sum(diverged) < 60 and diverged == sorted(diverged)
    assert found.table()[-1]["validation_loss"] == np.inf
    assert len(repr(found)) < 200 and "learning_rate" in repr(found)


@pytest.mark.parametrize(("count", "loss"), [(19, 0.0), (30, 1e6)])
def test_importance_is_refused_for_few_trials_and_for_noise(count, loss):
    found = searched(count, lambda point: point["b1"] + (loss * point["b1"]) % 97)
    with pytest.raises(ValueError, match=f"importance needs 20 or more trials, .* got {count}"):
        found.importance()


def own_task(validation=0.25):
    rng = np.random.default_rng(0)
    data = lj.data.Sequences(rng.normal(size=(24, 3, 2)), rng.choice(["a", "b"], 24))
    return lj.tasks.Classification(data.split(validation=validation, test=0.25))


OWN = lj.nn.SequenceSpec(lj.cells.RNN(3), engine="reference")


def test_a_sweep_on_own_data_gives_the_networks_of_its_best():
    """Their test losses are those of the records, in a width that is no power of two."""
    task = own_task()
    found = lj.search.sweep(task, "learning_rate=0.01,0.1 hidden=3", OWN, **SETTINGS)
    network, (best,) = found.predictor(), found.best
    model: Any = network.model
    assert model.cell.hidden == 3 and network.trials.seed.tolist() == [1, 2]
    evaluated = lj.evaluate(task, model, network.params, network.trials, split="test")
    np.testing.assert_allclose(evaluated.loss, [r["test_loss"] for r in best.results], rtol=1e-5)
    assert set(network.predict(np.zeros((5, 3, 2)))) <= {"a", "b"}
    with pytest.raises(ValueError, match=r"rank must be in \[0, 1\), got 1"):
        found.predictor(1)


def test_a_sweep_by_epochs_keeps_the_parameters_of_the_least_validation_loss():
    """Those of `fit` with the same settings and seeds, also where a trial continues a rung."""
    task = own_task()
    settings: dict[str, Any] = SETTINGS | {"steps": None, "epochs": 4, "batch_size": 5}
    halving = lj.search.Strategy("halving", trials=4, eta=2, rungs=2)
    space = "learning_rate=log:0.1:1 hidden=3"
    found = lj.search.sweep(task, space, OWN, strategy=halving, **settings)
    (best,), network = found.best, found.predictor()
    rate = best.values["learning_rate"]
    fitted = [
        lj.fit(task, OWN, epochs=4, seeds=[seed], learning_rate=rate, batch_size=5, progress=False)
        for seed in (0, 1, 2)
    ]
    assert best.validation == pytest.approx(fitted[0].validation_loss[0], rel=1e-5)
    for m, result in enumerate(fitted[1:]):
        for ours, theirs in zip(
            *map(jax.tree.leaves, (network.params, result.params)), strict=True
        ):
            np.testing.assert_allclose(ours[m], theirs[0], rtol=1e-4, atol=1e-6)
        record = best.results[m]
        assert (record["step"], record["best_step"]) == (12, result.best_step[0])
    steps = [r["step"] for r in found.records if r["kind"] == "result" and "validation_n" in r]
    assert sorted(steps) == [6, 6, 6, 6, 12, 12]
    assert min(result.best_step[0] for result in fitted) < 12  # the last ones are not the best


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        (own_task(), {"steps": 3, "epochs": 2}, "one of steps and epochs must be given"),
        (own_task(), {"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        (own_task(0), {"epochs": 2}, "rows that rank and test, got no validation rows"),
        (TASK, {"epochs": 2}, "epochs need a task with rows of data, recall has none"),
        (own_task(), {"epochs": 2, "strategy": "halving"}, "4 rungs by 3 need 27 epochs, got 2"),
    ],
)
def test_a_budget_that_does_not_fit_the_task_is_refused(task, settings, words, monkeypatch):
    monkeypatch.setattr(lj.search.sweeps, "train", None)
    with pytest.raises(ValueError, match=words):
        lj.search.sweep(task, "learning_rate=0.1", OWN, **SETTINGS | {"steps": None} | settings)


def test_halving_continues_survivors_and_a_killed_sweep_equals_one_that_was_not(tmp_path):
    """Without a run, and in one that is killed in between and continued."""
    how = lj.search.Strategy("halving", trials=4, eta=2, rungs=2)
    whole = lj.search.sweep(TASK, SPACE, MODEL, strategy=how, **SETTINGS)
    run, finish = lj.RunDirectory.create(tmp_path / "run"), lj.RunDirectory.finish
    with pytest.MonkeyPatch.context() as patch:

        def killed(*arguments):
            finish(*arguments)
            raise Killed

        patch.setattr(lj.RunDirectory, "finish", killed)
        with pytest.raises(Killed):
            lj.search.sweep(TASK, SPACE, MODEL, strategy=how, run=run, **SETTINGS)
    again = lj.search.sweep(TASK, SPACE, MODEL, strategy=how, run=run, **SETTINGS)
    assert again.best == whole.best
    steps = [r["step"] for r in whole.records if r["kind"] == "result" and "validation_n" in r]
    assert sorted(steps) == [2, 2, 2, 2, 4, 4]


def test_task_and_model_are_functions_of_a_structure_of_the_callers_own():
    cells = {"rnn": lj.cells.RNN, "gru": lj.cells.GRU}
    found = lj.search.sweep(
        lambda s: lj.tasks.Recall(lag=s["lag"], symbols=2),
        "lag=1,2 cell=rnn,gru learning_rate=0.01",
        lambda s, task: lj.nn.SequenceSpec(
            cells[s["cell"]](3), task.input_size, task.output_size, engine="reference"
        ),
        strategy="grid", structure={"cell": tuple(cells), "lag": range(1, 9)}, **SETTINGS,
    )  # fmt: skip
    groups = {r["group"] for r in found.records if "validation_n" in r}
    assert groups == {f"search cell={c},lag={n} 0" for c in cells for n in (1, 2)}
    assert np.isfinite(found.best[0].validation)


@pytest.mark.parametrize(
    ("space", "settings", "words"),
    [
        ({"clip": 1}, {}, "space must be a line such as .*, or a Space, got {'clip': 1}"),
        ("input_bias=1", {}, "input_bias: RNN has no such bias"),
        ("size=3", {}, "size is unknown: need batch_size, optimizer, hidden"),
        ("cell=lstm,gru", {}, "cell is unknown: .*; structure= declares other names"),
        ("clip=log:1:2, hidden=4", {}, "need a number, got 2,: spaces divide entries"),
        ("clip=1", {"best": 0}, "best must be an integer of at least 1, got 0"),
        ("clip=1", {"places": 0}, "places must be an integer of at least 1, got 0"),
        ("clip=1", {"strategy": "best"}, "strategy must be one of grid, random, halving, optuna"),
    ],
)
def test_a_bad_space_or_strategy_is_refused_before_training(space, settings, words, monkeypatch):
    monkeypatch.setattr(lj.search.sweeps, "train", None)
    with pytest.raises((ValueError, TypeError), match=words):
        lj.search.sweep(TASK, space, MODEL, **SETTINGS | settings)
    with pytest.raises(TypeError, match=r"task must be a task such as .*, got list"):
        lj.search.sweep([1], space, MODEL)  # pyright: ignore


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"patience": 3}, "sweep takes no patience, got patience=3: each trial trains for steps="),
        ({"learning_rate": 0.1}, "write it in the space"),
        ({"step": 3}, r"did you mean steps\?"),
    ],
)
def test_an_argument_that_a_sweep_does_not_take_is_refused_with_its_place(given, words):
    with pytest.raises(TypeError, match=words):
        lj.search.sweep(TASK, SPACE, MODEL, **given)
