"""Divergence: a trial that cannot go on says why, and one that can is not taken for it."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax import fit, make_trials, result_records
from lstm_jax.tasks import Task, base
from lstm_jax.types import Batch
from tests.toys import Line, Slope

pytestmark = pytest.mark.usefixtures("standard_promotion")

SGD: dict[str, Any] = dict(optimizer="sgd", progress=False)
T, SYMBOLS, LABELS = 3, 6, 4


@dataclasses.dataclass(frozen=True)
class Labelling(Task):
    """Name one of 4 classes of symbols; one entry of a batch is set, in x, y or behind a mask."""

    x: float | None = None
    y: float | None = None
    hidden: bool = False
    symbols: bool = False
    regression: bool = False

    name, readout, chance, input_size, length = "labelling", "last", 0.25, SYMBOLS, T
    output_size: ClassVar = LABELS

    def sample(self, key, batch_size, split="train"):
        x = jax.random.randint(key, (T, batch_size), 0, SYMBOLS)
        x = x if self.symbols else jax.nn.one_hot(x, SYMBOLS)
        y = jax.random.randint(key, (batch_size,), 0, LABELS)
        y = jax.nn.one_hot(y, LABELS) if self.regression else y
        x = x if self.x is None else x.at[-1, 2].set(self.x)
        y = y if self.y is None else y.at[3].set(self.y)
        mask = jnp.ones((T, batch_size), bool)
        return Batch(x, y, mask.at[-1, 2].set(not self.hidden))

    def loss(self, outputs, batch):
        if self.regression:
            return base.squared_error(outputs, batch.y)
        return base.cross_entropy(outputs, batch.y)

    def correct(self, outputs, batch):
        return jnp.zeros(outputs.shape[0])


@dataclasses.dataclass(frozen=True)
class Bag:
    """Outputs are a linear map of the sum of the inputs that the mask shows."""

    def init(self, key, **_):
        return {"w": jax.random.normal(key, (SYMBOLS, LABELS))}

    def apply(self, params, x, *, mask=None, **rest):
        symbols = jnp.issubdtype(x.dtype, jnp.integer)
        rows = jnp.take(params["w"], x, axis=0, mode="fill") if symbols else x @ params["w"]
        return jnp.sum(jnp.where(jnp.asarray(mask)[..., None], rows, 0), axis=0)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (Labelling(x=np.nan), "non-finite inputs in the batch of step 0"),
        (Labelling(x=7, symbols=True), "symbols outside 0..5 in the batch of step 0"),
        (Labelling(x=-100, symbols=True), "symbols outside 0..5 in the batch of step 0"),
        (Labelling(y=4), "labels outside 0..3 in the batch of step 0"),
        (Labelling(y=-1), "labels outside 0..3 in the batch of step 0"),
        (Labelling(y=np.inf, regression=True), "non-finite targets in the batch of step 0"),
    ],
)
def test_data_that_no_model_can_learn_from_are_named(task: Task, reason: str) -> None:
    trials = make_trials(seed=[0, 1])
    with pytest.warns(UserWarning, match=f"2 of 2 trials, .* diverge: {reason}"):
        result = fit(task, Bag(), trials, 3, **SGD)
    assert result.status.tolist() == ["diverged"] * 2 and result.reason.tolist() == [reason] * 2
    records = result_records(trials, result)
    assert [record["reason"] for record in records] == [reason] * 2


@pytest.mark.parametrize("symbols", [False, True])
def test_a_hidden_input_is_at_no_fault(symbols: bool) -> None:
    """Neither does it stop a trial, nor is it named where another number does."""
    hidden = Labelling(x=-7 if symbols else 1e38, hidden=True, symbols=symbols)
    result = fit(hidden, Bag(), make_trials(), 3, **SGD)
    assert result.status.tolist() == ["finished"] and result.reason.tolist() == [""]
    diverged = fit(hidden, Bag(), make_trials(learning_rate=3e38), 3, **SGD)
    assert diverged.status.tolist() == ["diverged"] and "step" in diverged.reason[0]
    assert "batch" not in diverged.reason[0]


class Negative(Labelling):
    """Has no finite loss of any outputs."""

    def loss(self, outputs, batch):
        return jnp.log(-1 - jnp.abs(outputs).sum())


@pytest.mark.parametrize("regression", [False, True])
def test_targets_in_range_are_at_no_fault(regression: bool) -> None:
    result = fit(Negative(regression=regression), Bag(), make_trials(), 3, **SGD)  # warns not
    assert result.reason.tolist() == ["the loss is not finite at step 0"]


class Cusp(Slope):
    """Has a loss, and a gradient that is not finite."""

    def apply(self, params, x, **rest):
        return super().apply(params, x) + jnp.sqrt(0 * params["w"])


@pytest.mark.parametrize("batching", ["map", "vmap"])
def test_learning_that_fails_says_where(batching: str) -> None:
    settings: dict[str, Any] = SGD | {"batching": batching}
    trials = make_trials(learning_rate=[0.1, 3e38, 1e10], init_scale=[1, 1, 1e30])
    result = fit(Line(), Slope(), trials, 5, **settings)
    assert result.reason.tolist() == [
        "",
        "the update of step 0 is not finite",
        "the loss is not finite at step 0",
    ]
    cusp = fit(Line(), Cusp(), make_trials(), 3, **settings)
    assert cusp.reason.tolist() == ["the gradient is not finite at step 0"]


def test_a_batch_at_fault_is_found_at_the_step_that_drew_it() -> None:
    """In a stream, whose batch depends on its cursor, too."""
    text = 50 * "the cat sat on the mat. "

    class Torn(lj.tasks.LanguageModel):
        def begin(self, *args, **kwargs):
            return super().begin(*args, **kwargs)._replace(offset=jnp.int32(0))

        def next(self, *args, **kwargs):
            cursor, batch = super().next(*args, **kwargs)
            return cursor, batch._replace(x=jnp.where(cursor.offset > 17, 99, batch.x))

    task = Torn(text, window=5)
    model = lj.nn.SequenceSpec(lj.cells.RNN(2), front="embed", front_width=2, engine="reference")
    with pytest.warns(UserWarning, match="symbols outside 0..10"):
        result = fit(task, model, make_trials(), 9, batch_size=2, **SGD)
    assert result.reason.tolist() == ["symbols outside 0..10 in the batch of step 3"]


class Steep(Slope):
    """Has outputs 1e25 times as large: gradients are finite, their squares are not."""

    def apply(self, params, x, **rest):
        y = super().apply(params, x)
        return y + 1e25 * (y - jax.lax.stop_gradient(y))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "rmsprop", "adam"])
def test_a_finite_gradient_whose_norm_overflows_is_no_divergence(optimizer: str) -> None:
    """Clipped, it is one of norm 1, as that of the plain slope; Adam takes it as it is."""
    clip: dict[str, Any] = dict(optimizer=optimizer, progress=False)
    trials = make_trials(learning_rate=0.01, clip=1.0, init_scale=0.1)
    steep, flat = (fit(Line(), model, trials, 5, **clip) for model in (Steep(), Slope()))
    assert steep.status.tolist() == ["finished"]
    np.testing.assert_allclose(steep.params["w"], flat.params["w"], rtol=1e-5)
    if optimizer == "adam":
        free = make_trials(learning_rate=0.01)
        steep = fit(Line(), Steep(), free, 5, **clip)
        assert steep.status.tolist() == ["finished"]
        assert np.abs(steep.params["w"] - fit(Line(), Steep(), free, 4, **clip).params["w"]) > 1e-3
