"""Learning from one's own data: arguments, epochs, validation, predictions, saved networks."""

import dataclasses
import functools
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lstm_jax as lj
from lstm_jax.tasks.base import Rows, Target, weighted_mean
from lstm_jax.training import loop
from lstm_jax.training.trials import keys
from lstm_jax.types import Batch
from tests.toys import Slope

pytestmark = pytest.mark.usefixtures("standard_promotion")

N, T = 23, 6
QUIET: dict[str, Any] = dict(progress=False, batching="map")


@dataclasses.dataclass(frozen=True, eq=False)
class Numbered(Rows):
    """Row n has the input n and the target 2 n; rows beyond those of a split never come."""

    count: int = N
    name = "numbered"
    readout = "last"
    input_size, output_size, length, chance = 1, 1, 1, 0.0

    def arrays(self):
        n = np.arange(self.count + 5, dtype=np.int32)
        return {"n": n, "splits": {"train": n[5:], "validation": n[:3], "test": n[3:5]}}

    def batch(self, arrays, index, weight):
        n = jnp.asarray(arrays["n"])[index].astype(jnp.float32)
        return Batch(n[None, :, None], Target(2 * n, weight))

    def loss(self, outputs, batch):
        return weighted_mean((outputs[:, 0] - batch.y.value) ** 2, batch.y.weight)

    def correct(self, outputs, batch):
        return ((jnp.abs(outputs[:, 0] - batch.y.value) < 1) & (batch.y.weight > 0)).astype(
            jnp.float32
        )


def orders(task, epochs, batch_size, seeds=(0, 1), **settings):
    """Returns the rows of each update of each trial, and their weights."""
    seen: list[Any] = []

    class Spied(type(task)):
        def batch(self, arrays, index, weight):
            jax.debug.callback(lambda i, w: seen.append((i.tolist(), w.tolist())), index, weight)
            return super().batch(arrays, index, weight)

    result = lj.fit(
        Spied(task.count), Slope(), epochs=epochs, batch_size=batch_size, seeds=list(seeds),
        optimizer="sgd", learning_rate=1e-9, validate_every=10**6, **QUIET, **settings,
    )  # fmt: skip
    jax.effects_barrier()
    return result, [(i, w) for i, w in seen if len(i) == batch_size]


