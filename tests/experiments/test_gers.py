"""gers: groups, measures on networks that are known, table, verdicts and figures; one tiny run."""

import csv
import functools
import json
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from experiments import gers
from experiments.common import runner
from experiments.gers import COUNTERS, LANGUAGES, READERS, Gers
from lstm_jax import cells
from lstm_jax.report import figures, ledger
from lstm_jax.report.claims import exceeds
from lstm_jax.report.statistics import wilson
from lstm_jax.tasks import ContinualReber, Counting
from lstm_jax.tasks.reber import EMBEDDED, LEADS, LEGAL, READS
from lstm_jax.training.trials import Trials

CONFIG = Gers(seeds=10, tuning_seeds=2, learning_rates=(0.01, 0.03), horizon=10_000)
LASTED = {"reset": 10_000, "plain": 300, "forget": 2000, "decay": 10_000}  # all streams alike
RANGES = {"peephole": 100, "lstm": 20, "gru": 11, "rnn": 0}
PATH = "reber-forget-tuning", "reber-forget-reported", "reber-decay-half", "reber-decay-reported"


def result(group, trial, rate, **found):
    return {
        "kind": "result", "group": group, "trial": trial, "seed": trial, "learning_rate": rate,
        "status": "finished", "step": 10, "loss": 0.1, "metric": 0.9, "test_correct": 1,
        "test_n": 2000, **found,
    }  # fmt: skip


def told(config=CONFIG):
    """What a finished run leaves on the ledger, in a world where all seeds are alike."""
    records = []
    times = gers.TRACED // gers.TRACE_STEP
    for seed in range(config.seeds):
        for name, n in LASTED.items():
            grown = np.linspace(1, 100 if name == "plain" else 5, times).tolist()
            found = {"lasted": [n] * gers.STREAMS, "cells": grown}
            records.append(result(f"reber-{name}-reported", seed, 0.01, **found))
        for language, (name, n) in ((a, b) for a in LANGUAGES for b in RANGES.items()):
            records.append(result(f"{language}-{name}-reported", seed, 0.03, range=n))
    return records


RECORDS = told()
ROWS = {(row["task"], row["network"]): row for row in gers.summarise(CONFIG, RECORDS)}


