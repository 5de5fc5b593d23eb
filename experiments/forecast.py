"""One LSTM for all series of a competition forecasts better than the published DeepAR.

A global LSTM reads a window of a series and emits quantiles of its next H values; the forecast is
the mean over seeds of one program. Learning rates are chosen on the last horizon of the training
part; then the network learns from the whole training part, and is tested on the official horizon.
Simple exponential smoothing must give its published MASE first. --csv runs the same on your file,
from several origins, and says so where the seasonal naive forecast is better.

Command: scripts/run forecast
  scripts/run forecast --csv=x.csv --time=month --target=sales --id=shop --horizon=12
Cost: --quick a minute, by default about 12 minutes (estimated), both on two cores
Expect: MASE, published DeepAR in brackets
  M1 yearly 3.401 (4.603)  quarterly 1.669 (1.833)  monthly 1.031 (1.192)
  M3 yearly 2.666 (3.508)  quarterly 1.155 (1.310)  monthly 0.882 (1.167)  other 1.914 (2.975)
  Tourism quarterly 1.514 (1.597)  monthly 1.409 (1.409)
Method: docs/experiments.md#forecast
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes

import lstm_jax as lj
from experiments.common import classical, competitions, networks, runner, tuning
from experiments.common.competitions import PUBLISHED, Collection
from experiments.common.flags import Config, need, setting
from experiments.common.plan import Claim, Computed, Experiment, Group, Picture, Record, Row
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import FAILS, REPRODUCES, UNDECIDED, of_parts
from lstm_jax.tasks import Forecast, heads
from lstm_jax.training import Trials

LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)  # the median, the ends of the 80 % and of the 95 % band
CONTEXT = {"yearly": 6, "other": 12, "quarterly": 16}  # time steps read
LONG = 12  # time steps of a season from which a network reads a season at a time
SEASONS = 4  # of such a length are read
NEAR = 1.05  # times the best published MASE
SOURCE = "Godahewa et al. 2021"
SHOWN = 40  # values of a history in a figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecasting(Config):
    """Which series are forecast, by which network, and for how long it learns."""

    groups: tuple[str, ...] = setting(tuple(PUBLISHED), "groups of series", choices=PUBLISHED)
    csv: str = setting("", "your table, in place of the groups: .csv, .parquet or .npz")
    time: str = setting("", "its column of dates or numbers, increasing within each id")
    target: str = setting("", "its column of values")
    id: str = setting("", "its column that names the series")
    horizon: int = setting(12, "csv: time steps ahead", (1, 10_000))
    origins: int = setting(3, "csv: origins of forecasts that test, a horizon apart", (1, 1000))
    seeds: int = setting(8, "networks, whose mean is the forecast")
    steps: int = setting(1000, "updates of a network")
    depth: int = setting(2, "layers; one, twice as wide, reads a season of 12 or more at a time")
    batch_size: int = setting(256, "windows of an update")
    learning_rates: tuple[float, ...] = setting((5e-3, 1e-2), "the grid to choose from")
    tuning_seeds: int = setting(2, "seeds to choose on, before those that are reported")
    most: int = setting(10_000, "series of a group")
    ets: bool = setting(False, "fit ETS, too: up to a second a series")

    def __post_init__(self):
        super().__post_init__()
        for name in ("time", "target", "id"):
            need(self.csv != "" or not getattr(self, name), name, getattr(self, name),
                 "it is for --csv")  # fmt: skip


SCALES = {
    "quick": Forecasting(
        groups=("m1_yearly",), seeds=2, steps=60, hidden=8, depth=1, tuning_seeds=1, most=60
    ),
    "small": Forecasting(),
    "paper": Forecasting(steps=2000, hidden=64, learning_rates=(2e-3, 5e-3, 1e-2), ets=True),
}


@functools.lru_cache(maxsize=len(PUBLISHED))
def collection(config: Forecasting, name: str) -> Collection:
    """Returns the series of one group, or of the file."""
    if name != "csv":
        return competitions.competition(name, config.most)
    columns = {key: getattr(config, key) for key in ("time", "target", "id")}
    return competitions.file(config.csv, columns, config.horizon, config.origins)


def names(config: Forecasting) -> Sequence[str]:
    """Returns the groups of series."""
    return ("csv",) if config.csv else config.groups


def plan(config: Forecasting, records: Sequence[Record]) -> list[Group | Computed]:
    """Returns for each group of series the classical forecasts, the tuning, and the networks."""
    groups = []
    for name in names(config):
        data = collection(config, name)
        compute = functools.partial(by_classics, data, methods(config))
        groups.append(Computed(f"{name}-classical", compute))
        *tuned, reported = tuning.tune_then_report(
            config, config.learning_rates, records, group(config, data),
            choose=tuning.least(lambda result: result["validation_metric"]), decay=config.steps,
        )  # fmt: skip
        groups += [one._replace(task=task_of(data, 1)) for one in tuned] + [reported]
    return groups


def group(config: Forecasting, data: Collection) -> Group:
    """Returns the training on all windows before the test."""
    task = task_of(data, 0)
    by_seasons = task.form.patch > 1
    hidden, depth = (2 * config.hidden, 1) if by_seasons else (config.hidden, config.depth)
    model = networks.network("lstm", task, hidden, config.engine, depth)
    return Group(
        data.name, task, model, config.steps, config.batch_size, None, "test",
        measure=functools.partial(measure, data, task, model), save_model=True,
    )  # fmt: skip


@functools.lru_cache(maxsize=2 * len(PUBLISHED))
def task_of(data: Collection, validation: int) -> Forecast:
    """Returns the task whose last `validation` horizons before the test validate."""
    windows = data.series.split(data.horizon, validation, data.origins)
    context, patch = read_at_once(data)
    scale = None if data.name == "csv" else "log_ratio"  # Tourism has zeros
    head = heads.Quantiles(LEVELS)
    return Forecast(windows, context=context, head=head, scale=scale, patch=patch)


def read_at_once(data: Collection) -> tuple[int | None, int]:
    """Returns how many time steps a network reads, and how many of them at once.

    The shorter training part, that before validation, decides: tuned and reported networks are
    alike.
    """
    season = data.series.season
    longest = int(data.series.split(data.horizon, 1, data.origins).trained.max())
    if LONG <= season <= longest:
        return min(SEASONS, longest // season) * season, season
    context = CONTEXT.get(data.name.split("_")[-1])
    return None if context is None else min(context, longest), 1


def methods(config: Forecasting) -> tuple[str, ...]:
    """Returns the classical methods to run."""
    return tuple(name for name in classical.FORECASTERS if config.ets or name != "ETS")


def by_classics(data: Collection, methods: Sequence[str]) -> tuple[list[Record], Any]:
    """Returns the mean MASE of each classical method, and the numbers of series and windows."""
    ends, season = data.ends, data.series.season
    found: dict[str, Any] = {"series": len(set(ends[:, 0].tolist())), "windows": len(ends)}
    for name in methods:
        forecaster = classical.FORECASTERS[name]
        histories = (filled(data.history(n, end)) for n, end in ends)
        forecasts = [forecaster(history, data.horizon, season) for history in histories]
        found[name] = float(np.mean(data.mase(np.array(forecasts))))
    return [{"trial": 0, **found}], {}


def filled(history: np.ndarray) -> np.ndarray:
    """Returns values with each gap filled by the value before it; leading gaps are left out."""
    there = ~np.isnan(history)
    last = np.maximum.accumulate(np.where(there, np.arange(len(history)), -1))
    return history[last[last >= 0]]


def measure(
    data: Collection, task: Forecast, model: Any, params: Any, trials: Trials
) -> Sequence[Record]:
    """Returns the MASE of each network, and in the first record that of their mean forecast."""
    every = [forecasts(data, task, model, params, trials, [n]) for n in range(len(trials.seed))]
    good = [one for one in every if np.isfinite(one).all()]
    errors = [float(np.mean(data.mase(one[..., 2]))) if np.isfinite(one).all() else None
              for one in every]  # fmt: skip
    found: list[dict[str, Any]] = [{"mase": error} for error in errors]
    if good:
        found[0]["together"] = together(data, np.mean(good, axis=0))
    return found


def forecasts(
    data: Collection, task: Forecast, model: Any, params: Any, trials: Trials, rows: list[int]
) -> np.ndarray:
    """Returns the quantiles [W, H, levels] of the mean of some networks, for all test windows."""
    some = jax.tree.map(lambda leaf: leaf[np.array(rows)], (params, trials))
    predictor = lj.Predictor(task, model, *some)
    return np.asarray(predictor.predict(data.series, ends=data.ends, levels=LEVELS), np.float64)


def together(data: Collection, quantiles: np.ndarray) -> Record:
    """Returns the error and the coverage of a forecast, its best and its worst series."""
    errors = data.mase(quantiles[..., 2])
    targets = np.stack([data.target(n, end) for n, end in data.ends])
    there = ~np.isnan(targets)
    ends = {"80": (1, 3), "95": (0, 4)}
    bounds = {share: [quantiles[..., q][there] for q in both] for share, both in ends.items()}
    inside = {share: lj.metrics.coverage(targets[there], *b) for share, b in bounds.items()}
    shown = {"best": int(np.argmin(errors)), "worst": int(np.argmax(errors))}
    return {
        "mase": float(np.mean(errors)),
        "coverage": inside,
        "shown": {how: window(data, quantiles, errors, w) for how, w in shown.items()},
    }


def window(data: Collection, quantiles: np.ndarray, errors: np.ndarray, w: int) -> Record:
    """Returns one window as JSON: history, targets and quantiles."""
    n, end = data.ends[w]
    return {
        "id": str(data.series.ids[n]),
        "mase": float(errors[w]),
        "history": _numbers(data.history(n, end)[-SHOWN:]),
        "target": _numbers(data.target(n, end)),
        "quantiles": quantiles[w].tolist(),
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]


def summarise(config: Forecasting, records: Sequence[Record]) -> list[Row]:
    """Returns a row for each group: mean MASE of all methods, and coverage of the bands."""
    return [row(config, name, records) for name in names(config)]


def row(config: Forecasting, name: str, records: Sequence[Record]) -> Row:
    """Returns the row of one group."""
    classics = ledger.results(records, f"{name}-classical")[0]
    results = ledger.results(records, f"{name}-reported")
    errors = [r["mase"] for r in results if r["mase"] is not None]
    mean = results[0].get("together", {})
    inside, published = mean.get("coverage", {}), PUBLISHED.get(name)
    found: dict[str, Any] = {"group": name, "series": classics["series"]}
    found |= {method: classics[method] for method in methods(config)}
    return found | {
        "LSTM": statistics.t_interval(errors) if len(errors) > 1 else None,
        "ensemble": mean.get("mase"),
        "learning rate": results[0]["learning_rate"],
        "80 %": inside.get("80"),
        "95 %": inside.get("95"),
        "SES published": published and published.ses,
        "DeepAR published": published and published.deepar,
        "best published": published and published.best,
    }


def claims(config: Forecasting, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claims on the published numbers, or on the seasonal naive of a file."""
    if config.csv:
        return [against_naive(rows[0])]
    ours = [r["ensemble"] if r["ensemble"] is not None else np.inf for r in rows]
    smoothing = [abs(r["SES"] - r["SES published"]) < 0.01 for r in rows]
    # published to three decimals: what is equal to that many is not below
    below = [round(e, 3) < r["DeepAR published"] for e, r in zip(ours, rows, strict=True)]
    near = [e <= NEAR * r["best published"] for e, r in zip(ours, rows, strict=True)]
    complete = len(rows) == len(PUBLISHED)
    enough = REPRODUCES if sum(near) >= 5 else FAILS if complete else UNDECIDED
    return [
        Claim("simple exponential smoothing has its published MASE on all groups, to 0.01",
              counted(smoothing), SOURCE, on_all(smoothing)),
        Claim("the mean of the LSTMs is below the published DeepAR on all groups",
              counted(below), SOURCE, on_all(below)),
        Claim("it is within 5 % of the best published method on five groups or more",
              counted(near), SOURCE, enough),
    ]  # fmt: skip


