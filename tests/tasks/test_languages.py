"""Languages: every answer against a plain Python reader of the string, chance in closed form."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.tasks import LANGUAGES, SPLITS, Stats
from lstm_jax.tasks.base import check_choice
from tests.products import mostly_slow, slow

N = 4000


def even_pairs(s):
    return [int(sum(a != b for a, b in itertools.pairwise(s)) % 2 == 0)]


def parity(s):
    return [s.count(1) % 2]


def cycle_navigation(s):
    place = 0
    for move in s:
        place += {0: 0, 1: 1, 2: -1}[move]
    return [place % 5]


def modular_arithmetic(s):
    return [eval("".join("01234+-*"[symbol] for symbol in s)) % 5]


def reverse_string(s):
    return s[::-1]


def stack_manipulation(s):
    stack = []
    for symbol in s:
        if symbol == 2:
            stack = stack[:-1]
        else:
            stack.append({0: 0, 1: 1, 3: 0, 4: 1}[symbol])
    return [*reversed(stack), 2]


def duplicate_string(s):
    return s + s


def odds_first(s):
    return s[::2] + s[1::2]


def bucket_sort(s):
    return sorted(s)


READERS = [
    even_pairs, parity, cycle_navigation, modular_arithmetic, reverse_string, stack_manipulation,
    duplicate_string, odds_first, bucket_sort,
]  # fmt: skip
every = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)


@functools.cache
def draw(task):
    """Returns N strings of training."""
    return jax.tree.map(np.asarray, jax.jit(lambda key: task.sample(key, N))(jax.random.key(0)))


def first(rows, batch):
    return jax.tree.map(lambda leaf: leaf[:, :rows], batch)


def strings(batch):
    """The string and the answer of each row; every input is one-hot, the placeholders are last."""
    asked = batch.x[..., -1] > 0
    assert np.array_equal(batch.x.sum(-1) > 0, batch.mask)
    for row in range(batch.x.shape[1]):
        steps = int(batch.mask[:, row].sum())
        n = steps - int(asked[:, row].sum())
        assert batch.mask[:steps, row].all() and asked[n:steps, row].all()
        assert not batch.y[:n, row].any() and not batch.y[steps:, row].any()
        yield batch.x[:n, row].argmax(-1).tolist(), batch.y[n:steps, row].tolist()


def test_every_language_has_a_reader():
    assert [reader.__name__ for reader in READERS] == list(LANGUAGES)


@every
@pytest.mark.parametrize(("shortest", "longest"), [(1, 9), *map(slow, [(6, 6), (1, 1)])])
def test_answers_are_those_of_a_reader_of_the_string(reader, shortest, longest):
    task = LANGUAGES[reader.__name__](shortest, longest)
    batch, seen = first(300, draw(task)), set()
    assert batch.x.shape == (task.length, 300, task.input_size)
    assert (batch.x.dtype, batch.y.dtype) == (np.float32, np.int32)
    for string, answer in strings(batch):
        assert answer == reader(string)
        assert len(answer) <= task.longest_answer(len(string))
        assert max(answer) < task.output_size
        seen.add(len(string))
    lengths = set(range(shortest, longest + 1))
    if task.name == "modular_arithmetic":
        lengths = {n - 1 + n % 2 for n in lengths}
    assert seen == lengths
    assert max(batch.mask.sum(0)) == task.length - (task.name == "modular_arithmetic") * (
        longest % 2 == 0
    )


@every
def test_strings_are_uniform(reader):
    """Each length is as likely as any other, and each string of a length as any other."""
    task = LANGUAGES[reader.__name__](1, 4)
    rows = [tuple(string) for string, _ in strings(draw(task))]
    counts = {  # of the strings of these lengths
        "modular_arithmetic": {1: 5, 3: 5 * 3 * 5},
        "stack_manipulation": {1: 2, 2: 2 * 3},
    }.get(task.name, {1: task.symbols, 2: task.symbols**2})
    for length, count in counts.items():
        found = [row for row in rows if len(row) == length]
        share = 1 / 2 if task.name == "modular_arithmetic" else 1 / 4
        assert abs(len(found) - N * share) < 4.5 * np.sqrt(N * share * (1 - share))
        times = [found.count(row) for row in set(found)]
        assert len(times) == count
        each = len(found) / count
        assert np.all(np.abs(np.array(times) - each) < 4.5 * np.sqrt(each))


@every
def test_a_constant_answer_is_right_as_often_as_said(reader):
    task = LANGUAGES[reader.__name__](1, 9)
    batch = draw(task)

    def share_of(symbol):
        answer = jax.nn.one_hot(symbol, task.output_size)
        return task.share(jnp.broadcast_to(answer, (*batch.y.shape, task.output_size)), batch)

    shares = np.asarray(jax.jit(jax.vmap(share_of))(np.arange(task.output_size)))
    for symbol, share in enumerate(shares):
        expected = np.mean([task.constant(n)[symbol] for n in range(1, 10)])
        assert abs(share.mean() - expected) < 4.5 * share.std() / np.sqrt(N) + 1e-9
        assert expected <= task.chance + 1e-12
    assert abs(sum(task.constant(7)) - 1) < 1e-12


def test_chance_of_long_strings():
    chances = {kind: LANGUAGES[kind](500, 500).chance for kind in LANGUAGES}
    stack = chances.pop("stack_manipulation")
    assert 0.49 < stack < 0.5  # of hundreds of bits half
    five = ("cycle_navigation", "modular_arithmetic", "bucket_sort")
    for kind, chance in chances.items():
        np.testing.assert_allclose(chance, 0.2 if kind in five else 0.5, rtol=1e-9)
    np.testing.assert_allclose(LANGUAGES["even_pairs"](1, 40).chance, 0.5 + 0.5 / 40)
    np.testing.assert_allclose(LANGUAGES["modular_arithmetic"](3, 3).chance, (2 / 5 + 9 / 25) / 3)


@every
def test_loss_share_and_correct_against_float64_numpy(reader):
    task = LANGUAGES[reader.__name__](1, 9)
    batch = first(50, draw(task))
    outputs = np.random.default_rng(0).normal(size=(task.length, 50, task.output_size))
    losses, shares = [], []
    for row, (string, answer) in enumerate(strings(batch)):
        o = outputs[len(string) : len(string) + len(answer), row]
        losses.append(np.mean(np.log(np.exp(o).sum(-1)) - o[np.arange(len(o)), answer]))
        shares.append(np.mean(o.argmax(-1) == answer))
    outputs = jnp.asarray(outputs, jnp.float32)

    def told(outputs, batch):
        return task.loss(outputs, batch), task.share(outputs, batch), task.correct(outputs, batch)

    loss, share, correct = jax.jit(told)(outputs, batch)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=2e-6)
    np.testing.assert_allclose(share, shares, rtol=1e-6)
    assert correct.tolist() == [float(share == 1) for share in shares]
    np.testing.assert_allclose(task.metric(outputs, batch), np.mean(shares), rtol=1e-6)
    perfect = 30 * jax.nn.one_hot(batch.y, task.output_size)
    assert task.metric(perfect, batch) == 1 and task.loss(perfect, batch) < 1e-6


@every
def test_at_draws_the_lengths_it_is_given(reader):
    task = LANGUAGES[reader.__name__](1, 9)
    lengths = jnp.array([9, 1, 5, 5, 3], jnp.int32)
    batch = jax.jit(task.at)(jax.random.key(1), lengths)
    assert [len(s) for s, _ in strings(jax.tree.map(np.asarray, batch))] == [9, 1, 5, 5, 3]


@pytest.mark.parametrize("kind", mostly_slow(LANGUAGES, ["parity", "stack_manipulation"]))
def test_splits_and_keys_draw_different_strings(kind):
    task = LANGUAGES[kind](1, 9)
    keys = jax.random.split(jax.random.key(0), 2)
    draws = [(split, key) for split in ("train", "test") for key in keys]
    batches = jax.jit(lambda: [task.sample(key, 64, split) for split, key in draws])()
    for one, other in itertools.combinations(batches, 2):
        assert not np.array_equal(one.x, other.x)
    with pytest.raises(ValueError, match="split must be one of train, validation, test, got 'x'"):
        task.sample(jax.random.key(0), 2, "x")


@every
def test_data_are_of_32_bits_in_float64_programs(reader, x64):
    task = LANGUAGES[reader.__name__](1, 4)
    batch = jax.eval_shape(lambda key: task.sample(key, 8), jax.random.key(0))
    assert (batch.x.dtype, batch.y.dtype) == (jnp.float32, jnp.int32)


def test_solved_at_a_small_running_loss():
    def solved(loss):
        return bool(LANGUAGES["parity"]().solved(Stats(jnp.array(loss), jnp.array(1.0))))

    assert [solved(loss) for loss in (0.01, 0.0031, 0.003, 0.0)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"shortest": 0}, "shortest must be an integer of at least 1, got 0"),
        ({"longest": 3, "shortest": 4}, "longest must be .* at least 4, got 3"),
    ],
)
def test_bad_lengths_are_refused(sizes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        LANGUAGES["parity"](**sizes)
    check_choice("split", "test", SPLITS)