def tuned(name, rates, lasted):
    return [result(f"{name}-tuning", i, rates[i // 2], lasted=[n], cells=[1.0])
            for i, n in enumerate(lasted)]  # fmt: skip


def test_every_network_is_tuned_on_other_seeds_than_are_reported():
    groups = {group.name: group for group in gers.plan(CONFIG, [])}
    networks = [f"reber-{name}" for name in ("reset", "plain", "forget")]
    networks += [f"{language}-{name}" for language in LANGUAGES for name in COUNTERS]
    names = [f"{name}-{phase}" for name in networks for phase in ("tuning", "reported")]
    assert set(groups) == {*names, "reber-decay-half", "reber-decay-reported"}
    for name in networks:
        tuning = groups[f"{name}-tuning"].trials
        assert isinstance(tuning, Trials)
        assert tuning.seed.tolist() == [0, 1, 0, 1]
        assert_allclose(tuning.learning_rate, [0.01, 0.01, 0.03, 0.03])
        assert groups[f"{name}-reported"].trials is None
        bias = name.split("-")[1] in ("peephole", "lstm")
        assert {k: set(v) for k, v in tuning.gate_bias.items()} == ({"f": {5.0}} if bias else {})
    assert groups["reber-decay-half"].trials is None


def test_the_decaying_rate_goes_on_from_half_of_the_updates():
    records = tuned("reber-forget", (0.01, 0.03), [5, 5, 9, 9])
    groups = {group.name: group for group in gers.plan(CONFIG, records)}
    _, forget, half, decay = (groups[name] for name in PATH)
    for group, steps, rate in ((forget, 10_000, 0.03), (half, 5000, 0.03), (decay, 10_000, 0.003)):
        assert group.steps == steps
        assert isinstance(group.trials, Trials)
        assert group.trials.seed.tolist() == list(range(2, 12))
        assert_allclose(group.trials.learning_rate, [rate] * 10, rtol=1e-6)
    assert half.save_state and half.measure is None
    assert decay.initial_state is not None and decay.measure is not None


def test_streams_are_read_by_the_blocks_of_2000_and_begin_anew_where_told():
    groups = {group.name: group for group in gers.plan(CONFIG, [])}
    for name, reader in list(READERS.items())[:3]:
        group = groups[f"reber-{name}-tuning"]
        assert group.task == ContinualReber(50, 1 if reader.resets else 20)
        assert ("f" in group.model.cell.gates) == (name == "forget")
        assert isinstance(group.measure, functools.partial)
        tested, asked, *_ = group.measure.args
        assert tested == ContinualReber(20, 1 if reader.resets else 0)  # these never end
        assert asked == (gers.STREAMS, CONFIG.horizon)
    cell = gers.blocks(True)
    head, shortcuts = 7 * (8 + 1), 7 * 7  # the paper's outputs read the inputs as well
    assert cells.parameter_count(cell, 7) + head + shortcuts == 424
    biases = gers.spread(jax.random.key(0), cell, jnp.float32)
    assert biases["i"].tolist() == biases["o"].tolist() == [-0.5, -1, -1.5, -2]
    assert biases["f"].tolist() == [0.5, 1, 1.5, 2]
    assert set(gers.spread(jax.random.key(0), gers.blocks(False), jnp.float32)) == {"i", "o"}


def test_the_best_rate_is_that_of_the_longest_streams_by_their_logarithm():
    rates = (0.01, 0.03)
    assert gers.best_rate(rates, []) is None
    assert gers.best_rate(rates, tuned("x", rates, [100, 100, 1, 5000])) == 0.01
    assert gers.best_rate(rates, tuned("x", rates, [100, 100, 3, 5000])) == 0.03
    assert gers.best_rate(rates, tuned("x", rates, [7, 7, 7, 7])) == 0.01
    diverged = tuned("x", rates, [9, 9, 1000, 10])
    diverged[2] |= {"status": "diverged", "lasted": [10_000]}
    assert gers.best_rate(rates, diverged) == 0.01


class Place(NamedTuple):
    h: jax.Array
    c: jax.Array


class Automaton:
    """A network that knows the grammar, but for the symbol after `params` of a stream."""

    def initial_state(self, params, batch):
        return (Place(jnp.zeros(batch, jnp.int32), jnp.zeros((batch, 2))),)

    def unroll(self, params, x, state, reset):
        def instant(place, inputs):
            x_t, reset_t = inputs
            place = Place(place.h, jnp.where(reset_t[:, None], 0.0, place.c))
            second = x_t.argmax(-1) == jnp.asarray(READS)[place.h, 1]
            h = jnp.asarray(LEADS)[place.h, second.astype(jnp.int32)]
            legal = jnp.asarray(LEGAL)[h] ^ (place.c[:, :1] == params)
            return Place(h, place.c + jnp.array([[1.0, -1.0]])), jnp.where(legal, 5.0, -5.0)

        place, outputs = jax.lax.scan(instant, state[0], (x, reset))
        return (place,), outputs


def test_a_stream_lasts_until_its_first_error_or_to_the_horizon():
    assert len(EMBEDDED) == len(LEGAL)
    until = jnp.array([0.0, 1.0, 19.0, 20.0, 1234.0, 2000.0, 5000.0])
    found = gers.lasting(ContinualReber(gers.TRACE_STEP), (3, 2000), Automaton(), until, None)  # pyright: ignore
    assert [r["lasted"] for r in found] == [[min(int(n), 2000)] * 3 for n in until]
    times = list(range(gers.TRACE_STEP, gers.TRACED + 1, gers.TRACE_STEP))
    assert [r["cells"] for r in found] == [times] * len(until)
    json.dumps(found)
    told = ContinualReber(gers.TRACE_STEP, strings=1)  # no string has 200 symbols
    (afresh,) = gers.lasting(told, (3, 2000), Automaton(), until[3:4] + 180, None)  # pyright: ignore
    assert afresh["lasted"] == [2000] * 3


class Abacus:
    """A network that counts a's and b's up to `params`, and no further."""

    def apply(self, params, x, mask):
        a, b = jnp.cumsum(x[..., 1], 0), jnp.cumsum(x[..., 2], 0)
        sets = jnp.stack([b == 0, (a > b) & (a > 0), a == b], axis=-1)
        sets = jnp.where((x[..., 2] > 0)[..., None] & (b > params)[..., None], False, sets)
        return jnp.where(sets, 1.0, -1.0)


def test_the_range_ends_before_the_first_string_that_is_not_accepted():
    limits = jnp.array([0.0, 3.0, 7.0, 100.0])
    found = gers.ranges(Counting(2, 12), Abacus(), limits, None)  # pyright: ignore
    assert found == [{"range": 0}, {"range": 3}, {"range": 7}, {"range": 12}]


def test_the_table_says_who_is_perfect_who_is_good_and_what_holds():
    by_name = {name: ROWS["reber", reader.label] for name, reader in READERS.items()}
    assert by_name["reset"]["passed"] == by_name["decay"]["passed"] == wilson(10, 10)
    assert by_name["plain"]["passed"] == by_name["forget"]["passed"] == wilson(0, 10)
    assert [row["good"] for row in by_name.values()] == [0, 0, 10, 0]
    assert [row["paper"] for row in by_name.values()] == ["74 %", "0", "18 %", "62 %"]
    assert by_name["forget"]["median"] == 2000
    for language in LANGUAGES:
        rows = {name: ROWS[language, network.label] for name, network in COUNTERS.items()}
        assert [row["passed"].count for row in rows.values()] == [10, 10, 0, 0]
        assert [row["median"] for row in rows.values()] == [100, 20, 11, 0]


def test_one_error_makes_a_seed_good_at_most_and_a_diverged_one_is_nothing():
    records = [dict(r) for r in ledger.group(RECORDS, "reber-reset-reported")]
    records[0]["lasted"] = [10_000] * 9 + [9_999]
    records[1]["status"] = "diverged"
    assert gers.passed(CONFIG, records) == (8, 10)
    row = gers.row(CONFIG, "reber", "reset", records, {"reset": wilson(8, 10)})
    assert row["good"] == 1 and row["least"] == 0


def test_claims_are_held_to_whole_intervals():
    streams, *counts = gers.claims(CONFIG, list(ROWS.values()))
    assert streams.verdict == "reproduces"
    assert (
        streams.ours == f"perfect to 10000 symbols: {wilson(10, 10)} seeds against {wilson(0, 10)}"
    )
    assert [c.verdict for c in counts] == ["reproduces", "reproduces"]
    assert "a^n b^n c^n to 10" in counts[1].claim
    verdicts = [exceeds(wilson(a, 10), wilson(b, 10)) for a, b in ((6, 0), (3, 0), (0, 6))]
    assert verdicts == ["reproduces", "undecided", "does not reproduce"]
    rows = [dict(row, passed=wilson(8, 10)) for row in ROWS.values()]
    assert [c.verdict for c in gers.claims(CONFIG, rows)] == ["undecided"] * 3


def test_figures_show_what_was_measured():
    rows = list(ROWS.values())
    with figures.theme():
        reber, counting = gers.draw(CONFIG, rows, RECORDS)
    state, length = reber.figure.axes
    lines = dict(zip(READERS, state.lines, strict=True))
    times, sizes = (np.asarray(v) for v in lines["plain"].get_data())
    assert (times[-1], sizes[-1]) == (1000, 100)
    survived = dict(zip(READERS, length.lines, strict=True))
    x, y = (np.asarray(v) for v in survived["forget"].get_data())
    assert_allclose(y, x <= 2000)
    for axes, title in zip(counting.figure.axes, ("a^n b^n", "a^n b^n c^n"), strict=True):
        assert axes.get_title() == title
        for line, n in zip(axes.lines, RANGES.values(), strict=False):
            x, y = (np.asarray(v) for v in line.get_data())
            assert_allclose(y, x <= n)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": ("abc",)}, "--tasks=abc: need one of reber, anbn, anbncn"),
        ({"learning_rates": (0.0,)}, "--learning_rates=0: need 1e-30 to 1e+30"),
        ({"reber_steps": 3}, "--reber_steps=3: need an even number"),
        ({"horizon": 1010}, "--horizon=1010: need a multiple of 20"),
        ({"horizon": 980}, "--horizon=980: need 1000 to 1000000000"),
        ({"tested": 19}, "--tested=19: need 20 or more, twice --longest=10"),
        (
            {"seed": 2**32 - 2},
            "--seed=4294967294: the last one, 4294967305, is beyond 4294967295",
        ),
    ],
)
def test_bad_values_are_refused_by_flag_value_and_what_is_right(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Gers(**given)


def test_a_tiny_run_ends_with_table_and_figure(monkeypatch, tmp_path: Path, standard_promotion):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    monkeypatch.setattr(gers, "COUNTERS", {"peephole": COUNTERS["peephole"]})
    tiny = ["--tasks=anbn", "--seeds=2", "--steps=2", "--hidden=2", "--batch_size=2"]
    tiny += ["--learning_rates=0.01", "--tested=20", "--engine=reference"]
    path = tmp_path / "run"
    assert runner.main(gers.EXPERIMENT, ["gers", *tiny, f"--workdir={path}"]) == 0
    (row,) = csv.DictReader((path / "summary.csv").read_text().splitlines())
    assert row["network"] == "LSTM, peepholes"
    records = [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]
    assert {"range"} <= set(ledger.results(records)[0])
    assert (path / "figures" / "counting.png").exists()