def numbers(config: Forecasting, rows: Sequence[Row]) -> list[Row]:
    """Returns the mean MASE of each group, beside the published ones, and the bands' coverage."""
    names = ("SES", "Theta", "seasonal naive", "ensemble", "DeepAR published", "best published",
             "80 %", "95 %")  # fmt: skip
    digits = [{n: "-" if r[n] is None else f"{r[n]:.3f}" for n in names} for r in rows]
    return [{"group": r["group"], **line} for r, line in zip(rows, digits, strict=True)]


def on_all(held: Sequence[bool]) -> str:
    """Returns the verdict on a claim on all groups, which some of them alone cannot prove."""
    verdict = of_parts(held)
    return UNDECIDED if verdict == REPRODUCES and len(held) < len(PUBLISHED) else verdict


def counted(held: Sequence[bool]) -> str:
    """Returns how many groups a claim holds for."""
    return f"{sum(held)} of {len(held)} groups"


def against_naive(row: Row) -> Claim:
    """Returns whether the networks are better than the seasonal naive forecast."""
    ours, naive = row["ensemble"], row["seasonal naive"]
    better = ours is not None and ours < naive
    said = "none" if ours is None else f"MASE {ours:.3f}, seasonal naive {naive:.3f}"
    said += "" if better else ": the seasonal naive forecast is better, use that"
    verdict = REPRODUCES if better else FAILS
    return Claim("the LSTMs forecast better than the seasonal naive", said, "-", verdict)