@pytest.mark.parametrize("batch_size", [4, 23, 30])
def test_every_row_comes_once_before_any_twice(batch_size):
    per = -(-N // batch_size)
    _, seen = orders(Numbered(), 3, batch_size, seeds=[5])
    assert len(seen) == 3 * per
    epochs = [seen[e * per : (e + 1) * per] for e in range(3)]
    rows = [[i for index, w in e for i, v in zip(index, w, strict=True) if v > 0] for e in epochs]
    assert all(sorted(r) == list(range(5, 5 + N)) for r in rows)
    assert rows[0] != rows[1] and rows[1] != rows[2]


def test_the_loss_of_a_short_batch_is_the_mean_of_its_rows():
    """Of 23 rows in batches of 8 the last has 7: its gradient is theirs, whatever fills it up."""
    task = Numbered()
    result, seen = orders(task, 1, 8, seeds=[0])
    index = np.array([i for i, v in zip(*seen[-1], strict=True) if v > 0])
    assert len(index) == 7
    start = jax.tree.map(lambda leaf: leaf[0], result.params)
    w, b = float(start["w"][0, 0]), float(start["b"][0])
    expected = np.mean((w * index + b - 2 * index) ** 2)
    arrays = task.arrays()
    padded, weight = np.r_[index, 0], np.r_[np.ones(7), 0].astype(np.float32)
    batch = task.batch(arrays, padded, weight)
    loss = task.loss(Slope().apply(start, batch.x), batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_epochs_resume_to_the_same_bytes_and_other_data_are_refused(tmp_path, monkeypatch):
    data = sequences(0)
    task = lj.tasks.Classification(data)
    settings: dict[str, Any] = dict(epochs=4, seeds=2, learning_rate=1e-2, patience=9, **QUIET)

    def train(path, task=task):
        make = lj.RunDirectory.resume if path.exists() else lj.RunDirectory.create
        run = make(path, {}, save_seconds=0.0)
        return lj.fit(task, MODEL, run=run, **settings)

    straight = train(tmp_path / "a")
    original, count = loop.Job._snapshot, iter(range(10**6))

    def interrupted(self, state):
        if next(count) == 9:
            raise KeyboardInterrupt
        return original(self, state)

    monkeypatch.setattr(loop.Job, "_snapshot", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="cannot resume with data"):
        train(tmp_path / "b", lj.tasks.Classification(sequences(1)))
    resumed = train(tmp_path / "b")
    jax.tree.map(np.testing.assert_array_equal, resumed, straight)
    files = [(tmp_path / name / "records.jsonl").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def sequences(seed, rows=60):
    """Ragged rows whose label is the sign of their mean."""
    rng = np.random.default_rng(seed)
    x = [rng.normal(rng.choice([-1.0, 1.0]), 1, (rng.integers(3, T + 1), 2)) for _ in range(rows)]
    y = ["up" if row.mean() > 0 else "down" for row in x]
    return lj.data.Sequences(x, y, lengths=None).split(0.2, 0.2)


MODEL = lj.nn.SequenceSpec(lj.cells.LSTM(4))
TASK = lj.tasks.Classification(sequences(0))


def test_new_arrays_of_equal_shapes_compile_nothing_and_are_learnt_from():
    other = lj.tasks.Classification(sequences(3))
    settings: dict[str, Any] = dict(epochs=2, seeds=2, learning_rate=1e-2, **QUIET)
    first = lj.fit(TASK, MODEL, **settings)
    compiled = loop._program.cache_info().misses
    second = lj.fit(other, MODEL, **settings)
    again = lj.fit(TASK, MODEL, **settings)
    assert TASK.static == other.static and loop._program.cache_info().misses == compiled
    assert not np.array_equal(first.loss, second.loss)
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)


SETTINGS = loop.Settings(16, "adam", "map")


def test_the_text_of_a_loop_holds_no_array_of_the_data():
    """Constants of a program stand in its text; its size does not depend on the rows."""
    texts = []
    for rows in (60, 600):
        task = lj.tasks.Classification(sequences(0, rows))
        lowered = lj.training.lower(task, MODEL, lj.make_trials(), jax.devices())
        texts.append(len(lowered.run.as_text()))
    assert abs(texts[0] - texts[1]) < 500


def unpredictable():
    """Rows whose labels have nothing to do with them: what is learnt of them validates badly."""
    split = sequences(4)
    y = np.random.default_rng(0).choice(["up", "down"], len(split.data))
    return lj.tasks.Classification(
        lj.data.Split.of(dataclasses.replace(split.data, y=y), split.rows)
    )


def test_the_best_parameters_are_those_of_the_least_validation_loss():
    """Of trainings of 1 to 6 epochs, each validated by `evaluate`."""
    settings: dict[str, Any] = dict(seeds=2, learning_rate=0.1, **QUIET)
    task = unpredictable()
    whole = lj.fit(task, MODEL, epochs=6, **settings)
    losses, params = [], []
    for epochs in range(1, 7):
        part = lj.fit(task, MODEL, epochs=epochs, validate_every=10**6, **settings)
        params.append(jax.tree.map(np.asarray, part.state.params))
        trials = part.trials
        losses.append(lj.evaluate(task, MODEL, part.state.params, trials, split="validation").loss)
    best = np.argmin(losses, axis=0)
    assert (best < 5).any()
    np.testing.assert_allclose(whole.validation_loss, np.min(losses, axis=0), rtol=1e-5)
    per = loop.Job(task, MODEL, whole.trials, SETTINGS).settings.batch_size
    np.testing.assert_array_equal(whole.best_step, (best + 1) * -(-36 // per))
    for i, epoch in enumerate(best):
        jax.tree.map(
            lambda leaf, kept, i=i: np.testing.assert_allclose(leaf[i], kept[i], rtol=1e-5),
            params[epoch], whole.params,
        )  # fmt: skip


def test_patience_stops_a_trial_and_a_plateau_slows_it():
    """With a learning rate too small to change anything no validation is better than the first."""
    settings: dict[str, Any] = dict(epochs=30, seeds=1, learning_rate=1e-30, **QUIET)
    per = 3
    stopped = lj.fit(TASK, MODEL, patience=4, **settings)
    assert stopped.status.tolist() == ["stopped"] and stopped.step.tolist() == [5 * per]
    assert stopped.best_step.tolist() == [per]
    slowed = lj.fit(TASK, MODEL, plateau=3, factor=0.1, **settings)
    assert slowed.status.tolist() == ["finished"]
    best: Any = slowed.state.best
    np.testing.assert_allclose(best.rate, 0.1**9, rtol=1e-5)


def test_a_reduced_learning_rate_makes_smaller_updates():
    """Reduced to next to nothing, it leaves the parameters where they are."""
    settings: dict[str, Any] = dict(
        seeds=1, learning_rate=0.1, plateau=1, factor=1e-12, patience=50, **QUIET
    )
    task = unpredictable()
    before, after = (lj.fit(task, MODEL, epochs=n, **settings) for n in (8, 10))
    best: Any = before.state.best
    assert best.rate < 1e-10 and before.step < after.step
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        before.state.params, after.state.params,
    )  # fmt: skip


def test_an_optimiser_is_any_function_of_a_trial():
    def lion(trial):
        return optax.lion(trial.learning_rate, b1=trial.b1)

    settings: dict[str, Any] = dict(epochs=3, seeds=1, learning_rate=[1e-3, 1e-2], **QUIET)
    named, own, same = (
        lj.fit(TASK, MODEL, optimizer=o, **settings)
        for o in ("sgd", lion, lambda trial: optax.sgd(trial.learning_rate))
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        named.params, same.params,
    )  # fmt: skip
    assert not np.allclose(own.loss, named.loss)
    with pytest.raises(TypeError, match="optimizer must be a name or a function of a trial"):
        lj.fit(TASK, MODEL, optimizer=optax.sgd(0.1), **settings)  # pyright: ignore


def test_averaged_parameters_are_the_mean_of_the_last():
    """With a decay of nearly 1 it is the mean of all parameters so far."""
    settings: dict[str, Any] = dict(seeds=1, learning_rate=0.1, validate_every=10**6, **QUIET)
    steps = [lj.fit(TASK, MODEL, steps=n, **settings).state.params for n in (1, 2, 3)]
    averaged = lj.fit(TASK, MODEL, steps=3, average=1 - 1e-7, **settings)
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *steps)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        averaged.state.average, mean,
    )  # fmt: skip


@functools.cache
def train():
    return lj.fit(TASK, MODEL, epochs=8, seeds=3, learning_rate=0.03, **QUIET)


@pytest.fixture
def trained(standard_promotion):
    return train()


def test_predictions_do_not_depend_on_how_rows_are_batched_or_padded(trained):
    x = [np.asarray(row) for row in np.random.default_rng(5).normal(size=(9, T, 2))]
    x = [row[: 1 + n % T] for n, row in enumerate(x)]
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
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    expected = trained.ensemble().predict(x, probabilities=True)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected)
    with pytest.raises(FileExistsError):
        trained.best().save(tmp_path / "model")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (dict(steps=1, epochs=1), ValueError, "one of steps and epochs"),
        (dict(), ValueError, "one of steps and epochs"),
        (dict(epochs=0), ValueError, "epochs must be an integer of at least 1, got 0"),
        (dict(epochs=1, seeds=0), ValueError, "seeds must be a number of at least 1"),
        (dict(epochs=1, seeds=[1, 2, 1]), ValueError, "seeds must differ"),
        (dict(epochs=1, validate_every=0), ValueError, "validate_every must be an integer of at"),
        (dict(epochs=1, seeds=[-1]), ValueError, "seed must be a whole number"),
        (dict(epochs=1, factor=1.5), ValueError, r"factor must be in \(0, 1\), got 1.5"),
        (dict(epochs=1, average=1.0), ValueError, "average must be a decay"),
        (dict(epochs=1, patience=0), ValueError, "patience must be an integer of at least 1"),
        (dict(steps=1, patience=2), ValueError, "patience=2 needs validate_every"),
        (dict(epochs=1, learning_rte=1.0), TypeError, "learning_rte"),
        (dict(epochs=1, trials=lj.make_trials(), seeds=2), ValueError, "seeds must be given in"),
        (dict(epochs=1, warmup=0), ValueError, "warmup must be positive"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(given, error, words):
    with pytest.raises(error, match=words):
        lj.fit(TASK, MODEL, **given, **QUIET)


def test_epochs_need_rows():
    with pytest.raises(ValueError, match="epochs need a task with rows of data, recall has none"):
        lj.fit(lj.tasks.make("recall", lag=3), MODEL, epochs=1)


def test_a_text_is_predicted_and_scored_as_it_is_evaluated_and_saved(tmp_path):
    task = lj.tasks.LanguageModel(lj.data.Text("the cat sat on the mat. " * 20), window=8)
    model = lj.nn.SequenceSpec(lj.cells.RNN(4))
    result = lj.fit(task, model, steps=2, batch_size=4, seeds=2, progress=False)
    bits = result.evaluate("test").loss / np.log(2)
    for m, one in enumerate(bits):
        params, trials = jax.tree.map(lambda leaf, m=m: leaf[[m]], (result.params, result.trials))
        scores = lj.Predictor(task, result.model, params, trials).evaluate("test")
        np.testing.assert_allclose(scores["bits per character"], one, rtol=1e-5)
    both = result.ensemble()
    both.save(tmp_path / "model")
    loaded, text = lj.load(tmp_path / "model"), "that seat"
    p = loaded.predict(text, probabilities=True)
    np.testing.assert_array_equal(p, both.predict(text, probabilities=True))
    assert "".join(loaded.predict(text)) == task.vocabulary.decode(p.argmax(-1))
    np.testing.assert_allclose(loaded.predict(text[:5], probabilities=True), p[:5], rtol=1e-5)
    with pytest.raises(ValueError, match="x must have rows"):
        loaded.predict("")
    assert loaded.generate("the", 9, seed=3) == both.generate("the", 9, seed=3)
    assert loaded.evaluate("the seat is") == both.evaluate("the seat is")


def test_a_text_that_tests_is_scored_as_any_other_text():
    one, other = writer(), "the mat sat. " * 3
    text = lj.data.Text("the cat sat on the mat. " * 20, test=other)
    task = lj.tasks.LanguageModel(text, window=8)
    tested = lj.Predictor(task, one.model, one.params, one.trials)
    assert tested.evaluate("test") == one.evaluate(other)
    with pytest.raises(TypeError, match="text must be a string for level='char', got Text"):
        one.evaluate(text)


@functools.cache
def writer(members=2):
    """Untrained networks whose next symbols are far from equally probable, and their task."""
    task = lj.tasks.LanguageModel("the cat sat on the mat. " * 20, window=8)
    model = lj.nn.SequenceSpec(lj.cells.RNN(6)).sized(task)
    trials = lj.make_trials(seed=list(range(members)), init_scale=4.0)
    params = jax.vmap(lambda seed: model.init(jax.random.key(seed), scale=4.0))(trials.seed)
    return lj.Predictor(task, model, params, trials)


def test_a_generated_text_is_what_predictions_say_symbol_by_symbol():
    one, text = writer(), "that s"
    greedy = one.generate(text, 6, temperature=1e-4)
    for symbol in greedy:
        assert one.predict(text)[-1] == symbol
        text += symbol
    assert one.generate("that\N{SNOWMAN} s", 6, temperature=1e-4) == one.generate(
        "that s", 6, temperature=1e-4
    )


def test_symbols_are_drawn_with_their_probabilities_at_a_temperature():
    one, symbols = writer(), writer().task.vocabulary.symbols
    p = one.predict("the c", probabilities=True)[-1] ** (1 / 4)
    drawn = "".join(one.generate("the c", 1, temperature=4.0, seed=n) for n in range(400))
    share = np.array([drawn.count(symbol) for symbol in symbols]) / len(drawn)
    np.testing.assert_allclose(share, p / p.sum(), atol=4 * 0.5 / 20)
    assert one.generate("the", 20, seed=1) != one.generate("the", 20, seed=2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(prompt="", length=3), "prompt must have a symbol of the training part, got ''"),
        (
            dict(prompt="漢字", length=3),
            "prompt must have a symbol of the training part, got '漢字'",
        ),
        (dict(prompt="t", length=0), "length must be an integer of at least 1, got 0"),
        (dict(prompt="t", length=1, temperature=0.0), "temperature must be positive and finite"),
    ],
)
def test_a_text_that_cannot_be_generated_is_refused_by_name(given, words):
    with pytest.raises(ValueError, match=words):
        writer().generate(**given)


