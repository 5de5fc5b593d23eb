"""odyssey: settings, verdicts, table and figures as functions of records; one tiny run."""

import csv
import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from experiments import odyssey
from experiments.common import findings, runner
from experiments.common.findings import TaskResults
from experiments.odyssey import TASKS, VANILLA, VARIANTS, Odyssey
from lstm_jax import cells
from lstm_jax.nn import SequenceSpec, initializers
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.importance import Effect
from lstm_jax.report.statistics import Comparison, Estimate
from lstm_jax.search import widths
from lstm_jax.training.trials import Trials

CONFIG = Odyssey(tasks=("digits",), seed=5)
CONSTANT = TASKS["digits"].constant


def told(config: Odyssey, loss) -> list[dict]:
    """The results of a finished run in a world where `loss(variant, point)` is a trial's."""
    return [
        {"kind": "result", "group": f"{task}-{variant}", "trial": n, "task": task,
         "variant": variant, **point, "status": "finished", "step": 9,
         "test_loss": loss(variant, point)}
        for task in config.tasks
        for variant in config.variants
        for n, point in enumerate(odyssey.drawn(config, task, variant))
    ]  # fmt: skip


def as_published(variant: str, point: dict) -> float:
    """The rate matters most, the width second; without forget gate or squashing it is worse."""
    miss = (np.log10(point["learning_rate"]) / 3) ** 2
    handicap = 0.4 if variant in ("NFG", "NOAF") else 0.0
    return float(0.2 + miss + 0.1 * np.log2(64 / point["hidden"]) / 3 + handicap)


@functools.cache
def records() -> list[dict]:
    return told(CONFIG, as_published)


@functools.cache
def rows() -> Any:
    return odyssey.summarise(CONFIG, records())


def verdict(rows) -> dict[int, str]:
    said = [(str(r["what"]), str(r["verdict"])) for r in rows if r["task"] == "finding"]
    return {int(what[0]): words for what, words in said}


def test_every_bucket_of_widths_of_a_task_and_variant_is_a_group():
    config = Odyssey(seeds=12, steps=7, batch_size=3, hidden=20, narrowest=7)
    groups = odyssey.plan(config, [])
    names = [group.name for group in groups]
    assert len(set(names)) == len(names)
    for task in config.tasks:
        for variant in VARIANTS:
            mine = [g for g in groups if g.name.startswith(f"{task}-{variant}-")]
            points = odyssey.drawn(config, task, variant)
            labels = [label for group in mine for label in group.labels]
            assert sorted(p["hidden"] for p in points) == sorted(p["hidden"] for p in labels)
            for group in mine:
                wide = cells.odyssey(variant, int(group.name.rsplit("-", 1)[1]))
                assert isinstance(group.model, SequenceSpec) and group.model.cell == wide
                assert {widths.bucket(p["hidden"]) for p in group.labels} == {wide.hidden}
                assert group.model.w_x == group.model.w_h == initializers.normal(0.1)
    sizes = {(g.steps, g.batch_size, g.optimizer, g.split) for g in groups}
    assert sizes == {(7, 3, "nesterov", "test")}


def test_trials_have_the_settings_that_their_labels_say_and_seeds_of_their_own():
    groups = odyssey.plan(Odyssey(seeds=12, tasks=tuple(TASKS)), [])
    seeds = []
    for group in groups:
        trials = group.trials
        assert isinstance(trials, Trials)
        seeds += trials.seed.tolist()
        for field, name in (("learning_rate", "learning_rate"), ("input_noise", "input_noise")):
            assert_allclose(getattr(trials, field), [p[name] for p in group.labels], rtol=1e-6)
        assert_allclose(trials.b1, [1 - p["one_minus_momentum"] for p in group.labels], rtol=1e-5)
        assert np.all(np.isinf(trials.clip))
    assert sorted(seeds) == list(range(12 * 9 * 3))


def test_of_n_settings_each_has_an_nth_of_every_range_to_itself():
    for variant in (VANILLA, "FGR"):
        points = odyssey.drawn(CONFIG, "digits", variant)
        for parameter in odyssey.space(CONFIG):
            where = parameter.positions([point[parameter.name] for point in points])
            if not parameter.is_whole:  # widths are rounded
                assert sorted((where * CONFIG.seeds).astype(int)) == list(range(CONFIG.seeds))
            assert where.min() < 0.08 and where.max() > 0.92
    one, other = (odyssey.drawn(CONFIG, "digits", v) for v in (VANILLA, "NP"))
    assert {p["learning_rate"] for p in one}.isdisjoint(p["learning_rate"] for p in other)
    many = odyssey.drawn(Odyssey(seeds=2000), "chorales", VANILLA)
    columns = np.array([[np.log(p[q.name]) for p in many] for q in odyssey.space(CONFIG)])
    assert np.abs(np.corrcoef(columns)[np.triu_indices(4, 1)]).max() < 4 / np.sqrt(2000)