def draw(config: Forecasting, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws the errors of all methods, and the best and the worst series of each group."""
    found = [methods_figure(config, rows)]
    shown = {
        name: results[0]["together"]["shown"]
        for name in names(config)
        if "together" in (results := ledger.results(records, f"{name}-reported"))[0]
    }
    return found + ([bands(shown)] if shown else [])


def methods_figure(config: Forecasting, rows: Sequence[Row]) -> Picture:
    """Draws the MASE of each method, divided by the seasonal naive's, one line a group."""
    figure, panels = figures.canvas(1, 1, panel=(11, 1.5 + 0.6 * len(rows)))
    axes = panels[0, 0]
    drawn = [*methods(config), "ensemble"] + ([] if config.csv else ["DeepAR published"])
    for method, style in figures.styles(drawn).items():
        y = range(len(rows))
        x = [np.nan if r[method] is None else r[method] / r["seasonal naive"] for r in rows]
        label = "LSTMs, mean forecast" if method == "ensemble" else method
        axes.plot(x, y, label=label, **{**style, "linestyle": "none"})
    axes.set_yticks(range(len(rows)), [r["group"].replace("_", " ") for r in rows])
    axes.set_xlabel("MASE / MASE of the seasonal naive forecast")
    figures.legend(figure, axes)
    caption = "Mean absolute scaled error over the test windows of each group, lower is better. "
    caption += f"The LSTM's forecast is the mean of {config.seeds} networks."
    return Picture("forecast", caption, figure)


def bands(shown: Mapping[str, Mapping[str, Record]]) -> Picture:
    """Draws the best and the worst test window of each group."""
    figure, panels = figures.canvas(len(shown), 2, panel=(7, 3))
    for (name, both), line in zip(shown.items(), panels, strict=True):
        for (how, one), axes in zip(both.items(), line, strict=True):
            fan(axes, one)
            title = f"{name.replace('_', ' ')}, {how}: {one['id']}, MASE {one['mase']:.2f}"
            axes.set_title(title, fontsize=13)
    for axes in panels[-1]:
        axes.set_xlabel("time steps from the first that is forecast")
    figures.legend(figure, panels[0, 0])
    caption = "The test window with the least and the greatest error of each group, the median "
    caption += "forecast, and the bands of 80 % and 95 %."
    return Picture("forecast-bands", caption, figure)


def fan(axes: Axes, one: Record) -> None:
    """Draws one forecast with its bands."""
    past, true = (np.array(one[name], float) for name in ("history", "target"))
    ahead, q = np.arange(len(true)), np.array(one["quantiles"])
    blue = figures.COLOURS[0]
    axes.plot(np.arange(-len(past), 0), past, color="0.4", label="history")
    axes.plot(ahead, true, color="k", marker="o", markersize=4, label="true")
    axes.plot(ahead, q[:, 2], color=blue, label="median")
    axes.fill_between(ahead, q[:, 1], q[:, 3], color=blue, alpha=0.3, lw=0, label="80 %")
    axes.fill_between(ahead, q[:, 0], q[:, 4], color=blue, alpha=0.15, lw=0, label="95 %")
    axes.locator_params(axis="x", integer=True, nbins=7)


EXPERIMENT = Experiment(
    "forecast", str(__doc__), SCALES, plan, summarise, draw, claims=claims, numbers=numbers
)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
