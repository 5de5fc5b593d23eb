"""gradient_flow: plan, table, verdicts and figures as functions of records; one tiny run."""

import csv
import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import lstm_jax as lj
from experiments import gradient_flow
from experiments.common import gradient_paths, networks, runner
from experiments.gradient_flow import ALONE, CLOSED, NETWORKS, WHOLE, GradientFlow
from lstm_jax import diagnostics
from lstm_jax.nn import SequenceSpec
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.statistics import Estimate
from lstm_jax.training.trials import Trials, keys, make_trials

CONFIG = GradientFlow(
    networks=("rnn", "rnn_large", "carousel", "lstm_1"), seeds=3, lag=50, first=10, steps=20
)
SLOPES = {"rnn": -0.2, "rnn_large": 0.1, "lstm_1": -0.3, "carousel": 0.0}


def path(slope: float, trial: int, explained: float = 0.99) -> dict:
    """A straight line, a little apart for each trial."""
    slope *= 1 + 0.01 * trial
    logs = [slope * lag / math.log(10) for lag in CONFIG.lags]
    ripple = abs(math.expm1(slope * CONFIG.lag))
    return {"log10": logs, "slope": slope, "explained": explained, "ripple": ripple}


def told(slopes=SLOPES, **given) -> list[dict]:
    """What the groups of a finished run leave on the ledger, in a world."""
    records = []
    for name in CONFIG.networks:
        for group, stages in ((CONFIG.first, (0, CONFIG.first)), (CONFIG.steps, (CONFIG.steps,))):
            for trial in range(CONFIG.seeds):
                line = path(slopes[name], trial, **given)
                flow = dict.fromkeys(gradient_flow.paths(name).values(), line)
                flow["largest"] = {"log10": line["log10"]}
                records.append(
                    {"kind": "result", "group": f"{name}-{group}", "trial": trial,
                     "test_correct": 500, "test_n": 2000,
                     "flow": {str(stage): flow for stage in stages}}
                )  # fmt: skip
    return records


ROWS = gradient_flow.summarise(CONFIG, told())
AT = {(r["network"], r["updates"], r["path"]): r for r in ROWS}


def test_every_network_is_seen_twice_and_goes_on_in_between():
    groups = gradient_flow.plan(CONFIG, [])
    names = [f"{name}-{steps}" for name in CONFIG.networks for steps in (10, 20)]
    assert [group.name for group in groups] == names
    for first, last in zip(groups[::2], groups[1::2], strict=True):
        assert first.save_state and first.initial_state is None and first.steps == 10
        assert last.initial_state is not None and not last.save_state and last.steps == 20
        assert (first.task, first.model) == (last.task, last.model)
        assert first.task.length == CONFIG.lag + 2
        assert not first.task.solved(lj.tasks.Stats(jnp.float32(0), jnp.float32(1)))


def test_closed_forms_are_of_the_biases_alone():
    lags, length = np.array([0, 1, 100]), 102
    keep = {name: network.keep for name, network in NETWORKS.items() if network.keep}
    assert keep.keys() == {"gru", "carousel", "lstm_1", "lstm_5", "lstm_chrono"}
    left = {name: of(lags, length) for name, of in keep.items()}
    assert_allclose(left["lstm_1"][2], 2.5e-14, rtol=0.01)
    assert_allclose(left["lstm_5"][2], 0.51, rtol=0.01)
    assert_allclose(left["carousel"], 1)
    assert_allclose(left["gru"][2], 2.0**-100)
    draws = lj.initializers.chrono(length)(jax.random.key(0), lj.cells.LSTM(100_000))["f"]
    f = 1 / (1 + np.exp(-np.asarray(draws, np.float64)))
    assert_allclose(left["lstm_chrono"][1:], [np.mean(f**2) ** 0.5, np.mean(f**200) ** 0.5], 0.01)


