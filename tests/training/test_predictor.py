"""Predictions of trained networks: of rows, streams and ensembles, and of saved ones."""

import functools
import sys

import jax
import numpy as np
import pandas as pd
import pytest

import lstm_jax as lj
from tests.processes import run
from tests.training.own_data import MODEL, QUIET, TASK, T

pytestmark = pytest.mark.usefixtures("standard_promotion")


@functools.cache
def train():
    return lj.fit(TASK, MODEL, epochs=8, seeds=3, learning_rate=0.03, **QUIET)


@pytest.fixture
def trained(standard_promotion):
    return train()


def test_predictions_do_not_depend_on_how_rows_are_batched_or_padded(trained):
    rows = np.random.default_rng(5).normal(size=(4, T, 2))
    x = [row[:n] for n, row in zip((1, 4, T, 2), rows, strict=True)]
    best = trained.best()
    together = best.predict(x, probabilities=True)
    alone = [best.predict([row], probabilities=True)[0] for row in x]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    assert set(best.predict(x)) <= {"up", "down"}
    for row, last in zip(x, best.predict(x), strict=True):
        (*_, streamed) = best.predict_stream(row)
        assert isinstance(streamed, str) and streamed == last


def test_a_stream_of_answers_is_the_whole_row_and_starts_again_after_a_reset(standard_promotion):
    x = [np.random.default_rng(n).normal(size=(5, 2)) for n in range(8)]
    data = lj.data.Sequences(x, [(row > 0).astype(int) for row in x])
    task = lj.tasks.Labelling(data.split(validation=0.0, test=0.5))
    result = lj.fit(task, lj.nn.SequenceSpec(lj.cells.RNN(2)), steps=2, batch_size=4, **QUIET)
    best = result.best(by="train")
    whole = best.predict(np.stack(x[:2]))
    np.testing.assert_array_equal(list(best.predict_stream(x[0])), whole[0])
    step = best.stream(batch=2)
    step(np.ones((2, 2)))
    starts = np.arange(5) == 0
    streamed = [step(np.stack(x_t), np.full(2, s)) for *x_t, s in zip(*x[:2], starts, strict=True)]
    np.testing.assert_array_equal(np.stack(streamed, 1), whole)


@pytest.mark.parametrize("names", ["ba", "ac"])
def test_a_time_step_of_other_names_is_refused(names, standard_promotion):
    rows = pd.DataFrame(np.ones((4, 2)), columns=["a", "b"])  # pyright: ignore
    data = lj.data.Sequences([rows] * 4, np.arange(4.0), static=np.ones(4))
    task = lj.tasks.Regression(data.split(0.0, 0.0))
    model = lj.nn.SequenceSpec(lj.cells.RNN(1)).sized(task)
    params = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 1))
    step = lj.Predictor(task, model, params, lj.make_trials()).stream()
    wrong = rows.set_axis(list(names), axis=1)
    for x_t in (wrong.iloc[0], wrong.iloc[[0]]):
        with pytest.raises(
            ValueError, match=f"x_t must be a, b in this order, got {', '.join(names)}"
        ):
            step(x_t)
    np.testing.assert_array_equal(
        step(rows.iloc[0], [True], static=[[1.0]]), step(np.ones(2), [True], static=[[1.0]])
    )


def test_a_text_has_no_stream_of_rows(standard_promotion):
    text = lj.tasks.LanguageModel(lj.data.Text("the cat sat " * 20), window=4)
    network = lj.Predictor(text, MODEL, {}, lj.make_trials())
    with pytest.raises(TypeError, match="stream needs a task such as Labelling, got"):
        network.stream()


def test_a_table_of_predictions_is_of_forecasts(trained):
    with pytest.raises(TypeError, match="predict_table needs a task that is a Forecast, got Class"):
        trained.best().predict_table([1.0, 2.0])


def test_the_columns_of_the_table_name_the_split_they_were_measured_on(trained):
    row, told = trained.table()[1], repr(trained)
    assert row["train_loss"] == trained.loss[1] and row["train_metric"] == trained.metric[1]
    assert row["validation_loss"] == trained.validation_loss[1]
    assert not {"loss", "metric"} & row.keys()
    assert all(name in told for name in ("train_loss", "train_metric", "validation_loss"))


