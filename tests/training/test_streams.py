"""Learning on streams: windows that go on where the last one ended, with the model's state."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax import evaluate, fit, make_trials
from lstm_jax.nn.initializers import identity
from lstm_jax.runs.directory import GroupLog
from lstm_jax.tasks import SPLITS, LanguageModel, language_model
from lstm_jax.tasks.base import Task, weighted_mean
from lstm_jax.training.loop import Job
from lstm_jax.training.trials import keys
from lstm_jax.types import Batch
from tests.toys import Eager, Elman, Line

pytestmark = pytest.mark.usefixtures("standard_promotion")

WORDS = "the cat sat on the mat, and the dog sat on the cat. "
TEXT = 2 * WORDS
TASK = LanguageModel(TEXT, window=5)  # 94 symbols train: of 2 rows each names 46
MODEL = lj.nn.SequenceSpec(
    lj.cells.LSTM(4), TASK.input_size, TASK.output_size, "every", front="embed", front_width=5,
    w_x=identity(), w_h=identity(0.5), learn_initial=True, engine="reference",
)  # fmt: skip
WINDOWS = 12  # over the end of the rows and on
SGD: dict[str, Any] = dict(batch_size=2, optimizer="sgd", progress=False)
STILL = 1e-30  # a learning rate that changes no float32


def pick(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def assert_same(one, other):
    """Bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, one, other)


@functools.cache
def windows(seed: int) -> list[Batch]:
    """The first windows of a trial's stream."""
    cursor = TASK.begin(keys(pick(make_trials(seed=seed), 0)).data, 2)
    _, batches = jax.jit(lambda c: jax.lax.scan(lambda c, _: TASK.next(c), c, length=WINDOWS))(
        cursor
    )
    return [pick(batches, n) for n in range(WINDOWS)]


def one_batch(batches: list[Batch]) -> Batch:
    x, y, _, reset = zip(*batches, strict=True)
    return Batch(*map(jnp.concatenate, (x, y)), reset=jnp.concatenate(reset))


def spelt(x: Any) -> str:
    return "".join(TASK.vocabulary.symbols[n] for n in np.asarray(x))


# The text. ----------------------------------------------------------------------------------------


def test_windows_are_the_parts_of_the_text_in_a_row_with_a_reset_where_a_part_begins() -> None:
    batch = one_batch(windows(3))
    x, y, reset = (np.asarray(leaf) for leaf in (batch.x, batch.y, batch.reset))
    (begins,) = np.flatnonzero(reset[:, 0])
    for row, first in enumerate([0, 46]):
        part = TEXT[first : first + 47]
        read, asked = spelt(x[:, row]), spelt(y[:, row])
        assert read[begins:] == part[: len(read) - begins]
        assert asked[begins:] == part[1 : len(read) - begins + 1]
        assert read[:begins] == part[46 - begins : 46]  # as many as were left of its first reading
        assert reset[:, row].sum() == 1


def test_splits_share_the_text_out_and_are_asked_whole() -> None:
    read = [TASK.examples(split) for split in SPLITS]
    told = [spelt(batch.x[:, 0]) + TASK.vocabulary.symbols[int(batch.y[-1, 0])] for batch in read]
    assert "".join(told) == TEXT
    assert [len(t) for t in told] == [94, 5, 5]
    for batch in read:
        x, y = np.asarray(batch.x), np.asarray(batch.y)
        np.testing.assert_array_equal(x[1:, 0], y[:-1, 0])
    assert TASK.chance == TEXT[:94].count(" ") / 94


def test_a_text_is_a_value_and_says_little() -> None:
    again = LanguageModel(2 * WORDS, window=5)
    assert again == TASK and hash(again) == hash(TASK) and repr(again) == repr(TASK)
    assert repr(LanguageModel(WORDS + WORDS.upper(), 5)) != repr(TASK)
    assert len(repr(TASK)) < 80 and "cat" not in repr(TASK)
    assert lj.tasks.LanguageModel(text=2 * WORDS, window=5) == TASK


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LanguageModel("short"),
            "text must be long enough for two symbols of validation, got 5 symbols",
        ),
        (lambda: LanguageModel(WORDS, window=0), "window must be an integer of at least 1, got 0"),
        (
            lambda: TASK.begin(jax.random.key(0), 94),
            "batch_size must be at most 93 for LanguageModel",
        ),
        (lambda: TASK.begin(jax.random.key(0), 2, "tset"), "split must be one of train, val"),
    ],
)
def test_bad_arguments_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# Learning. ----------------------------------------------------------------------------------------


def test_windows_at_rest_have_the_losses_of_one_long_unroll() -> None:
    trials = make_trials(seed=[3, 4], learning_rate=STILL)
    results = {steps: fit(TASK, MODEL, trials, steps, **SGD) for steps in (2, WINDOWS)}
    for i in range(2):
        trial, batch = pick(trials, i), one_batch(windows(3 + i))
        params = jax.jit(MODEL.init)(keys(trial).init)
        outputs = jax.jit(MODEL.apply)(params, batch.x, reset=batch.reset)
        each = [TASK.loss(outputs[5 * n : 5 * n + 5], w) for n, w in enumerate(windows(3 + i))]
        for steps, result in results.items():
            np.testing.assert_allclose(result.loss[i], np.mean(each[:steps]), rtol=1e-6)
        # Without its state a window's loss is another.
        second = windows(3 + i)[1]
        alone = TASK.loss(jax.jit(MODEL.apply)(params, second.x), second)
        assert abs(alone - each[1]) > 1e-4 * each[1]


