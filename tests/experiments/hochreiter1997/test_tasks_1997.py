"""The problems of 1997: every row by a reader that knows only the rule; chance; the criteria."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from experiments.hochreiter1997 import tasks
from experiments.hochreiter1997.tasks import Criterion
from experiments.hochreiter1997.tasks.losses import half_squared_error
from tests.products import mostly_slow

N = 20_000
EVERY = [
    tasks.TwoStrings(6),
    tasks.TwoStrings(6, noisy=True),
    tasks.RandomLag(5, 4),
    *(tasks.TwoSequences(20, 3, form) for form in ("3a", "3b", "3c")),
    tasks.AddingOnline(20),
    tasks.AddingOnline(20, logistic=True),
    tasks.MultiplyingOnline(20),
    tasks.TemporalOrder(2),
    tasks.TemporalOrder(3),
    tasks.ReberOnline(1),
]
ENDLESS = [task for task in EVERY if task.name != "reber_online"]
every_task = pytest.mark.parametrize("task", EVERY, ids=repr)
ONE_EACH = list({task.name: task for task in EVERY}.values())  # the last form of each


@functools.cache
def draw(task, n: int = N) -> Any:
    """n sequences as NumPy arrays."""
    sample = jax.jit(task.sample, static_argnums=(1, 2))
    return jax.tree.map(np.asarray, sample(jax.random.key(0), n, "train"))


def near(hits, p: float, n: int = N) -> bool:
    """Whether counts agree with a probability to four standard errors."""
    counts = np.asarray(hits, float)
    share = counts / n if counts.size and counts.max(initial=0) > 1 else counts.mean()
    return bool(np.all(np.abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / n) + 1e-9))


def near_mean(values, expected: float) -> bool:
    return bool(abs(values.mean() - expected) < 4.5 * values.std() / np.sqrt(len(values)) + 1e-6)


def logit(p):
    return np.log(p) - np.log1p(-p)


def symbols(batch: Any) -> np.ndarray:
    """[T, B] the place of the 1 in each one-hot input, -1 where there is none."""
    assert set(np.unique(batch.x)) <= {0.0, 1.0}
    assert batch.x.sum(-1).max() == 1
    return np.where(batch.x.sum(-1) == 1, batch.x.argmax(-1), -1)


@every_task
def test_a_task_is_a_value_with_the_sizes_it_states(task):
    batch = draw(task, 5)
    rows = 5 + 64 * (task.name == "reber_online")
    assert batch.x.shape == (task.length, rows, task.input_size)
    assert batch.x.dtype == np.float32
    assert batch.reset is None
    assert batch.mask is None or batch.mask.dtype == bool
    again = type(task)(**task.__dict__)
    assert again == task and hash(again) == hash(task)


@pytest.mark.parametrize("task", mostly_slow(ONE_EACH, ONE_EACH[::3]), ids=repr)
def test_sampling_is_pure_splits_differ_and_vmap_is_many_calls(task):
    @jax.jit
    def draws(keys):
        together = jax.vmap(lambda key: task.sample(key, 4))(keys)
        return together, [task.sample(keys[0], 4, split) for split in lj.tasks.SPLITS]

    together, alone = draws(jax.random.split(jax.random.key(1), 2))
    for one, other in zip(*map(jax.tree.leaves, (together, alone[0])), strict=True):
        np.testing.assert_array_equal(one[0], other)
    drawn = [np.asarray(batch.x)[:, :4] for batch in alone]
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    with pytest.raises(ValueError, match="split must be one of train, validation, test"):
        task.sample(jax.random.key(0), 2, "tset")


@every_task
def test_correct_is_a_small_deviation_and_solved_asks_the_criterion(task):
    batch = draw(task, 5)
    rows = batch.x.shape[1]
    time = (task.length,) if task.readout == "every" else ()
    rng = np.random.default_rng(0)
    outputs: Any = rng.normal(size=(*time, rows, task.output_size)).astype(np.float32) * 8
    deviation = np.asarray(task.deviation(outputs, batch))
    assert deviation.shape == (rows,)
    right: Any = np.asarray(task.correct(outputs, batch))
    np.testing.assert_array_equal(right, deviation < task.criterion.tolerance)
    good = jnp.zeros((2, task.criterion.window)).at[1].set(2.0)
    assert jax.vmap(task.solved)(lj.tasks.Stats(good[:, 0], good[:, 0], good)).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("task", "criterion"),
    [
        (tasks.ReberOnline(1), (48 * 65, 0.5, 0, np.inf)),
        (tasks.TwoStrings(6), (10_000, 0.25, 0, np.inf)),
        (tasks.RandomLag(5, 4), (10_000, 0.2, 0, np.inf)),
        (tasks.TwoSequences(20, 3, "3a"), (256, 0.2, 0, 0.01)),
        (tasks.TwoSequences(20, 3, "3b"), (256, 0.2, 5, 0.04)),
        (tasks.TwoSequences(20, 3, "3c"), (256, 0.1, 0, 0.015)),
        (tasks.AddingOnline(20), (2000, 0.04, 0, 0.01)),
        (tasks.MultiplyingOnline(20, wrong=13), (2000, 0.04, 12, np.inf)),
        (tasks.TemporalOrder(2), (2000, 0.3, 0, 0.1)),
    ],
    ids=repr,
)
def test_criteria_are_those_of_the_paper(task, criterion):
    """Window, tolerance, how many may be wrong, mean; of ReberOnline as its docstring says."""
    assert tuple(task.criterion) == criterion


def test_one_output_that_is_off_makes_an_answer_wrong():
    for task in (tasks.RandomLag(5, 4), tasks.TemporalOrder(2)):
        batch = draw(task, 3)
        y = np.eye(task.output_size)[batch.y] * 0.98 + 0.01
        y[0, batch.y[0]], y[1, batch.y[1] - 1] = 0.3, 0.6  # what is too low, what is too high
        deviation = task.deviation(logit(np.float32(y)), batch)
        np.testing.assert_allclose(deviation, [0.7, 0.6, 0.01], atol=1e-6)


def test_a_criterion_is_its_sentence():
    rng = np.random.default_rng(0)
    for _ in range(200):
        recent = rng.uniform(0, 0.3, 6).astype(np.float32)
        for allowed, mean in ((0, np.inf), (2, np.inf), (6, 0.15), (2, 0.12)):
            criterion = Criterion(6, 0.25, allowed, mean)
            wanted = sum(d >= 0.25 for d in recent) <= allowed and np.mean(recent) < mean
            assert bool(criterion.met(jnp.asarray(recent))) == wanted
    assert not Criterion(3, 0.25, allowed=0).met(jnp.array([0, 0, jnp.inf]))  # not full yet
    assert not Criterion(2, 0.25).met(jnp.array([0, 0.25])), "right is below the tolerance"


def test_the_gradient_of_the_loss_is_the_error():
    """What a learning rate of 1997 multiplies: (y - t), one sequence an update."""
    for task in ENDLESS:
        batch = draw(task, 1)
        time = (task.length,) if task.readout == "every" else ()
        outputs: Any = np.random.default_rng(1).normal(size=(*time, 1, task.output_size))
        outputs = outputs.astype(np.float32)
        y = outputs.astype(np.float64)
        linear, slope = not getattr(task, "logistic", True), np.ones_like(y)
        if not linear:
            y = 1 / (1 + np.exp(-y))
            slope = y * (1 - y)
        taught = batch.y.taught if hasattr(batch.y, "taught") else batch.y
        if taught.dtype == np.int32:
            targets = np.eye(task.output_size)[taught]
        else:
            targets = np.asarray(taught, np.float64)[..., None]
        loss, gradient = jax.jit(jax.value_and_grad(task.loss))(outputs, batch)
        np.testing.assert_allclose(gradient, (y - targets) * slope, rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(loss, ((y - targets) ** 2).sum() / 2, rtol=1e-5)
    errors = jnp.array([[1.0, 2.0], [0.0, 4.0]])
    assert half_squared_error(errors, jnp.zeros((2, 2))) == (1 + 4 + 16) / 4


@pytest.mark.parametrize("noisy", [False, True])
def test_two_strings_end_as_they_begin(noisy):
    task = tasks.TwoStrings(6, noisy)
    batch, x = draw(task), symbols(draw(task))
    assert batch.mask is None and x.min() >= 0
    np.testing.assert_array_equal(x[1:], batch.y[:-1])  # the next symbol, at every step
    np.testing.assert_array_equal(x[0], batch.y[-1])
    assert set(np.unique(x[0])) == {5, 6}
    assert near((x[0] == 5).sum(), 0.5)
    if noisy:
        assert all(near((x[1:] == a).sum(1), 1 / 5) for a in range(5))
    else:
        np.testing.assert_array_equal(x[1:], np.broadcast_to(np.arange(5)[:, None], x[1:].shape))


def test_of_two_strings_all_is_judged_of_noisy_ones_the_end():
    for noisy in (False, True):
        task = tasks.TwoStrings(4, noisy)
        batch = draw(task, 3)
        right = np.asarray(np.eye(5)[batch.y] * 0.98 + 0.01)
        early, late = right.copy(), right.copy()
        early[1, 0], late[-1, 2] = 1 - right[1, 0], 0.3
        found = [task.deviation(logit(np.float32(y)), batch) for y in (early, late)]
        np.testing.assert_allclose(found[0], [0.01 if noisy else 0.99, 0.01, 0.01], atol=1e-6)
        np.testing.assert_allclose(found[1], [0.01, 0.01, 0.7], atol=1e-6)


@pytest.mark.parametrize("task", [tasks.TwoStrings(4, noisy=True), tasks.TemporalOrder(3)])
def test_by_cross_entropy_the_gradient_is_the_error_itself(task):
    task = dataclasses.replace(task, cross_entropy=True)
    batch = draw(task, 3)
    shape = (*np.shape(batch.y), task.output_size)
    z = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    z[0, ..., 0] = 30.0  # sure
    targets, wide = np.eye(task.output_size)[batch.y], z.astype(np.float64)
    loss, gradient = jax.value_and_grad(task.loss)(jnp.asarray(z), batch)
    np.testing.assert_allclose(loss, (np.logaddexp(0, wide) - targets * wide).sum() / 3, rtol=1e-6)
    y = 1 / (1 + np.exp(-wide))
    np.testing.assert_allclose(gradient, (y - targets) / 3, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", [tasks.AddingOnline, tasks.MultiplyingOnline])
def test_sums_and_products_by_cross_entropy_have_the_error_itself_for_gradient(kind):
    task = kind(20, logistic=True, cross_entropy=True)
    batch = draw(task)
    z: Any = np.random.default_rng(0).normal(size=(N, 1)).astype(np.float32)
    y, targets = 1 / (1 + np.exp(-z.astype(np.float64))), np.float64(batch.y[:, None])
    loss, gradient = jax.value_and_grad(task.loss)(z, batch)
    known = -(targets * np.log(y) + (1 - targets) * np.log(1 - y)).mean()
    np.testing.assert_allclose(loss, known, rtol=1e-5)
    np.testing.assert_allclose(gradient, (y - targets) / N, atol=1e-6 / N)
    square = dataclasses.replace(task, cross_entropy=False)
    np.testing.assert_array_equal(task.deviation(z, batch), square.deviation(z, batch))
    q = task.first_is_marked
    m = 0.5 if kind is tasks.AddingOnline else (1 - q) / 4 + q / 2  # the mean target
    costs = -(targets * np.log(m) + (1 - targets) * np.log(1 - m))
    assert near_mean(costs[:, 0], task.baseline_loss)


@pytest.mark.parametrize("marks", [2, 3])
@pytest.mark.parametrize("cross_entropy", [False, True])
def test_no_constant_outputs_cost_less_than_the_baseline_loss(marks, cross_entropy):
    task = tasks.TemporalOrder(marks, cross_entropy)
    batch, V = draw(task, 3), task.output_size
    best = jnp.full((3, V), logit(1 / V), jnp.float32)
    np.testing.assert_allclose(task.loss(best, batch), task.baseline_loss, rtol=1e-5)
    assert all(task.loss(best + up, batch) > task.baseline_loss for up in (-0.1, 0.1))


@pytest.mark.parametrize("noisy", [False, True])
def test_where_the_last_symbol_alone_is_asked_for_nothing_is_learnt_from_the_others(noisy):
    whole, task = tasks.TwoStrings(4, noisy), tasks.TwoStrings(4, noisy, last_only=True)
    batch, other = draw(task, 3), draw(whole, 3)
    np.testing.assert_array_equal(batch.x, other.x)
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 5)), jnp.float32)
    gradient, known = (np.asarray(jax.grad(t.loss)(outputs, batch)) for t in (task, whole))
    assert np.all(gradient[:-1] == 0) and np.any(known[:-1] != 0)
    np.testing.assert_allclose(gradient[-1], known[-1], rtol=1e-6)
    np.testing.assert_allclose(task.loss(outputs[-1:], batch._replace(y=batch.y[-1:])),
                               task.loss(outputs, batch), rtol=1e-6)  # fmt: skip
    early = outputs.at[1, 0].set(9.0)
    np.testing.assert_array_equal(task.deviation(early, batch), task.deviation(outputs, batch))


def test_random_lags_are_geometric_behind_the_shortest():
    task = tasks.RandomLag(5, 4)
    batch = draw(task)
    x, lengths = symbols(batch), batch.mask.sum(0)
    for row in range(300):
        string, n = x[:, row], lengths[row]
        assert string[0] == 6 and string[1] == 4 + batch.y[row] and string[n - 1] == 7
        assert np.all((string[2 : n - 1] >= 0) & (string[2 : n - 1] < 4))
        assert np.all(string[n:] == -1) and np.all(batch.mask[:n, row]) and n >= 5 + 3
    more = lengths - 8
    assert all(near((more >= k).sum(), 0.9**k) for k in (1, 2, 5, 20))
    assert near_mean(lengths + 1.0, 5 + 13)  # with the answer
    assert 0.9 ** (task.LONGEST + 1) < 1e-5
    assert near((batch.y == 1).sum(), 0.5)
    assert all(near((x[2:6] == a).sum(1), 1 / 4) for a in range(4))
    half: Any = np.zeros((N, 2), np.float32)
    np.testing.assert_allclose(task.loss(half, batch), task.baseline_loss, rtol=1e-5)
    always: Any = np.tile(np.asarray([9, -9], np.float32), (N, 1))
    assert near(np.asarray(task.correct(always, batch)).sum(), task.chance)


@pytest.mark.parametrize("form", ["3a", "3b", "3c"])
def test_two_sequences_differ_in_how_they_begin(form):
    task = tasks.TwoSequences(20, 3, form)
    batch = draw(task)
    x, lengths = batch.x[..., 0], batch.mask.sum(0)
    one = batch.y.meant > 0.5
    assert near(one.sum(), 0.5)
    assert near(np.bincount(lengths, minlength=23)[20:], 1 / 3)
    assert np.all(x[~batch.mask] == 0)
    sign = np.where(one, 1.0, -1.0)
    if form == "3a":
        np.testing.assert_array_equal(x[:3], np.broadcast_to(sign, (3, N)))
    noise = [*(x[:3] - sign if form != "3a" else ()), *x[3:20]]
    for step in noise:
        assert near_mean(step, 0.0) and near_mean(step**2, 0.2)
    assert near_mean(x[4] * x[5], 0.0)
    assert set(np.unique(batch.y.meant)) == set(
        np.asarray([0.2, 0.8] if form == "3c" else [0, 1], np.float32)
    )
    error = batch.y.taught - batch.y.meant
    if form == "3c":
        assert near_mean(error, 0.0) and near_mean(error**2, 0.1)
    else:
        assert not error.any()
    half: Any = np.zeros((N, 1), np.float32)
    assert near_mean((0.5 - batch.y.taught) ** 2 / 2, task.baseline_loss)
    np.testing.assert_allclose(
        task.loss(half, batch), ((0.5 - batch.y.taught) ** 2).mean() / 2, rtol=1e-5
    )
    always: Any = np.full((N, 1), logit(0.8 if form == "3c" else 0.999), np.float32)
    assert near(np.asarray(task.correct(always, batch)).sum(), task.chance)
    # judged without the noise of what is taught
    np.testing.assert_allclose(task.deviation(half, batch), np.abs(0.5 - batch.y.meant), rtol=1e-6)


def test_adding_online_is_adding_with_half_its_loss():
    task, other = tasks.AddingOnline(20, logistic=True), lj.tasks.Adding1997(20)
    batch = draw(task)
    for one, two in zip(*map(jax.tree.leaves, (batch, draw(other))), strict=True):
        np.testing.assert_array_equal(one, two)
    outputs: Any = np.random.default_rng(0).normal(size=(N, 1)).astype(np.float32)
    np.testing.assert_allclose(2 * task.loss(outputs, batch), other.loss(outputs, batch), rtol=1e-5)
    np.testing.assert_array_equal(task.correct(outputs, batch), other.correct(outputs, batch))
    assert task.baseline_loss == other.baseline_loss / 2
    linear: Any = np.asarray(jax.nn.sigmoid(outputs))
    line = dataclasses.replace(task, logistic=False)
    np.testing.assert_allclose(line.loss(linear, batch), task.loss(outputs, batch), rtol=1e-5)
    np.testing.assert_allclose(line.deviation(linear, batch), task.deviation(outputs, batch))
    assert tasks.AddingOnline(100).baseline_loss * 2 == pytest.approx(0.0392, abs=5e-5)


@pytest.mark.parametrize("shortest", mostly_slow([20, 100], [20]))
def test_products_of_marked_values(shortest):
    task = tasks.MultiplyingOnline(shortest)
    batch = draw(task)
    values, marker = batch.x[..., 0], batch.x[..., 1]
    assert values.min() >= 0 and values.max() < 1
    np.testing.assert_array_equal(marker, draw(tasks.AddingOnline(shortest)).x[..., 1])
    for row in range(300):
        marked = np.flatnonzero(marker[:, row] == 1)
        np.testing.assert_allclose(batch.y[row], values[marked, row].prod(), rtol=1e-6)
        assert len(marked) in (1, 2)
    both = (marker == 1).sum(0) == 2
    assert near_mean((batch.y[both] - 0.25) ** 2, 7 / 144)
    mean = batch.y.mean()
    errors = (batch.y - mean) ** 2 / 2
    assert near_mean(errors, task.baseline_loss)
    const: Any = np.full((N, 1), 0.04, np.float32)
    assert near(np.asarray(task.correct(const, batch)).sum(), task.chance)
    assert task.criterion == Criterion(2000, 0.04, allowed=139)


@pytest.mark.parametrize("marks", mostly_slow([2, 3], [3]))
def test_temporal_order_reads_as_published(marks):
    task = tasks.TemporalOrder(marks)
    batch = draw(task)
    x, lengths = symbols(batch), batch.mask.sum(0)
    stands = {2: ((10, 20), (50, 60)), 3: ((10, 20), (33, 43), (66, 76))}[marks]
    for row in range(300):
        string, n = "".join("abcdXYEB"[s] for s in x[: lengths[row], row]), lengths[row]
        assert string[0] == "E" and string[-1] == "B" and not set(string[1:-1]) & set("EB")
        found = [t for t, s in enumerate(string) if s in "XY"]
        assert len(found) == marks
        assert all(low <= t <= high for t, (low, high) in zip(found, stands, strict=True))
        order = "".join(string[t] for t in found)
        assert int(order.replace("X", "0").replace("Y", "1"), 2) == batch.y[row]
        assert np.all(x[n:, row] == -1)
    assert near(np.bincount(lengths, minlength=111)[100:], 1 / 11)
    assert near(np.bincount(batch.y, minlength=2**marks), 1 / 2**marks)
    for low, high in stands:
        at = (x[low : high + 1] == 4) | (x[low : high + 1] == 5)
        assert near(at.sum(1), 1 / 11)
    assert all(near((x[1:10] == s).sum(1), 1 / 4) for s in range(4))
    best: Any = np.full((N, task.output_size), logit(task.chance), np.float32)
    np.testing.assert_allclose(task.loss(best, batch), task.baseline_loss, rtol=1e-4)
    always: Any = np.where(np.arange(task.output_size) == 1, 9.0, -9.0)
    always = np.broadcast_to(always, best.shape).astype(np.float32)
    assert near(np.asarray(task.correct(always, batch)).sum(), task.chance)


def test_reber_online_asks_blocks_of_both_sets_and_learns_from_none_of_them():
    task, plain = tasks.ReberOnline(1), lj.tasks.EmbeddedReber(1)
    sets = {split: plain.examples(split).x for split in ("train", "test")}
    seen = set()
    sample = jax.jit(lambda key: task.sample(key, 1))
    for n in range(150):
        asked = np.asarray(sample(jax.random.key(n)).x)[:, 1:]
        for split, at in ((s, at) for s in sets for at in range(0, 256, 64)):
            if np.array_equal(asked, sets[split][:, at : at + 64]):
                seen.add((split, at))
                break
        else:
            raise AssertionError("no block of either set")
    assert len(seen) == 8
    batch = sample(jax.random.key(0))
    outputs: Any = np.random.default_rng(0).normal(size=(task.length, 65, 7)).astype(np.float32)
    gradient = np.asarray(jax.grad(task.loss)(outputs, batch))
    assert gradient[:, 0].any() and not gradient[:, 1:].any()
    alone = plain.sample(jax.random.key(0), 1)
    np.testing.assert_array_equal(alone.x, batch.x[:, :1])
    np.testing.assert_allclose(
        task.loss(outputs, batch), plain.loss(outputs[:, :1], alone), rtol=1e-6
    )
    test = task.examples("test")
    outputs = np.where(test.y.legal, 1.0, -1.0).astype(np.float32)
    assert not np.any(task.deviation(outputs, test))
    outputs[3, 7] *= -1
    assert np.flatnonzero(task.deviation(outputs, test)).tolist() == [7]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tasks.TwoStrings(1), "symbols must be an integer of at least 2, got 1"),
        (lambda: tasks.TwoStrings(4, 2), "noisy must be one of False, True, got 2"),  # type: ignore
        (lambda: tasks.TwoStrings(4, last_only=2), "last_only must be one of False, True, got 2"),  # type: ignore
        (lambda: tasks.RandomLag(-1), "distractors must be an integer of at least 0, got -1"),
        (lambda: tasks.RandomLag(5, 0), "symbols must be an integer of at least 1, got 0"),
        (lambda: tasks.TwoSequences(2, 3), "shortest must be an integer of at least 3, got 2"),
        (lambda: tasks.TwoSequences(9, 0), "signs must be an integer of at least 1, got 0"),
        (lambda: tasks.TwoSequences(9, 3, "3d"), "form must be one of 3a, 3b, 3c, got '3d'"),
        (
            lambda: tasks.MultiplyingOnline(20, wrong=0),
            "wrong must be an integer of at least 1, got 0",
        ),
        (
            lambda: tasks.MultiplyingOnline(20, cross_entropy=True),
            "cross_entropy=True needs logistic=True: a linear output has none",
        ),
        (lambda: tasks.TemporalOrder(4), "marks must be one of 2, 3, got 4"),
        *(
            (
                functools.partial(task, cross_entropy=2),
                "cross_entropy must be one of False, True, got 2",
            )
            for task in (
                tasks.TwoStrings,
                tasks.TemporalOrder,
                functools.partial(tasks.AddingOnline, 20),
            )
        ),
    ],
)
def test_bad_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()