def test_a_trial_counts_as_the_constant_answer_where_it_is_worse():
    result = {"task": "digits", "status": "finished", "test_loss": 0.3}
    assert odyssey.loss(result) == 0.3
    for worse in ({"test_loss": 9.0}, {"test_loss": None}, {"status": "diverged"}):
        assert odyssey.loss({**result, **worse}) == CONSTANT == np.log(10)


def test_a_world_as_published_gets_every_finding():
    assert verdict(rows()) == dict.fromkeys(findings.CLAIMS, "reproduces")
    by = {row["what"]: row for row in rows()}
    tenth = statistics.best_share([r["test_loss"] for r in records() if r["variant"] == "NFG"])
    assert len(tenth) == 3
    assert by["NFG"]["best_tenth"] == pytest.approx(np.mean(tenth))
    assert by["NFG"]["verdict"] == "significantly worse" and by["NFG"]["p"] < 0.05
    assert by["NFG"]["above_vanilla"] == pytest.approx(0.4, abs=0.1)
    assert by["NFG"]["low"] < by["NFG"]["above_vanilla"] < by["NFG"]["high"]
    assert by["CIFG"]["verdict"] == "not significantly different" and by["CIFG"]["p"] > 0.05
    assert by[VANILLA]["p"] is None
    assert by["learning rate"]["high"] >= by["learning rate"]["share"] > 2 / 3
    vanilla = by[VANILLA]["best_tenth"]
    found = odyssey.analyse(CONFIG, "digits", records(), None)
    assert found.gain == pytest.approx(CONSTANT - vanilla)
    assert found.learnt == pytest.approx(vanilla / CONSTANT, rel=0.1)  # a median, of three


def test_claims_are_the_findings_with_what_came_out_here():
    claims = odyssey.claims(CONFIG, rows())
    assert [c.verdict for c in claims] == ["reproduces"] * 5
    ours = [c.ours for c in claims]
    assert ours[0] == "none"
    assert re.match(r"digits: NFG 0\.\d+ \[.*\] nats \(p .*\); digits: NOAF 0", ours[1])
    assert ours[2].count("digits: ") == 2 and "CIFG" in ours[2] and "NP" in ours[2]
    assert ours[3].startswith("digits: learning rate 0.") and ours[3].count("digits: ") == 4
    assert re.fullmatch(r"digits: all pairs 0\.[01]\d", ours[4])


def test_another_world_gets_none():
    """Noise and width matter together; NP is best, nothing is critical, CIFG is harmful."""

    def loss(variant, point):
        handicap = {"NP": -0.1, "CIFG": 0.5}.get(variant, 0.0)
        apart = (point["input_noise"] > 0.5) != (point["hidden"] > 22)
        return 0.5 + handicap + 0.2 * point["input_noise"] + 0.3 * apart

    said = verdict(odyssey.summarise(CONFIG, told(CONFIG, loss)))
    assert said[1] == said[2] == said[5] == "does not reproduce"
    assert said[3] == "reproduces partly"
    assert said[4] == "reproduces partly"  # the momentum does nothing here


def test_nothing_is_said_where_vanilla_has_not_learnt():
    said = verdict(odyssey.summarise(CONFIG, told(CONFIG, lambda v, p: 2.2 - 0.1 * (v == "NP"))))
    assert said == dict.fromkeys(findings.CLAIMS, "undecided")
    flat = told(CONFIG, lambda v, p: 99.0)
    rows = odyssey.summarise(CONFIG, flat)
    assert verdict(rows) == dict.fromkeys(findings.CLAIMS, "undecided")
    with figures.theme():
        assert [p.name for p in odyssey.draw(CONFIG, rows, flat)] == ["variants"]


def test_nothing_is_said_of_shares_that_a_forest_cannot_know():
    rng = np.random.default_rng(0)
    rows = odyssey.summarise(CONFIG, told(CONFIG, lambda v, p: rng.uniform(0.5, 1.0)))
    assert not any(row["share"] for row in rows)
    said = verdict(rows)
    assert said[4] == said[5] == "undecided" != said[1]


def effects(**shares: float) -> list[Effect]:
    names = {name: tuple(name.split("__")) for name in shares}
    return [Effect(names[n], Estimate(v, 0.0, 1.0)) for n, v in shares.items()]


def against(high: float = 0.1, **corrected: float) -> list[Comparison]:
    """Tests of these variants, worse where positive, with |value| as corrected p."""
    return [
        Comparison(n, Estimate(float(np.sign(v)), -9, high), 0.0, 1.0, 0.0, abs(v))
        for n, v in corrected.items()
    ]