def test_gradients_are_those_of_windows_with_the_state_stopped_at_the_seams() -> None:
    trials = make_trials(seed=3, learning_rate=0.5)
    result = fit(TASK, MODEL, trials, WINDOWS, batching="vmap", **SGD)  # devices share the batch
    trial = pick(trials, 0)
    params = jax.jit(MODEL.init)(keys(trial).init)
    state = MODEL.initial_state(params, 2)

    @jax.jit
    def slope(params, state, batch):
        def loss(params, state):
            after, outputs = MODEL.unroll(params, batch.x, state, reset=batch.reset)
            return TASK.loss(outputs, batch), after

        return jax.grad(loss, has_aux=True)(params, jax.lax.stop_gradient(state))

    for batch in windows(3):
        grads, state = slope(params, state, batch)
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)
    for found, expected in zip(*map(jax.tree.leaves, (result.params, params)), strict=True):
        np.testing.assert_allclose(pick(found, 0), expected, rtol=1e-4, atol=1e-6)
    (initial,) = result.params["stack"]["layers"]
    assert np.abs(initial["initial"]["c"]).min() > 0  # learned where a sequence began


def test_gradients_of_a_window_with_seams_add_up_over_its_parts() -> None:
    """With the state stopped at the seams, one long loss has the windows' gradients as its own."""
    batches = windows(3)[:3]
    trial = pick(make_trials(seed=3), 0)
    params = jax.jit(MODEL.init)(keys(trial).init)

    def loss(params, state, batch):
        after, outputs = MODEL.unroll(params, batch.x, state, reset=batch.reset)
        return TASK.loss(outputs, batch) / len(batches), after

    @jax.jit
    def results(params):
        def through(params, at_seams):
            state, total = MODEL.initial_state(params, 2), 0.0
            for batch in batches:
                part, state = loss(params, at_seams(state), batch)
                total += part
            return total

        stopped = jax.grad(through)(params, jax.lax.stop_gradient)
        whole = jax.grad(through)(params, lambda state: state)
        state, parts = MODEL.initial_state(params, 2), []
        for batch in batches:
            part, state = jax.grad(loss, has_aux=True)(params, state, batch)
            parts.append(part)
        return stopped, jax.tree.map(lambda *leaves: sum(leaves), *parts), whole

    stopped, added, whole = results(params)
    for a, b in zip(*map(jax.tree.leaves, (stopped, added)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    cell = (tree["stack"]["layers"][0]["w_h"] for tree in (stopped, whole))
    assert np.abs(np.subtract(*cell)).max() > 1e-5


def test_a_trial_of_a_batch_is_the_trial_alone_and_one_that_diverges_is_frozen() -> None:
    trials = make_trials(seed=[3, 4, 5], learning_rate=[0.5, 3e38, 0.1])
    steps = WINDOWS
    together = fit(TASK, MODEL, trials, steps, batching="map", **SGD)
    assert together.status.tolist() == ["finished", "diverged", "finished"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(together.params))
    alone = fit(TASK, MODEL, pick(trials, [2]), steps, batching="map", **SGD)
    assert_same(pick(together, [2]), alone)
    mapped = fit(TASK, MODEL, trials, steps, batching="vmap", **SGD)
    np.testing.assert_allclose(mapped.loss[[0, 2]], together.loss[[0, 2]], rtol=1e-4)
    assert mapped.status.tolist() == together.status.tolist()


class Stop(BaseException):
    """Stands for whatever ends a process."""


def test_a_stream_goes_on_from_a_checkpoint_to_the_same_bytes(tmp_path, monkeypatch) -> None:
    trials = make_trials(seed=[3, 4], learning_rate=0.5)

    def train_in(path):
        begun = (path / "config.json").exists()
        make = Eager.resume if begun else Eager.create
        run = make(path, {"who": "x"})
        result = fit(TASK, MODEL, trials, 20, chunk=4, run=run, **SGD)
        return result, (path / "records.jsonl").read_bytes()

    original, count = GroupLog.checkpoint, iter(range(1000))

    def interrupted(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if next(count) == 3:
            raise Stop

    monkeypatch.setattr(GroupLog, "checkpoint", interrupted)
    with pytest.raises(Stop):
        train_in(tmp_path / "a")
    monkeypatch.undo()
    starts = []
    original_start = Job._start

    def spied(self, *args):
        step, state = original_start(self, *args)
        starts.append((step, self.layout.gather(state.carried)))
        return step, state

    monkeypatch.setattr(Job, "_start", spied)
    resumed, undisturbed = train_in(tmp_path / "a"), train_in(tmp_path / "b")
    assert resumed[1] == undisturbed[1]
    assert_same(resumed[0], undisturbed[0])
    (step, carried), (zero, fresh) = starts
    assert 0 == zero < step < 20
    expected = (fresh.cursor.offset + 5 * step) % fresh.cursor.size
    np.testing.assert_array_equal(carried.cursor.offset, expected)
    assert np.abs(carried.state[0].h).min() > 0 == np.abs(fresh.state[0].h).max()


def test_evaluation_starts_afresh_and_reads_a_split_as_one_sequence() -> None:
    trials = make_trials(seed=[3, 4], learning_rate=0.5)
    result = fit(TASK, MODEL, trials, 4, **SGD)
    asked = evaluate(TASK, MODEL, result.params, trials)
    batch = TASK.examples("test")
    for i in range(2):
        outputs = jax.jit(MODEL.apply)(pick(result.params, i), batch.x)
        np.testing.assert_allclose(asked.loss[i], TASK.loss(outputs, batch), rtol=1e-6)
        np.testing.assert_allclose(asked.metric[i], TASK.metric(outputs, batch), rtol=1e-6)
    assert asked.n.tolist() == [1, 1]


class Measured(lj.nn.SequenceSpec):
    """A model that says how long what it reads is."""

    read: ClassVar[list[int]] = []

    def unroll(self, params: Any, x: Any, *given: Any, **named: Any) -> Any:
        self.read.append(len(x))
        return super().unroll(params, x, *given, **named)


def test_a_text_is_read_in_parts_as_if_it_were_whole(monkeypatch) -> None:
    monkeypatch.setattr(language_model, "PART", 16)
    model = Measured(**{f.name: getattr(MODEL, f.name) for f in dataclasses.fields(MODEL)})
    trials = make_trials(seed=[3, 4])
    params = jax.vmap(MODEL.init)(jax.vmap(jax.random.key)(trials.seed))
    batch = TASK.examples("train")
    outputs = jax.jit(jax.vmap(lambda p: MODEL.apply(p, batch.x)))(params)
    asked = evaluate(TASK, model, params, trials, split="train")
    several = lj.Predictor(TASK, model, params, trials)
    scores = several.evaluate("train")
    assert set(model.read) == {16}
    losses = [TASK.loss(y, batch) for y in outputs]
    np.testing.assert_allclose(asked.loss, losses, rtol=1e-5)
    whole = TASK.scores(np.pad(outputs, ((0, 0), (0, 1), (0, 0), (0, 0))), TASK.rows("train"))
    assert scores == pytest.approx(whole, rel=1e-5)
    said = several.predict(spelt(batch.x[:40, 0]))
    assert "".join(said) == spelt(TASK.log_probabilities(outputs[:, :40]).argmax(-1))


@dataclasses.dataclass(frozen=True)
class Echo(Task):
    """Three rows of 18 time steps; the target is the input, where it is above 0."""

    count: int = 0  # of the parts that the rows are read in
    name, readout = "echo", "every"
    input_size, output_size, length, chance = 1, 1, 18, 0.0

    def sample(self, key, batch_size, split="train"):
        raise NotImplementedError

    def split_size(self, split):
        return 3

    def examples(self, split):
        x = jax.random.normal(jax.random.key(1), (18, 3, 1))
        return Batch(x, x[..., 0], reset=jnp.zeros((18, 3), bool).at[7, 1].set(True))

    def parts(self, data):
        return self.count

    def part(self, data, index):
        cut = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=6 * index, slice_size=6)
        return jax.tree.map(cut, data)

    def weight(self, batch):
        return (batch.y > 0).astype(jnp.float32).sum()

    def loss(self, outputs, batch):
        return weighted_mean((outputs[..., 0] - batch.y) ** 2, (batch.y > 0).astype(jnp.float32))

    def correct(self, outputs, batch):
        return (outputs[..., 0] < 0.3).all(0).astype(jnp.float32)


def test_any_task_is_evaluated_in_parts_as_if_it_were_whole() -> None:
    model = lj.nn.SequenceSpec(lj.cells.LSTM(3), 1, 1, "every")
    trials = make_trials(seed=[0, 1])
    params = jax.vmap(model.init)(jax.vmap(jax.random.key)(trials.seed))
    whole, read = (evaluate(Echo(count), model, params, trials) for count in (0, 3))
    assert np.array_equal(whole.correct, read.correct) and 0 < whole.correct.sum() < 6
    np.testing.assert_allclose(read.loss, whole.loss, rtol=1e-6)
    with pytest.raises(TypeError, match="since echo is read in parts"):
        evaluate(Echo(3), Elman(1, 1), params, trials)


def test_a_model_that_carries_no_state_is_refused_by_name() -> None:
    elman = Elman(TASK.input_size, TASK.output_size)
    with pytest.raises(
        TypeError, match=r"model must have initial_state and unroll.* text is a str"
    ):
        fit(TASK, elman, make_trials(), 1, **SGD)
    both_ways = dataclasses.replace(MODEL, bidirectional=True)
    with pytest.raises(ValueError, match="a Bidirectional layer reads the last time step first"):
        fit(TASK, both_ways, make_trials(), 1, **SGD)
    assert not isinstance(Line(), lj.tasks.Stream)
