"""Agreement: a task, a model and trials that do not fit together are refused by name."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.nn import SequenceSpec
from lstm_jax.tasks import Adding, Recall, base, heads
from lstm_jax.training import fresh, lower
from tests.toys import Line, Slope

ADDING, RECALL = Adding(6), Recall(lag=2, symbols=4)
TRIALS = lj.make_trials(seed=[0, 1])


def spec(task, **changes) -> SequenceSpec:
    sizes: dict[str, Any] = dict(
        input_size=task.input_size, output_size=task.output_size, readout=task.readout
    )
    return SequenceSpec(lj.cells.RNN(2), engine="reference", **sizes | changes)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr": 0.1}, r"fit takes no lr, got lr=0.1: did you mean learning_rate\?"),
        ({"learnin_rate": 0.1}, r"did you mean learning_rate\?"),
        ({"epoch": 3}, r"fit takes no epoch, got epoch=3: did you mean epochs\?"),
        ({"hidden": [4, 8]}, r"got hidden=\[4, 8\]: it belongs to the model; lj.search.sweep"),
        ({"num_layers": 2}, "it belongs to the model"),
        ({"zzz": 2}, "need one of task, model, .*learning_rate"),
    ],
)
def test_an_argument_that_fit_does_not_take_is_refused_with_the_nearest(given, words):
    with pytest.raises(TypeError, match=words):
        lj.fit(ADDING, spec(ADDING), steps=1, **given)


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        (ADDING, {"output_size": 2}, r"put out \[B, V\] = \[16, 1\] for adding, got \[16, 2\]"),
        (ADDING, {"readout": "every"}, r"\[16, 1\] for adding, got \[6, 16, 1\].*readout='last'"),
        (RECALL, {"output_size": 3}, r"\[16, 4\] for recall, got \[16, 3\].*output_size=4"),
        (RECALL, {"input_size": 4}, "input_size of the model must be that of the task, 5, got 4"),
    ],
)
def test_a_model_of_other_sizes_is_refused_before_its_loop_is_compiled(task, changes, words):
    model = spec(task, **changes)
    with pytest.raises(ValueError, match=words):
        lower(task, model, TRIALS, jax.devices())
    params = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))
    with pytest.raises(ValueError, match=words.replace("16", "200")):
        lj.evaluate(task, model, params, TRIALS)


def test_parameters_of_other_trials_are_refused():
    params = {"w": np.ones((3, 1, 1), "f4"), "b": np.zeros((2, 1), "f4")}
    words = r"one row for each of R = 2 trials, got shape \(3, 1, 1\) for params\['w'\]"
    with pytest.raises(ValueError, match=words):
        lj.evaluate(Line(), Slope(), params, TRIALS)
    with pytest.raises(ValueError, match=words):
        fresh(Line(), Slope(), params, TRIALS)


@dataclasses.dataclass(frozen=True)
class Dataset(Line):
    """A task that is compared by an array."""

    data: Any = None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": Line}, "task must be a Task, such as tasks.Recall, got <class"),
        ({"model": lj.cells.LSTM(3)}, r"model must have init and apply, .* got LSTM\(hidden=3\)"),
        ({"model": Slope}, "model must have init and apply"),
        ({"trials": 2}, "trials must be Trials, as make_trials makes them, got 2"),
        ({"loggers": print}, "loggers must be a list of functions, such as .*, got <built-in"),
        ({"run": "dir"}, "run must be a RunDirectory, .* got 'dir'"),
        ({"task": Dataset(data=np.ones(2))}, "task must be hashable, .* got Dataset: unhashable"),
    ],
)
def test_arguments_of_other_kinds_are_refused_by_name(changes, words):
    given: dict[str, Any] = (
        dict(task=Line(), model=Slope(), trials=TRIALS, steps=1, progress=False) | changes
    )
    with pytest.raises(TypeError, match=words):
        lj.fit(**given)
    if changes.keys() <= {"task", "model", "trials"}:
        kinds = {name: given[name] for name in ("task", "model", "trials")}
        with pytest.raises(TypeError, match=words):
            lj.evaluate(params={}, **kinds)


class Pair(Line):
    def sample(self, key, batch_size, split="train"):
        return tuple(super().sample(key, batch_size, split))  # as a Batch is one


class BatchFirst(Line):
    def sample(self, key, batch_size, split="train"):
        batch = super().sample(key, batch_size, split)
        return batch._replace(x=jnp.swapaxes(batch.x, 0, 1))


class Share(Line):
    def correct(self, outputs, batch):
        return super().correct(outputs, batch).mean()


class Whole(Line):
    readout = "all"


class Words(Line):
    input_kind = "words"  # pyright: ignore


@pytest.mark.parametrize(
    ("task", "error", "words"),
    [
        (Pair(), TypeError, "line must give a Batch, .* got a tuple"),
        (BatchFirst(), ValueError, r"x of line must be \[T, B, D\], time first, with B = 10, got"),
        (Share(), ValueError, r"correct of line must be \[B\] = \[10\], got shape \[\]"),
        (Whole(), ValueError, "readout of line must be one of last, every, got 'all'"),
        (Words(), ValueError, "input_kind of line must be one of numbers, symbols, got 'words'"),
    ],
)
def test_a_task_that_breaks_its_interface_is_refused_before_training(task, error, words):
    with pytest.raises(error, match=words):
        lower(task, Slope(), TRIALS, jax.devices(), batch_size=10)
    params = {"w": np.ones((2, 1, 1), "f4"), "b": np.zeros((2, 1), "f4")}
    with pytest.raises(error, match=words):
        lj.evaluate(task, Slope(), params, TRIALS, sequences=10)


@pytest.mark.parametrize(
    ("measure", "given", "words"),
    [
        (base.squared_error, [(4, 1), (4,)], r"targets must have shape \[4, 1\], got \[4\]"),
        (heads.Bernoulli().losses, [(4, 1), (1,)], r"shape \[4\], got \[1\]"),
        (lambda *ys: base.within(0.1, *ys), [(4, 1), (4,)], r"shape \[4, 1\], got \[4\]"),
    ],
)
def test_losses_broadcast_no_targets(measure, given, words):
    with pytest.raises(ValueError, match=words):
        measure(*map(jnp.zeros, given))


@pytest.mark.parametrize("measure", [base.cross_entropies, base.labelled])
def test_labels_are_one_for_each_row_of_logits(measure):
    with pytest.raises(ValueError, match=r"labels must have shape \[4\], got \[1\]"):
        measure(jnp.zeros((4, 3)), jnp.zeros(1, int))
    with pytest.raises(TypeError, match=r"labels must be integers in \[0, 3\), got float32"):
        base.cross_entropies(jnp.zeros((4, 3)), jnp.zeros(4))
