"""Embedded Reber: an acceptor that is a regular expression, closed forms, the criterion of 1997."""

import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import tasks
from lstm_jax.tasks import reber

LOOP = "(?:XT*VP)*(?:S|XT*VV)"
WORD = f"B(?:TS*X{LOOP}|PT*V(?:V|P{LOOP}))E"
GRAMMAR = re.compile(f"B(?:T{WORD}T|P{WORD}P)E")
TASK = tasks.EmbeddedReber(3)


def lengths_by_moments():
    """Mean and variance of a string's length: moments m = 1 + Q m of the walk to the last E."""
    n = len(reber.EMBEDDED)
    q = np.zeros((n, n))
    for state, ways in enumerate(reber.EMBEDDED):
        for to in ways.values():
            q[state, to] = 1 / len(ways) if to else 0
    first = np.linalg.solve(np.eye(n) - q, np.ones(n))
    second = np.linalg.solve(np.eye(n) - q, 1 + 2 * q @ first)
    return first[0], second[0] - first[0] ** 2


def pool():
    """The first set drawn of each of 20 data sets: independent strings, none refused."""
    return [s for i in range(20) for s in tasks.EmbeddedReber(i).strings("train")]


@pytest.mark.parametrize("split", tasks.SPLITS)
def test_every_string_is_accepted_by_a_regular_expression(split):
    strings = TASK.strings(split)
    assert len(strings) == TASK.split_size(split) == 256
    assert all(GRAMMAR.fullmatch(s) for s in strings)


def test_no_string_is_in_two_sets_and_data_sets_differ():
    train, validation, test = (set(TASK.strings(split)) for split in tasks.SPLITS)
    assert not train & test
    assert not train & validation
    assert not test & validation
    assert TASK.strings("train") != tasks.EmbeddedReber(4).strings("train")
    assert TASK.strings("train") == tasks.EmbeddedReber(3).strings("train")


def test_lengths_are_those_of_the_walk_nine_at_least_and_twelve_on_average():
    lengths = np.array([len(s) for s in pool()])
    mean, variance = lengths_by_moments()
    assert mean == pytest.approx(12)
    assert lengths.min() == 9
    assert abs(lengths.mean() - 12) < 4.5 * np.sqrt(variance / len(lengths))


@pytest.mark.parametrize(
    ("string", "p"),
    [
        ("BTBTXSETE", Fraction(1, 16)),  # four choices: T, T, X, S
        ("BPBPVVEPE", Fraction(1, 16)),
        ("BTBTSXSETE", Fraction(1, 32)),
        ("BPBTXXVVEPE", Fraction(1, 64)),
    ],
)
def test_a_string_comes_as_often_as_its_choices_say(string, p):
    strings = pool()
    expected, count = float(p) * len(strings), strings.count(string)
    assert abs(count - expected) < 4.5 * np.sqrt(expected)


def may_follow(prefix):
    """Symbols after which some way of going on ends in an accepted string, by trying them."""
    ends = ("", "E", *(f"{w}E{c}E" for c in "TP" for w in ("", "S", "V", "XS", "VV", "XVV", "PS")))
    ends += tuple(f"{w}E{c}E" for c in "TP" for w in ("TXS", "PVV"))
    ends += tuple(f"BTXSE{c}E" for c in "TP") + tuple(f"{c}E" for c in "TP")
    ends += tuple(f"{c}BTXSE{c}E" for c in "TP")
    return {s for s in "BTPSXVE" if any(GRAMMAR.fullmatch(prefix + s + end) for end in ends)}


def test_inputs_answers_and_legal_symbols_read_as_the_string():
    batch = jax.tree.map(np.asarray, TASK.examples("test"))
    assert batch.x.shape == (TASK.length, 256, 7)
    seen = set()
    for row, string in enumerate(TASK.strings("test")):
        steps = len(string) - 1
        assert batch.mask[:, row].sum() == steps == batch.mask[:steps, row].sum()
        assert not batch.x[steps:, row].any()
        assert not batch.y.legal[steps:, row].any()
        read = "".join(reber.SYMBOLS[k] for k in batch.x[:steps, row].argmax(-1))
        assert read == string[:-1]
        assert (batch.x[:steps, row].sum(-1) == 1).all()
        after = "".join(reber.SYMBOLS[k] for k in batch.y.following[:steps, row])
        assert after == string[1:]
        if row < 40:
            for t in range(steps):
                legal = {reber.SYMBOLS[k] for k in np.flatnonzero(batch.y.legal[t, row])}
                assert legal == may_follow(string[: t + 1])
                seen.add("".join(sorted(legal)))
    assert seen == {"PT", "B", "SX", "TV", "PV", "E", "T", "P"}
    longest = max(len(s) for split in tasks.SPLITS for s in TASK.strings(split))
    assert TASK.length == longest - 1