class Files:
    """Rows that are read one by one; which, and how often, is on record."""

    def __init__(self, rows):
        self.rows, self.read = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.read.append(index)
        return self.rows[index]


def files(seed, rows=37):
    rng = np.random.default_rng(seed)
    x = [rng.normal(rng.choice([-1.0, 1.0]), 1, (rng.integers(3, T + 1), 2)) for _ in range(rows)]
    return Files([(row, "up" if row.mean() > 0 else "down") for row in x])


def test_a_source_is_read_in_epochs_and_trained_on_as_its_rows_are():
    """The update after each batch is the one that the loss of those rows makes."""
    source = files(8)
    settings: dict[str, Any] = dict(
        seeds=1, learning_rate=0.1, optimizer="sgd", batch_size=8, **QUIET
    )
    result = lj.fit(TASK, MODEL, source=source, epochs=2, **settings)
    assert result.step.tolist() == [2 * 5]
    assert len(source.read) < 5 * 32 * 8  # a block of 32 batches is read once by each reader
    spec: Any = result.model
    trial = jax.tree.map(lambda leaf: leaf[0], result.trials)
    params = spec.init(keys(trial).init)
    for step in range(10):
        epoch, part = divmod(step, 5)
        order = np.random.default_rng([epoch]).permutation(37)[part * 8 : part * 8 + 8]
        arrays = TASK.encode_rows([source.rows[i] for i in order])
        batch = TASK.batch(arrays, jnp.arange(len(order)), jnp.ones(len(order)))

        def loss(params, batch=batch):
            return TASK.loss(spec.apply(params, batch.x, mask=batch.mask), batch)

        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-5),
        result.state.params, params,
    )  # fmt: skip


