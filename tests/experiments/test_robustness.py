"""robustness: settings, table, verdicts and figures as functions of records; one tiny run."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from numpy.testing import assert_allclose

from experiments import robustness
from experiments.common import runner
from experiments.robustness import NETWORKS, RANGES, Robustness
from lstm_jax import cells
from lstm_jax.report import figures, ledger
from lstm_jax.report.statistics import Estimate, wilson
from lstm_jax.training.trials import Trials, describe_trials

CONFIG = Robustness(seeds=400, tasks=("adding",), seed=7)


def settings(name: str, config: Robustness = CONFIG) -> dict[str, np.ndarray]:
    return describe_trials(robustness.drawn(NETWORKS[name], config))


def works(name: str, trial: dict[str, float]) -> bool:
    """In this world the 1997 cell needs a closed input gate, the RNN a large scale."""
    rate = trial["learning_rate"]
    if name == "blocks":
        return rate < 0.1 and trial["gate_bias_i"] < 0
    if name == "lstm":
        return 0.003 < rate < 0.3
    return 0.01 < rate < 0.1 and trial["init_scale"] > 1.5


def told(config: Robustness, works=works) -> list[dict]:
    """What the groups of a finished run leave on the ledger, in a world."""
    records = []
    for name in NETWORKS:
        columns = settings(name, config)
        for trial in range(config.seeds):
            mine = {k: float(v[trial]) for k, v in columns.items()}
            right = 1900 if works(name, mine) else 1899
            records.append(
                {"kind": "result", "group": f"adding-{name}", "trial": trial, **mine,
                 "status": "solved" if right == 1900 else "finished", "step": 100 + trial % 3,
                 "metric": 0.96, "loss": 0.1, "test_correct": right, "test_n": 2000}
            )  # fmt: skip
    return records


RECORDS = told(CONFIG)
ROWS = {str(row["network"]): row for row in robustness.summarise(CONFIG, RECORDS)}


def test_every_task_and_network_is_one_group_of_the_same_budget():
    config = Robustness(seeds=5, lag=20, hidden=6, steps=70, batch_size=3)
    groups = robustness.plan(config, [])
    names = [f"{task}-{name}" for task in ("adding", "recall") for name in NETWORKS]
    assert [group.name for group in groups] == names
    assert {(g.steps, g.batch_size, g.split, g.task.length) for g in groups[:3]} == {
        (70, 3, "test", 22)
    }
    assert groups[3].task.length == 21
    seen = [g.model.cell for g in groups[:3]]
    assert seen == [cells.MemoryBlocks(6, size=2), cells.LSTM(6), cells.RNN(12)]
    for group in groups:
        assert isinstance(group.trials, Trials)
        assert group.trials.seed.tolist() == [0, 1, 2, 3, 4]
        assert set(group.trials.clip.tolist()) == {1.0}
    assert set(settings("blocks")) - set(settings("rnn")) == {"gate_bias_i", "gate_bias_o"}
    assert len(set(settings("rnn")["init_scale"])) == CONFIG.seeds


def test_the_rnn_has_about_as_many_weights_as_the_lstms():
    for hidden, inputs in ((16, 2), (16, 9), (64, 2)):
        counts = [
            cells.parameter_count(network.cell(hidden), inputs) for network in NETWORKS.values()
        ]
        assert max(counts) < 1.3 * min(counts)


def test_a_trial_is_a_function_of_the_seed_and_its_index_and_shared_where_networks_share():
    few = Robustness(seeds=50, seed=7)
    for name in NETWORKS:
        for field, values in settings(name, few).items():
            assert values.tolist() == settings(name)[field][:50].tolist(), field
    for field in ("seed", "learning_rate", "gate_bias_i", "gate_bias_o"):
        assert settings("blocks")[field].tolist() == settings("lstm")[field].tolist()
    other = settings("lstm", Robustness(seeds=50, seed=8))
    assert not set(other["learning_rate"]) & set(settings("lstm")["learning_rate"])


def test_settings_fill_their_ranges_evenly_and_independently():
    columns = {
        field: settings(name)[field] for name in NETWORKS for field in NETWORKS[name].settings
    }
    columns["learning_rate"] = settings("lstm")["learning_rate"]
    assert set(columns) == set(RANGES)
    places = {}
    for field, values in columns.items():
        over = RANGES[field]
        assert over.low <= values.min() and values.max() <= over.high
        places[field] = over.bin(values)
        expected = CONFIG.seeds / over.bins
        counts = np.bincount(places[field], minlength=over.bins)
        assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()
    drawn = [places[field] for field in ("learning_rate", *robustness.GATES)]
    correlations = np.corrcoef(drawn)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 4 / np.sqrt(CONFIG.seeds)


def test_ranges_have_the_bins_that_figures_show():
    rates, scale = RANGES["learning_rate"], RANGES["init_scale"]
    assert_allclose(np.log10(rates.edges), np.linspace(-3.5, 0, 8), atol=1e-12)
    assert_allclose(RANGES["gate_bias_i"].edges, [-6, -4, -2, 0, 2])
    assert_allclose(RANGES["gate_bias_i"].middles, [-5, -3, -1, 1])
    assert_allclose(scale.edges, [0.5, 0.5**0.5, 1, 2**0.5, 2])
    # the outer ends, a float32 beyond them, an edge belongs to the bin above
    assert scale.bin([0.5, 0.4999999, 0.999, 1.0, 2.0, 2.0000001]).tolist() == [0, 0, 1, 2, 3, 3]


def test_the_table_counts_by_the_rule_and_gives_decades_of_learning_rate():
    for name, network in NETWORKS.items():
        columns = settings(name)
        trials = [{k: float(v[i]) for k, v in columns.items()} for i in range(CONFIG.seeds)]
        solved = sum(works(name, trial) for trial in trials)
        row = ROWS[network.label]
        assert row["solved"] == wilson(solved, CONFIG.seeds)
        share = row["solved"]
        assert_allclose(row["decades"], [3.5 * v for v in (share.value, share.low, share.high)])
    # the LSTM works between 0.003 and 0.3: two decades
    assert ROWS["LSTM"]["decades"].low < 2 < ROWS["LSTM"]["decades"].high
    assert ROWS["LSTM"]["steps_of_the_solved"] == 101
    assert ROWS["LSTM"]["diverged"] == 0


def test_the_claim_needs_a_decade_in_every_quarter():
    assert ROWS["LSTM"]["claim"] == "reproduces"
    assert ROWS["LSTM of 1997"]["claim"] == "does not reproduce: input-gate bias 0 to 2"
    assert ROWS["LSTM of 1997"]["worst_quarter"].value == 0
    assert ROWS["tanh RNN"]["claim"] is None
    parts = {"a": Estimate(1.4, 1.0, 1.8), "b": Estimate(1.2, 0.9, 1.6)}
    assert robustness.verdict(parts) == "undecided in 1 of 2 quarters"
    assert robustness.verdict(parts | {"c": Estimate(0.5, 0.2, 0.9)}) == "does not reproduce: c"
    assert robustness.verdict({"a": parts["a"]}) == "reproduces"


def test_an_lstm_is_held_against_the_rnn_at_its_best():
    best = ROWS["tanh RNN"]["best_quarter"]
    assert best.value > ROWS["tanh RNN"]["decades"].value
    quarters = robustness.quarters(ledger.group(RECORDS, "adding-rnn"), "init_scale")
    assert list(quarters)[-1] == "scale of the start 1.4 to 2"
    assert best == quarters["scale of the start 1.4 to 2"]
    assert ROWS["LSTM"]["broader_than_rnn"] == "yes"
    assert ROWS["tanh RNN"]["broader_than_rnn"] is None
    one, two = Estimate(1.0, 0.8, 1.2), Estimate(2.0, 1.3, 2.4)
    assert [robustness.broader(a, b) for a, b in ((two, one), (one, two), (one, one))] == [
        "yes", "no", "undecided",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        (("reproduces", "reproduces"), "reproduces"),
        (("reproduces", "does not reproduce: here"), "reproduces partly"),
        (("reproduces", "undecided in 1 of 8 quarters"), "reproduces partly"),
        (("undecided in 1 of 8 quarters", "does not reproduce: here"), "does not reproduce"),
        (("undecided in 1 of 8 quarters", "undecided in 2 of 8 quarters"), "undecided"),
    ],
)
def test_the_verdict_is_over_all_tasks(told, verdict):
    rows = [
        {**ROWS[network], "claim": claim} for network in ("LSTM of 1997", "LSTM") for claim in told
    ]
    found = robustness.claims(CONFIG, rows)
    assert [c.verdict for c in found if "biases" in c.claim] == [verdict, verdict]
    assert "input- and output-gate" in found[0].claim


def test_the_forget_bias_has_no_say_in_the_claim_and_the_rnn_is_judged_where_it_is_best():
    def elsewhere(name, trial):
        return trial["gate_bias_f"] > 1.5 if name == "lstm" else trial.get("init_scale", 0) > 1.42

    rows = robustness.summarise(CONFIG, told(CONFIG, elsewhere))
    assert [row["claim"] for row in rows[1:]] == ["reproduces", None]
    assert rows[1]["decades"].value > 2 > rows[2]["decades"].high
    assert rows[2]["best_quarter"].value > 3
    assert rows[1]["broader_than_rnn"] == "no"


def test_maps_show_the_share_solved_in_each_bin():
    results = ledger.results(ledger.group(RECORDS, "adding-blocks"))
    tried, solved = robustness.counts(results, "gate_bias_i")
    assert tried.shape == (4, 7) and tried.sum() == CONFIG.seeds
    # below 0.1 the 1997 cell always works with a closed input gate, never with an open one
    assert (solved[:3, :5] == tried[:3, :5]).all()
    assert solved[3].sum() == 0 and solved[:, 5:].sum() == 0
    with figures.theme():
        (picture,) = robustness.draw(CONFIG, list(ROWS.values()), RECORDS)
    assert picture.name == "adding"
    assert (
        "LSTM of 1997: does not reproduce: input-gate bias 0 to 2; LSTM: reproduces"
        in picture.caption
    )
    axes = picture.figure.axes
    (mesh,) = (c for c in axes[0].collections if isinstance(c, QuadMesh))
    shown = np.ma.asarray(mesh.get_array()).reshape(4, 7)
    assert_allclose(shown.filled(-1), np.where(tried, solved / np.maximum(tried, 1), -1))
    labels = [(a.get_title(), a.get_ylabel()) for a in axes[:7]]
    assert labels[0] == ("LSTM of 1997", "input-gate bias")
    assert labels[2] == ("tanh RNN", "scale of the start")
    assert labels[6] == ("LSTM", "forget-gate bias")


def test_a_bin_without_trials_is_blank_and_has_no_say():
    few = Robustness(seeds=2, tasks=("adding",))
    records = told(few)
    rows = robustness.summarise(few, records)
    assert all(row["trials"] == 2 for row in rows)
    results = ledger.results(ledger.group(records, "adding-rnn"))
    assert robustness.shares(results, "init_scale").count(None) >= 2
    with figures.theme():
        assert len(robustness.draw(few, rows, records)) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": ("sums",)}, "--tasks=sums: need one of adding, recall"),
        ({"hidden": 5}, "--hidden=5: need an even number, for blocks of two"),
        ({"lag": 10}, "--lag=10: shortest must be an integer of at least 11, got 10"),
        (
            {"lag": 0, "tasks": ("recall",)},
            "--lag=0: need 1 to 1000000",
        ),
        ({"batch_size": 0}, "--batch_size=0: need 1 to 1000000"),
        (
            {"seed": 2**32 - 2, "seeds": 3},
            "--seed=4294967294: the last one, 4294967296, is beyond 4294967295",
        ),
    ],
)
def test_bad_values_are_refused_by_flag_value_and_what_is_right(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Robustness(**given)


def test_small_is_a_thousand_trials_or_more():
    config = robustness.SCALES["small"]
    assert config.seeds * len(config.tasks) * len(NETWORKS) >= 1000


def test_a_tiny_run_ends_with_table_and_figure(monkeypatch, tmp_path: Path, standard_promotion):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    tiny = ["--tasks=recall", "--lag=2", "--seeds=3", "--steps=4", "--hidden=4", "--batch_size=2"]
    path = tmp_path / "run"
    arguments = ["robustness", *tiny, "--engine=reference", f"--workdir={path}"]
    assert runner.main(robustness.EXPERIMENT, arguments) == 0
    rows = list(csv.DictReader((path / "summary.csv").read_text().splitlines()))
    assert [row["network"] for row in rows] == [network.label for network in NETWORKS.values()]
    records = [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]
    assert len(ledger.results(records)) == 9
    assert (path / "figures" / "recall.png").exists()