@pytest.mark.parametrize(
    ("cell", "state", "gate"),
    [(gradient_paths.CutLSTM(3), "c", "f"), (gradient_paths.CutGRU(3), "h", "z")],
)
def test_along_the_cell_a_gradient_is_multiplied_by_the_gate_that_keeps(cell, state, gate):
    params = lj.init(cell, jax.random.key(0), 2)
    x = jax.random.normal(jax.random.key(1), (6, 2, 2))
    trace = lj.trace(cell, params, x)
    gradients = diagnostics.state_gradients(cell, params, x, lambda h: jnp.sum(h[-1] ** 2))
    g = getattr(gradients, state)[:-1]
    kept = getattr(trace.gates, gate)[1:-1]
    assert_allclose(g[:-1], g[1:] * kept, rtol=1e-5)
    assert np.abs(g[0]).min() > 0


def test_networks_start_as_they_are_called():
    task, initial = CONFIG.task, lj.initializers
    starts = {name: network.start(task) for name, network in NETWORKS.items()}
    for name, scale in (("rnn_small", 0.5), ("rnn", 1.0), ("rnn_large", 2.0)):
        assert starts[name] == {"w_h": initial.orthogonal(scale)}
    for name, bias in (("lstm_1", 1.0), ("lstm_5", 5.0)):
        assert starts[name] == {"b": initial.gate_bias(f=bias)}
    assert starts["lstm_chrono"] == {"b": initial.chrono(task.length)}
    assert starts["gru"] == starts["carousel"] == {}


def test_a_look_sees_what_a_plain_network_written_out_in_numpy_has():
    config = GradientFlow(networks=("rnn",), seeds=2, lag=4, hidden=2, first=1, steps=2)
    group = gradient_flow.plan(config, [])[0]
    assert isinstance(group.model, SequenceSpec) and isinstance(group.trials, Trials)
    params = jax.vmap(group.model.init)(jax.random.split(jax.random.key(0), 2))
    looked = gradient_paths.gradients(
        NETWORKS["rnn"], group.model, config.task, tuple(config.lags), params, group.trials
    )
    for n, seen in enumerate(looked):
        trial, mine = jax.tree.map(lambda leaf, n=n: leaf[n], (group.trials, params))
        batch = config.task.sample(keys(trial).evaluation, gradient_paths.SEQUENCES, "test")
        layer, head = jax.tree.map(
            lambda leaf: np.asarray(leaf, float),
            (networks.recurrent(group.model, mine), mine["head"]),
        )
        states = [np.zeros((gradient_paths.SEQUENCES, 2))]
        for x in np.asarray(batch.x, float):
            states.append(np.tanh(x @ layer.w_x + states[-1] @ layer.w_h + layer.b))
        odds = np.exp(states[-1] @ head["kernel"] + head["bias"])
        p = odds / odds.sum(1, keepdims=True)
        d = (p - np.eye(p.shape[1])[np.asarray(batch.y)]) @ head["kernel"].T
        norms, J, largest = [], np.broadcast_to(np.eye(2), (len(d), 2, 2)), []
        for h in states[:0:-1]:
            norms.append(np.linalg.norm(d, axis=1))
            largest.append(np.linalg.norm(J, 2, axis=(1, 2))[: gradient_paths.MATRICES])
            d = (d * (1 - h**2)) @ layer.w_h.T
            J = J * (1 - h**2)[:, None] @ layer.w_h.T
        left = np.array(norms[1:]) / norms[1]  # relative to one step before the last
        logs, k = np.log(left).mean(1), np.arange(5)
        line = np.polyval(np.polyfit(k, logs, 1), k)
        found = seen[f"{WHOLE}, h"]
        assert_allclose(found["log10"], logs / math.log(10), rtol=1e-5, atol=1e-6)
        assert_allclose(found["slope"], line[1] - line[0], rtol=1e-4)
        assert_allclose(found["explained"], 1 - np.var(logs - line) / np.var(logs), rtol=1e-4)
        assert_allclose(found["ripple"], np.abs(left - 1).max(), rtol=1e-5)
        wanted = np.log10(largest[:5]).mean(1)
        assert_allclose(seen["largest"]["log10"], wanted, rtol=1e-4, atol=1e-6)