def test_training_on_a_source_goes_on_at_the_next_batch(tmp_path, monkeypatch):
    settings: dict[str, Any] = dict(steps=70, seeds=2, learning_rate=1e-2, batch_size=4, **QUIET)

    def train(path, source):
        make = lj.RunDirectory.resume if path.exists() else lj.RunDirectory.create
        run = make(path, {}, save_seconds=0.0)
        return lj.fit(TASK, MODEL, source=source, run=run, **settings)

    straight = train(tmp_path / "a", files(8))
    original, count = loop.Job._snapshot, iter(range(10**6))

    def interrupted(self, state):
        if next(count) == 6:
            raise KeyboardInterrupt
        return original(self, state)

    monkeypatch.setattr(loop.Job, "_snapshot", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", files(8))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="cannot resume with source"):
        train(tmp_path / "b", files(9))
    resumed = train(tmp_path / "b", files(8))
    jax.tree.map(np.testing.assert_array_equal, resumed, straight)


@pytest.mark.parametrize(
    ("task", "source", "words"),
    [
        (TASK, [], "source must have rows, got none"),
        (TASK, 3, "source must have __len__ and __getitem__, got 3"),
        (TASK, [np.zeros((3, 2))], r"source must give pairs \(x, y\), got"),
        (TASK, [(np.zeros((9, 2)), "up")], "source must give rows of at most 6 time steps"),
        (lj.tasks.make("recall", lag=3), [(np.zeros((3, 2)), "up")], "source needs a task over"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(task, source, words):
    with pytest.raises((ValueError, TypeError), match=words):
        lj.fit(task, MODEL, source=source, steps=1, **QUIET)


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


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("loss", r"loss of numbered must be a scalar, got shape \[4\]"),
        ("metric", r"metric of numbered must be a scalar, got shape \[4\]"),
        ("correct", r"correct of numbered must be \[B\] = \[2\], got shape \[\]"),
    ],
)
def test_measures_of_another_shape_are_refused_by_name(method, words):
    class Wrong(Numbered):
        pass

    shape = () if method == "correct" else (4,)
    setattr(Wrong, method, lambda self, outputs, batch: jnp.zeros(shape))

    def train_and_ask():
        lj.fit(Wrong(), Slope(), steps=1, batch_size=4, **QUIET).evaluate("test")

    with pytest.raises(ValueError, match=words):
        train_and_ask()
