"""sweep: strategies as plans of config and records, what is refused, and figures."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from experiments import sweep
from experiments.common import runner
from experiments.sweep import EXPERIMENT, Sweep
from lstm_jax.nn import SequenceSpec
from lstm_jax.report import figures
from lstm_jax.report.space import points
from lstm_jax.search import Group, importance, plans, sweeps
from lstm_jax.tasks import Adding
from lstm_jax.tasks.base import never_solved
from lstm_jax.training.trials import Trials

SPACE = "learning_rate=log:1e-4:1e-1 cell=lstm,gru hidden=int:3:8 forget_bias=uniform:-1:3"
CONFIG = Sweep(space=SPACE, trials=20, batch="6", steps=90, lag=5, tuning_seeds=2, seeds=3, best=2)


def trials(group: Group) -> Trials:
    assert group.trials is not None
    return group.trials


def trained(config: Sweep, diverging=lambda values: False) -> tuple[list[dict], list[Group]]:
    """The records of a whole run whose loss is the distance of the rate from 1e-2; its groups."""
    records: list[dict] = []
    while True:
        done = {r["group"] for r in records}
        groups = sweep.plan(config, records)
        left = [group for group in groups if group.name not in done]
        if not left:
            return records, groups
        records += told(left[0], diverging)


def told(group: Group, diverging=lambda values: False) -> list[dict]:
    return [
        {
            "kind": "result", "group": group.name, "trial": i, "seed": int(seed), **label,
            "status": "diverged" if diverging(label["values"]) else "finished",
            "step": group.steps, "solved_at": -1, "loss": 0.1, "metric": 0.5,
            f"{group.split}_loss": abs(math.log10(label["values"]["learning_rate"]) + 2),
            f"{group.split}_correct": 7, f"{group.split}_n": 10, f"{group.split}_metric": 0.7,
        }
        for i, (seed, label) in enumerate(zip(trials(group).seed, group.labels, strict=True))
    ]  # fmt: skip


def pairs(groups: list[Group]) -> list[tuple[int, int]]:
    return [
        (label["configuration"], int(seed))
        for group in groups
        for label, seed in zip(group.labels, trials(group).seed, strict=True)
    ]


def distance(values) -> float:
    return abs(math.log10(values["learning_rate"]) + 2)


def test_random_search_trains_every_configuration_once_with_each_seed_in_waves_of_r():
    groups = sweep.plan(CONFIG, [])
    assert sorted(pairs(groups)) == [(c, s) for c in range(20) for s in (0, 1)]
    assert max(len(trials(group).seed) for group in groups) <= 6
    assert len({group.name for group in groups}) == len(groups)
    space = sweep.space_of(CONFIG)
    for group in groups:
        for label, rate in zip(group.labels, trials(group).learning_rate, strict=True):
            assert label["values"] == space.draw(0, label["configuration"])
            assert rate == np.float32(label["values"]["learning_rate"])


def test_structure_makes_groups_and_widths_only_buckets():
    for group in sweep.plan(CONFIG, []):
        kinds = {label["values"]["cell"] for label in group.labels}
        hidden = [label["values"]["hidden"] for label in group.labels]
        assert [kinds] == [{type(group.model.cell).__name__.lower()}]
        assert all(group.model.cell.hidden / 2 < h <= group.model.cell.hidden for h in hidden)
        assert (group.initial_state is None) == all(h == group.model.cell.hidden for h in hidden)
        assert set(trials(group).gate_bias) == ({"f"} if kinds == {"lstm"} else {"z"})


def test_a_grid_is_every_combination():
    config = dataclasses.replace(CONFIG, strategy="grid", points=3, space="b1=0,0.5 clip=log:1:4")
    points = [label["values"] for g in sweep.plan(config, []) for label in g.labels][::2]
    expected = [(b, pytest.approx(c)) for b in (0, 0.5) for c in (1, 2, 4)]
    assert [(p["b1"], p["clip"]) for p in points] == expected


def test_the_best_are_trained_anew_on_fresh_seeds_and_tested():
    records, groups = trained(CONFIG)
    fresh = [group for group in groups if group.split == "test"]
    space = sweep.space_of(CONFIG)
    best = sorted(range(20), key=lambda i: distance(space.draw(0, i)))[:2]
    assert sorted(pairs(fresh)) == sorted((c, s) for c in best for s in (2, 3, 4))
    rows = sweep.summarise(CONFIG, records)
    assert [row["configuration"] for row in rows] == best
    assert [row["validation"] for row in rows] == [distance(space.draw(0, i)) for i in best]
    assert rows[0]["accuracy"].value == pytest.approx(0.7) and rows[0]["solved"].total == 3
    lines = sweep.every(CONFIG, records)
    assert len(lines) == 20 * 2 + 2 * 3 and list(lines[0])[:3] == [
        "configuration", "seed", "learning_rate"
    ]  # fmt: skip


def halving(**settings) -> Sweep:
    settings = {"trials": 18, "rungs": 3, "tuning_seeds": 1} | settings
    return dataclasses.replace(CONFIG, strategy="halving", **settings)


def rungs(groups: list[Group]) -> dict[str, list[Group]]:
    named: dict[str, list[Group]] = {}
    for group in groups:
        if group.split == "validation":
            named.setdefault(group.name[: len("rung 0")], []).append(group)
    return named


def test_of_every_rung_the_best_third_goes_on_in_smaller_batches():
    config = halving()
    _, groups = trained(config)
    by_rung, space = rungs(groups), sweep.space_of(config)
    order = sorted(range(18), key=lambda i: distance(space.draw(0, i)))
    for name, count, steps in (("rung 0", 18, 10), ("rung 1", 6, 30), ("rung 2", 2, 90)):
        mine = by_rung[name]
        assert sorted(c for c, _ in pairs(mine)) == sorted(order[:count])
        assert {group.steps for group in mine} == {steps}
        assert {group.save_state for group in mine} == {name != "rung 2"}
    assert len(by_rung["rung 2"]) < len(by_rung["rung 0"])


def test_all_seeds_of_a_survivor_go_on():
    _, groups = trained(halving(tuning_seeds=2))
    assert {name: len(pairs(some)) for name, some in rungs(groups).items()} == {
        "rung 0": 36, "rung 1": 12, "rung 2": 4,
    }  # fmt: skip


def test_what_diverged_goes_no_further_and_is_last():
    config = halving()
    _, groups = trained(config, diverging=lambda v: distance(v) < 0.5)
    space = sweep.space_of(config)
    order = sorted(range(18), key=lambda i: distance(space.draw(0, i)))
    calm = [i for i in order if distance(space.draw(0, i)) >= 0.5]
    assert sorted(c for c, _ in pairs(rungs(groups)["rung 1"])) == sorted(calm[:6])
    records, groups = trained(CONFIG, diverging=lambda v: True)
    assert all(group.split == "validation" for group in groups)
    assert sweep.summarise(CONFIG, records) == [] and len(sweep.draw(CONFIG, [], records)) == 2


def test_a_plan_is_the_same_however_often_it_is_asked():
    for config in (CONFIG, halving(), dataclasses.replace(CONFIG, strategy="optuna", trials=5)):
        records, groups = trained(config)
        again = sweep.plan(config, json.loads(json.dumps(records)))
        assert [g.name for g in again] == [g.name for g in groups]
        for one, other in zip(again, groups, strict=True):
            assert list(one.labels) == list(other.labels)
            jax.tree.map(np.testing.assert_array_equal, one.trials, other.trials)


def test_optuna_is_asked_in_batches_that_follow_from_those_before():
    pytest.importorskip("optuna")
    config = dataclasses.replace(CONFIG, strategy="optuna", trials=7)
    first = sweep.plan(config, [])
    assert sorted(pairs(first)) == [(c, s) for c in range(3) for s in (0, 1)]  # R = 6, two seeds
    begun = sweep.plan(config, told(first[0]))
    assert [list(g.labels) for g in begun] == [list(g.labels) for g in first]
    _, groups = trained(config)
    searched = [group for group in groups if group.split == "validation"]
    assert sorted(pairs(searched)) == [(c, s) for c in range(7) for s in (0, 1)]


def test_ranked_by_loss_nothing_stops_early():
    assert sweep.plan(CONFIG, [])[0].task == never_solved(Adding(5))
    by_accuracy = dataclasses.replace(CONFIG, metric="accuracy")
    assert sweep.plan(by_accuracy, [])[0].task == Adding(5)
    assert never_solved(Adding(5)) == never_solved(Adding(5))
    assert never_solved(Adding(5)) != Adding(5)


def test_r_is_settled_from_the_machine_and_what_is_asked():
    automatic = dataclasses.replace(CONFIG, batch="auto")
    devices = jax.device_count()
    assert sweep.adapt(automatic).batch == "40"  # 20 configurations, two seeds
    many = dataclasses.replace(automatic, trials=10_000)
    assert sweep.adapt(many).batch == str(sweeps.ON_A_CPU * devices)
    asked = dataclasses.replace(many, strategy="optuna", trials=100)
    assert sweep.adapt(asked).batch == "20" and sweep.adapt(CONFIG) == CONFIG


def test_elsewhere_than_on_a_cpu_memory_decides(monkeypatch):
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 200}

    monkeypatch.setattr(sweeps.jax, "local_devices", lambda: [Device()])
    monkeypatch.setattr(sweeps.jax, "device_count", lambda: 2)
    monkeypatch.setattr(sweeps, "footprint", lambda *args, places, **kw: places * 64.0)
    config = dataclasses.replace(CONFIG, batch="auto", trials=1000)
    assert sweep.adapt(config).batch == "20"  # 0.8 of 800 bytes, 64 each, two devices
    monkeypatch.setattr(sweeps, "footprint", lambda *args, places, **kw: places * 1e6)
    with pytest.raises(ValueError, match="--batch=auto: not even one trial fits"):
        sweep.adapt(config)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--batch=0", "--batch=0: need 1 to 20000, or auto"),
        ("--trials=0", "--trials=0: need 1 to 20000"),
        ("--space=clip=uniform:2:1", "--space: clip=uniform:2:1: low must be below high"),
        ("--space=learning_rate=log:0:1", "--space: learning_rate=log:0:1: a logarithm needs"),
        ("--space=cell=", "--space: cell=: the choice is empty"),
        ("--space=size=3", "--space: size is unknown: need cell, hidden, depth, optimizer"),
        ("--space=cell=gru input_bias=1", "--space: input_bias: GRU has no such bias"),
        ("--space=lag=1,5", "--space: length must be an integer of at least 2, got 1"),
        (
            "--space=cell=layer_norm hidden=int:4:8",
            "--space: hidden=5: the units of LayerNormLSTM depend",
        ),
        ("--space=zoneout_x=0.1", "--space: zoneout_x: LSTM has no such state; it has zoneout_h"),
        ("--strategy=sweep", "--strategy=sweep: need one of grid, random, halving, optuna"),
        ("--strategy=halving --trials=5", "--trials=5: --rungs=4 by --eta=3 need 27 or more"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(flag, words, tmp_path, capsys):
    space = [] if "space" in flag else ["--space=clip=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "start", lambda platform: None)
        arguments = [f"--{part}" for part in flag.removeprefix("--").split(" --")] + space
        code = runner.main(EXPERIMENT, ["sweep", f"--workdir={tmp_path / 'run'}", *arguments])
    said = capsys.readouterr()
    assert code == 2 and words in said.err and said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_best_so_far_is_against_all_updates_a_survivor_s_counted_once():
    def result(configuration, step, loss):
        kinds = {"configuration": configuration, "seed": 0, "step": step, "status": "finished"}
        return {**kinds, "validation_loss": loss}

    results = [result(0, 10, 3.0), result(1, 10, 2.0), result(1, 30, 2.5), result(2, 5, 1.0)]
    assert plans.best_so_far(results, "loss") == ([10, 20, 40, 45], [3.0, 2.0, 2.0, 1.0])


def test_the_figures_are_drawn_of_ranges_choices_and_diverged_trials():
    records, _ = trained(CONFIG, diverging=lambda v: v["learning_rate"] > 5e-2)
    with figures.theme():
        pictures = sweep.draw(CONFIG, sweep.summarise(CONFIG, records), records)
        assert all(figures.png(p.figure).startswith(b"\x89PNG") for p in pictures)
    axes = pictures[0].figure.axes
    assert [a.get_xlabel() for a in axes] == ["learning_rate", "cell", "hidden", "forget_bias"]
    assert axes[0].get_xscale() == "log"
    assert [t.get_text() for t in axes[1].get_xticklabels()] == ["lstm", "gru"]
    assert (
        sum(np.shape(c.get_offsets())[0] for c in axes[0].collections) == 40
    )  # every trial is there


def test_what_matters_is_told_by_a_forest_and_drawn_for_hands():
    records, _ = trained(CONFIG, diverging=lambda v: v["learning_rate"] > 5e-2)
    weighed, trials, name = importance.searched(sweep.space_of(CONFIG), CONFIG.metric, records)
    assert [p.name for p in weighed] == ["learning_rate", "cell", "hidden", "forget_bias"]
    assert len(trials) == 20 * CONFIG.tuning_seeds
    assert any(trial[name] is None for trial in trials)  # diverged
    assert all(t["learning_rate"] > 5e-2 for t in trials if t[name] is None)
    with figures.theme():
        pictures = sweep.draw(CONFIG, sweep.summarise(CONFIG, records), records)
    *_, bars, surface = pictures
    assert [bars.name, surface.name] == ["importance", "two_that_matter"]
    first, second = surface.figure.axes[0].get_xlabel(), surface.figure.axes[0].get_ylabel()
    tops = [t.get_text() for t in bars.figure.axes[0].get_yticklabels()]
    assert [t for t in tops if "×" not in t][:2] == [first, second]
    page = "".join(part for picture in pictures for part in picture.interactive)
    assert page.count("Plotly.newPlot") == 1 and "forget bias" in page


def test_a_search_too_small_for_a_forest_has_none():
    few = dataclasses.replace(CONFIG, trials=4, tuning_seeds=1, best=1)
    records, _ = trained(few)
    tried, progress = sweep.draw(few, sweep.summarise(few, records), records)
    assert [tried.name, progress.name] == ["responses", "search"]
    assert len(tried.interactive) == 2 and not progress.interactive  # the script and the chart


def test_the_lines_of_the_summary_are_points_of_the_reports_space():
    records, _ = trained(CONFIG)
    parameters = importance.searched(sweep.space_of(CONFIG), CONFIG.metric, records).parameters
    assert [p.name for p in parameters] == ["learning_rate", "cell", "hidden", "forget_bias"]
    where = points(parameters, sweep.every(CONFIG, records))
    assert where.shape == (46, 4) and np.all((where >= 0) & (where <= 1))


def test_zoneout_wraps_the_cell_in_every_width():
    config = dataclasses.replace(CONFIG, space="zoneout_c=uniform:0:0.5 hidden=int:3:8")
    group = sweep.plan(config, [])[0]
    assert str(group.model.cell).startswith("Zoneout(") and list(trials(group).zoneout) == ["c"]


def test_a_network_of_a_point_is_in_its_own_width_or_its_bucket():
    shared = sweep.search_of(CONFIG)
    point = {"cell": "lstm", "hidden": 5}
    own, wide = shared.network(point), shared.network(point, wide=True)
    assert isinstance(own, SequenceSpec) and (own.cell.hidden, wide.cell.hidden) == (5, 8)