def test_a_time_step_of_another_shape_is_refused(trained):
    step = trained.best().stream(batch=2)
    assert step(np.zeros((2, 2))).shape == (2,)
    with pytest.raises(ValueError, match=r"x_t must be \[2, D\], got shape \[3, 2\]"):
        step(np.zeros((3, 2)))


def test_an_ensemble_predicts_the_mean_probability(trained):
    x = np.random.default_rng(6).normal(size=(5, T, 2))
    ensemble = trained.ensemble()
    each = [trained._predictor(np.array([m])).predict(x, probabilities=True) for m in range(3)]
    found = ensemble.predict(x, probabilities=True)
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5)
    most = np.array(TASK.classes)[found.argmax(1)]
    np.testing.assert_array_equal(ensemble.predict(x), most)


def test_a_predictor_is_scored_as_evaluate_does(trained):
    metric = trained.evaluate("test").metric
    best = trained.best()
    row = int(np.argmin(trained.validation_loss))
    np.testing.assert_allclose(best.evaluate()["accuracy"], metric[row], rtol=1e-6)


def test_labels_of_every_step_are_scored_as_evaluate_does(standard_promotion):
    x = [np.random.default_rng(n).normal(size=(1 + n % 5, 2)) for n in range(12)]
    tags = [np.where(row[:, 0] > 0, "up", "down") for row in x]
    task = lj.tasks.Labelling(lj.data.Sequences(x, tags).split(validation=0.0, test=0.5))
    model = lj.nn.SequenceSpec(lj.cells.RNN(2))
    result = lj.fit(task, model, epochs=1, batch_size=4, **QUIET)
    found = result.best(by="train").evaluate("test")["accuracy"]
    np.testing.assert_allclose(found, result.evaluate("test").metric[0], rtol=1e-6)


def test_a_saved_predictor_predicts_the_same_bits_in_a_new_process(trained, tmp_path):
    x = np.random.default_rng(7).normal(size=(5, T, 2)).astype(np.float32)
    trained.ensemble().save(tmp_path / "model")
    np.save(tmp_path / "x.npy", x)
    script = (
        "import sys, numpy as np, lstm_jax as lj; d = sys.argv[1]\n"
        "p = lj.load(d + '/model').predict(np.load(d + '/x.npy'), probabilities=True)\n"
        "np.save(d + '/p.npy', p)"
    )
    run([sys.executable, "-c", script, str(tmp_path)], check=True)
    expected = trained.ensemble().predict(x, probabilities=True)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected)
    with pytest.raises(FileExistsError):
        trained.best().save(tmp_path / "model")


def test_answers_at_every_time_step_end_with_their_row(standard_promotion):
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(n, 2)) for n in (3, 5, 6, 4) * 5]
    y = [np.where(row[:, 0] > 0, "u", "d") for row in x]
    task = lj.tasks.Labelling(lj.data.Sequences(x, y).split())
    best = lj.fit(task, MODEL, epochs=1, **QUIET).best()
    assert [len(row) for row in best.predict(x)] == [len(row) for row in x]
    assert best.predict(np.zeros((3, 6, 2))).shape == (3, 6)


def test_a_saved_predictor_has_no_rows_and_says_so(trained, tmp_path):
    trained.best().save(tmp_path / "model")
    again, x = lj.load(tmp_path / "model"), TASK.arrays()["x"][:9]
    with pytest.raises(
        ValueError, match="data with targets: a saved predictor has no split, such as 'test'"
    ):
        again.evaluate()
    y = again.predict(x)
    assert again.evaluate(lj.data.Sequences(x, y))["accuracy"] == 1.0


def test_without_validation_best_says_what_to_do():
    result = lj.fit(TASK, MODEL, steps=2, **QUIET)
    with pytest.raises(ValueError, match="by must be 'train' where nothing was validated"):
        result.best()
    assert len(result.best(by="train")) == 1
    assert len(repr(result)) < 500