def test_a_line_is_fitted_to_what_is_not_yet_beyond_the_smallest_number():
    norms = jnp.array([[2.0, 6.0], [1.0, 3.0], [0.5, 1.5], [0.25, 0.0], [0.0, 0.0]])
    told = gradient_paths._line(norms, (0, 1, 4))
    assert_allclose(told["slope"], math.log(0.5), rtol=1e-6)
    assert_allclose(told["explained"], 1, atol=1e-6)
    assert_allclose(told["log10"], [0, math.log10(0.5), -math.inf], rtol=1e-6)
    assert told["ripple"] == 1


def test_what_is_seen_before_the_first_update_is_of_the_initial_weights():
    class Model:
        def init(self, key, *, scale, gate_bias):
            return 0 * scale

    def looks(params, trials):
        return np.asarray(params).tolist()

    trials = make_trials(seed=[0, 1])
    found = gradient_flow.before_and_after(Model(), looks, CONFIG, np.array([7, 8]), trials)  # pyright: ignore
    assert found == [{"flow": {"0": 0, "10": 7}}, {"flow": {"0": 0, "10": 8}}]
    found = gradient_flow.after(looks, CONFIG, np.array([7, 8]), trials)
    assert found == [{"flow": {"20": 7}}, {"flow": {"20": 8}}]


def test_the_table_says_what_becomes_of_each():
    rnn, large = AT["RNN, orthogonal weights", 0, WHOLE], AT["RNN, large weights", 20, WHOLE]
    assert rnn["verdict"] == "vanishes, log-linear"
    assert_allclose(rnn["slope"].value, -0.2 * 1.01)
    assert_allclose(rnn["log10_left_at_50"].value, -0.2 * 1.01 * 50 / math.log(10))
    assert rnn["log10_of_closed_form"] is None and rnn["test_accuracy"] is None
    assert large["verdict"] == "explodes, log-linear" and large["test_accuracy"] == 0.25
    assert AT["carousel of 1997", 10, ALONE]["verdict"] == "flat"
    lstm = AT["LSTM, bias 1", 0, ALONE]
    assert_allclose(lstm["log10_of_closed_form"], 50 * math.log10(1 / (1 + math.exp(-1))))
    assert AT["LSTM, bias 1", 10, ALONE]["log10_of_closed_form"] is None  # biases have moved
    assert len(ROWS) == 3 * (1 + 1 + 2 + 2)


def test_verdicts_take_intervals_at_their_word():
    verdict = gradient_flow.verdict
    assert verdict(Estimate(-0.1, -0.2, -0.01), 0.95, 1.0) == "vanishes, log-linear"
    assert verdict(Estimate(-0.1, -0.2, -0.01), 0.5, 1.0) == "vanishes"
    assert verdict(Estimate(-0.1, -0.2, 0.01), 0.95, 1.0) == "neither"
    assert verdict(Estimate(0.1, 0.01, 0.2), 0.95, 1.0) == "explodes, log-linear"
    assert verdict(Estimate(0, -1e-9, 1e-9), None, 1e-7) == "flat"
    assert verdict(statistics.interval([]), None, 1.0) is None


def test_claims_hold_in_this_world_and_not_in_another():
    found = gradient_flow.claims(CONFIG, ROWS)
    assert [claim.verdict for claim in found] == ["reproduces"] * 4
    assert "10^-6.6 left at lag 50, of the bias alone 10^-6.8" in found[-1].ours
    other = {"rnn": 0.1, "rnn_large": -0.1, "carousel": 1e-6, "lstm_1": 0.0}
    found = gradient_flow.claims(CONFIG, gradient_flow.summarise(CONFIG, told(other)))
    assert [claim.verdict for claim in found] == ["does not reproduce"] * 4
    bent = gradient_flow.claims(CONFIG, gradient_flow.summarise(CONFIG, told(explained=0.5)))
    assert [claim.verdict for claim in bent][:2] == ["does not reproduce"] * 2