def test_the_rules_are_those_of_the_docstring():
    same = {"CIFG": 0.5, "NP": -0.5, "NFG": 0.04, "NOAF": 0.06}
    assert findings.of_variants(against(**same), 1.0) == {
        1: [True],
        2: [True, False],
        3: [True, True],
    }
    few = findings.of_variants(against(NP=0.01, NFG=0.01), 1.0)
    assert few == {1: [True], 2: [True], 3: [False]}
    enough = findings.of_variants(against(**same, high=0.19), 2.0)
    assert enough[2] == [True, False], "a tenth of what vanilla gains"
    wide = findings.of_variants(against(**same, high=0.11), 1.0)
    assert wide == {1: [True], 2: [True], 3: [True, True]}, "of NOAF nothing is known"
    better = against(**same | {"NP": -0.049, "NOAF": -0.01, "CIFG": 0.049})
    assert findings.of_variants(better, 1.0) == {1: [False], 2: [True, False], 3: [False, True]}
    main = effects(learning_rate=0.67, hidden=0.1, one_minus_momentum=0.009, input_noise=0.05)
    pair = effects(learning_rate__hidden=0.12, hidden__input_noise=0.07)
    assert findings.of_shares(main + pair) == {4: [True, True, True], 5: [True]}
    main = effects(learning_rate=0.66, hidden=0.1, one_minus_momentum=0.011, input_noise=0.15)
    pair = effects(learning_rate__hidden=0.12, hidden__input_noise=0.09)
    assert findings.of_shares(main + pair) == {4: [False, False, False], 5: [False]}


def test_only_tasks_that_were_learnt_have_a_say():
    shares = effects(learning_rate=0.7, hidden=0.1, one_minus_momentum=0.0, input_noise=0.0)
    tests = against(CIFG=0.5, NP=0.5, NFG=0.01, NOAF=0.01)
    good, poor = (
        TaskResults(0.5, 1.0, tests, shares, 0.8),
        TaskResults(0.9, 0.1, tests[:1], [], 0.0),
    )
    every = dict.fromkeys(findings.CLAIMS, "reproduces")
    assert findings.verdicts({"a": good, "b": poor}) == every
    unknown = findings.verdicts({"a": good._replace(explained=0.4)})
    assert unknown == every | {4: "undecided", 5: "undecided"}
    harmed = good._replace(tests=against(CIFG=0.01, NP=0.5, NFG=0.01, NOAF=0.5))
    both = findings.verdicts({"a": good, "b": harmed})
    assert (both[2], both[3]) == ("reproduces partly", "reproduces partly")


def test_figures_show_the_tests_and_tell_the_verdicts():
    with figures.theme():
        boxes, shares = odyssey.draw(CONFIG, rows(), records())
    (axes,) = boxes.figure.axes
    marks = dict(zip(VARIANTS, [text.get_text() for text in axes.texts], strict=True))
    assert marks.pop(VANILLA) == ""
    assert {name for name, mark in marks.items() if "*" in mark} == {"NFG", "NOAF"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["V", *VARIANTS[1:]]
    assert "(1) no variant significantly better than vanilla: reproduces" in boxes.caption
    assert "(5) hyperparameters nearly independent: reproduces." in shares.caption
    assert shares.figure.axes[0].get_yticklabels()[0].get_text() == "learning rate"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variants": ("NP",)}, "--variants=NP: need vanilla among them"),
        ({"tasks": ("sums",)}, "--tasks=sums: need one of chorales, digits, permuted"),
        ({"seeds": 10}, "--seeds=10: need 11 to 10000"),
        (
            {"hidden": 8},
            "--narrowest=8: need fewer than --hidden=8, the most",
        ),
        ({"pixels": 3}, "--pixels=3: pixels must be one of 1, 2, 4, 8, 16, 32, 64, got 3"),
        ({"batch_size": 0}, "--batch_size=0: need 1 to 1000000"),
        (
            {"seed": 2**32 - 1},
            "--seed=4294967295: the last one, 4294967942, is beyond 4294967295",
        ),
    ],
)
def test_bad_values_are_refused_by_flag_value_and_what_is_right(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Odyssey(**given)


def test_scales_are_as_they_are_said_to_be():
    small, paper = odyssey.SCALES["small"], odyssey.SCALES["paper"]
    assert (len(small.variants), small.seeds, len(small.tasks)) == (9, 24, 2)
    assert len(paper.variants) * paper.seeds * len(paper.tasks) == 5400


def test_a_tiny_run_ends_with_table_and_figures(monkeypatch, tmp_path: Path, standard_promotion):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    tiny = ["--tasks=digits", "--variants=vanilla,FGR", "--seeds=11", "--steps=2", "--hidden=4"]
    tiny += ["--narrowest=3", "--pixels=16", "--batch_size=2", "--engine=reference"]
    path = tmp_path / "run"
    assert runner.main(odyssey.EXPERIMENT, ["odyssey", *tiny, f"--workdir={path}"]) == 0
    rows = list(csv.DictReader((path / "summary.csv").read_text().splitlines()))
    assert [row["what"] for row in rows[:2]] == ["vanilla", "FGR"]
    records = [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]
    results = ledger.results(records)
    assert len(results) == 22
    assert {r["hidden"] for r in results} == {3, 4}
    assert (path / "figures" / "variants.png").exists()