def test_a_string_is_correct_when_the_legal_symbols_have_the_largest_outputs_everywhere():
    batch = TASK.examples("test")
    legal, mask = np.asarray(batch.y.legal), np.asarray(batch.mask)
    rng = np.random.default_rng(0)
    outputs = np.where(legal, 0.1, 0.0) + rng.uniform(0, 0.09, legal.shape)
    outputs[~mask] = rng.normal(size=7)  # what is padded has no say
    assert TASK.correct(jnp.float32(outputs), batch).min() == 1
    worst = np.where(legal, outputs, np.inf).argmin(-1)  # the least legal output, an illegal above
    for t, row in ((0, 0), (7, 1), (3, 2)):
        spoilt = outputs.copy()
        best = np.where(legal[t, row], -np.inf, outputs[t, row]).argmax()
        spoilt[t, row, worst[t, row]] = spoilt[t, row, best] - 0.001
        right = np.asarray(TASK.correct(jnp.float32(spoilt), batch))
        assert np.flatnonzero(right == 0).tolist() == [row]
    ties = jnp.zeros(legal.shape)
    assert not TASK.correct(ties, batch).any()


def test_knowing_the_grammar_but_not_the_second_symbol_fails_every_string():
    """What comes before the last E can only be had from the beginning of the string."""
    batch = TASK.examples("train")
    t, p = (reber.SYMBOLS.index(s) for s in "TP")
    ends = batch.y.legal.sum(-1, keepdims=True) == 1
    both = batch.y.legal[..., t] ^ batch.y.legal[..., p]
    alone = ends[..., 0] & both
    blurred = batch.y.legal.at[..., t].set(jnp.where(alone, True, batch.y.legal[..., t]))
    blurred = blurred.at[..., p].set(jnp.where(alone, True, blurred[..., p]))
    assert not TASK.correct(blurred.astype(jnp.float32), batch).any()
    assert TASK.correct(batch.y.legal.astype(jnp.float32), batch).all()


def test_loss_is_half_the_squared_error_summed_over_each_string():
    batch = jax.tree.map(lambda leaf: leaf[:, :5], TASK.examples("train"))
    outputs = np.random.default_rng(1).normal(size=(TASK.length, 5, 7))
    total = 0.0
    for row, string in enumerate(TASK.strings("train")[:5]):
        for t, symbol in enumerate(string[1:]):
            answer = 1 / (1 + np.exp(-outputs[t, row]))
            answer[reber.SYMBOLS.index(symbol)] -= 1
            total += 0.5 * float(answer @ answer)
    np.testing.assert_allclose(TASK.loss(jnp.float32(outputs), batch), total / 5, rtol=2e-6)


def test_samples_are_strings_of_their_set():
    draw = jax.jit(lambda key: TASK.sample(key, 200, "test"))
    batch = jax.tree.map(np.asarray, draw(jax.random.key(0)))
    mask = np.asarray(batch.mask)
    drawn = {
        "".join(reber.SYMBOLS[k] for k in batch.x[mask[:, b], b].argmax(-1)) + "E"
        for b in range(200)
    }
    assert drawn <= set(TASK.strings("test"))
    assert len(drawn) > 50


@pytest.mark.parametrize("data_set", [-1, 1.0])
def test_a_bad_data_set_is_refused(data_set):
    message = f"data_set must be an integer of at least 0, got {data_set}"
    with pytest.raises(ValueError, match=message):
        tasks.EmbeddedReber(data_set)


# The stream. --------------------------------------------------------------------------------------