def test_a_trial_that_diverged_has_no_say():
    records = told()
    nothing = {"log10": [None] * len(CONFIG.lags), "slope": None, "explained": None, "ripple": None}
    for record in records:
        if record["trial"] == 0 and record["group"] == "rnn-20":
            record["flow"]["20"] = dict.fromkeys(record["flow"]["20"], nothing)
    rows = gradient_flow.summarise(CONFIG, records)
    row = next(r for r in rows if r["updates"] == 20)
    assert_allclose(row["slope"].value, -0.2 * 1.015)
    with figures.theme():
        assert len(gradient_flow.draw(CONFIG, rows, records)) == 4


def test_figures_draw_the_closed_form_beside_what_was_measured():
    with figures.theme():
        pictures = {p.name: p for p in gradient_flow.draw(CONFIG, ROWS, told())}
    assert list(pictures) == ["start", "training", "cell", "jacobians"]
    _, alone, _ = pictures["start"].figure.axes
    lines = {str(line.get_label()): line for line in alone.lines}
    assert set(lines) == {"carousel of 1997", "LSTM, bias 1", CLOSED}
    x, y = map(np.asarray, lines["LSTM, bias 1"].get_data())
    assert x.tolist() == CONFIG.lags
    assert_allclose(y, np.exp(-0.303 * np.array(CONFIG.lags)), rtol=1e-9)
    closed = [line for line in alone.lines if line.get_label() == CLOSED]
    assert_allclose(np.asarray(closed[1].get_ydata())[-1], (1 / (1 + math.exp(-1))) ** 50)
    panels = pictures["training"].figure.axes
    assert [axes.get_title() for axes in panels] == [NETWORKS[n].label for n in CONFIG.networks]
    assert len(panels[0].lines) == 3 and len(panels[3].lines) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"networks": ("lstm",)}, f"--networks=lstm: need one of {', '.join(NETWORKS)}"),
        ({"lag": 2}, "--lag=2: need 3 to 1000000"),
        ({"first": 1000}, "--first=1000: need fewer than --steps=1000"),
        ({"hidden": 3}, "--hidden=3: need an even number, for blocks of two"),
        ({"learning_rate": 0.0}, "--learning_rate=0: need 1e-30 to 1e+30"),
        ({"seed": 2**32 - 1}, "--seed=4294967295: the last one, 4294967304, is beyond 4294967295"),
    ],
)
def test_bad_values_are_refused_by_flag_value_and_what_is_right(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GradientFlow(**given)


def test_a_tiny_run_measures_at_every_stage(monkeypatch, tmp_path: Path, standard_promotion):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    tiny = ["--networks=carousel", "--lag=4", "--seeds=2", "--first=1", "--steps=3", "--hidden=2"]
    where = tmp_path / "run"
    arguments = ["gradient_flow", *tiny, "--batch_size=2", f"--workdir={where}"]
    assert runner.main(gradient_flow.EXPERIMENT, arguments) == 0
    rows = list(csv.DictReader((where / "summary.csv").read_text().splitlines()))
    assert [row["verdict"] for row in rows if row["path"] == ALONE] == ["flat"] * 3
    records = [json.loads(line) for line in (where / "records.jsonl").read_text().splitlines()]
    first, last = (ledger.results(ledger.group(records, f"carousel-{steps}")) for steps in (1, 3))
    assert [set(r["flow"]) for r in (*first, *last)] == [{"0", "1"}] * 2 + [{"3"}] * 2
    flow = first[0]["flow"]["0"]
    assert_allclose(flow[ALONE]["log10"], np.zeros(5), atol=1e-15)
    assert abs(flow["largest"]["log10"][0]) < 1e-15  # of the identity
    assert flow != first[0]["flow"]["1"]