def read(task, windows, rows=40):
    """Reads windows of a stream, and joins them in time."""

    def window(cursor, _):
        cursor, batch = task.next(cursor)
        return cursor, batch

    def all_of(key):
        return jax.lax.scan(window, task.begin(key, rows, "test"), length=windows)[1]

    batch = jax.jit(all_of)(jax.random.key(5))
    return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), batch)


def test_a_stream_is_one_accepted_string_after_another():
    task = tasks.ContinualReber(13)
    batch = read(task, 40)
    strings = []
    for row in range(40):
        symbols = "".join(reber.SYMBOLS[k] for k in batch.x[:, row].argmax(-1))
        found = GRAMMAR.findall(symbols)
        assert symbols.startswith("".join(found))
        assert len(symbols) - sum(map(len, found)) < 60  # what is left is a string begun
        strings += found
    lengths, p = np.array([len(s) for s in strings]), strings.count("BTBTXSETE") / len(strings)
    deviation = np.sqrt(lengths_by_moments()[1])
    assert (
        abs(lengths.mean() - 12) < 4.5 * deviation / np.sqrt(len(strings)) + 0.2
    )  # the last is cut
    assert abs(p - 1 / 16) < 4.5 * np.sqrt(1 / 16 / len(strings)) + 0.002


def test_windows_are_cut_anywhere_and_say_what_may_follow():
    batch = read(tasks.ContinualReber(7), 10, rows=6)
    for row in range(6):
        symbols = "".join(reber.SYMBOLS[k] for k in batch.x[:, row].argmax(-1))
        begun = 0
        for t in range(70):
            if (whole := GRAMMAR.match(symbols[begun : t + 1])) and whole.end() == t + 1 - begun:
                legal, begun = {"B"}, t + 1
            else:
                legal = may_follow(symbols[begun : t + 1])
            assert {reber.SYMBOLS[k] for k in np.flatnonzero(batch.y[t, row])} == legal


@pytest.mark.parametrize("strings", [0, 1, 3])
def test_a_stream_begins_with_a_reset_and_has_as_many_strings_as_it_is_to(strings):
    batch = read(tasks.ContinualReber(10, strings), 30, rows=8)
    for row in range(8):
        symbols = "".join(reber.SYMBOLS[k] for k in batch.x[:, row].argmax(-1))
        ends = np.cumsum([0, *(len(s) for s in GRAMMAR.findall(symbols))])
        expected = ends[:1] if strings == 0 else ends[::strings]
        assert np.flatnonzero(batch.reset[:, row]).tolist() == [e for e in expected if e < 300]


def test_how_often_states_are_visited_and_what_chance_is():
    visits = reber.visits()
    assert visits.sum() == pytest.approx(12)
    assert visits[[0, 1, -1]].tolist() == pytest.approx([1, 1, 1])
    batch = read(tasks.ContinualReber(50), 40)
    sets, counts = np.unique(batch.y.reshape(-1, 7), axis=0, return_counts=True)
    assert len(sets) == 8
    assert counts.max() / counts.sum() == pytest.approx(tasks.ContinualReber().chance, abs=0.01)


def test_a_symbol_is_right_within_forty_nine_hundredths():
    task = tasks.ContinualReber(4)
    batch = task.sample(jax.random.key(0), 3)
    probability = np.where(batch.y, 0.52, 0.48)
    right = lambda p: np.asarray(task.right(jnp.log(p / (1 - p)), batch))  # noqa: E731
    assert right(probability).all()
    for p in (0.505, 0.495):
        spoilt = probability.copy()
        spoilt[2, 1, 3] = p
        assert np.argwhere(~right(spoilt)).tolist() == [[2, 1]]
    logits = jnp.float32(np.log(spoilt / (1 - spoilt)))
    assert task.correct(logits, batch).tolist() == [1, 0, 1]
    assert float(task.metric(logits, batch)) == pytest.approx(11 / 12)
    expected = -np.log(np.where(batch.y, spoilt, 1 - spoilt)).mean()
    assert float(task.loss(logits, batch)) == pytest.approx(expected, rel=1e-5)


def test_bad_streams_are_refused():
    with pytest.raises(ValueError, match=r"^window must be an integer of at least 1, got 0$"):
        tasks.ContinualReber(0)
    with pytest.raises(ValueError, match=r"^strings must be an integer of at least 0, got -1$"):
        tasks.ContinualReber(5, -1)
