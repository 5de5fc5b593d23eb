"""Figures of a training on your own file: curves, errors, calibration."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

import lstm_jax as lj
from lstm_jax.report import figures
from lstm_jax.report.figures import COLOURS, Picture
from lstm_jax.report.ledger import Record
from lstm_jax.report.statistics import wilson

MOST_CURVES = len(COLOURS)
MOST_POINTS = 5000
MOST_CLASSES = 40
NUMBERED = 12  # classes up to which the counts are written
BINS = 10
PANEL = (6.2, 4.6)


def draw(found: Any, records: Sequence[Record]) -> list[Picture]:
    """Draws the learning curves, and what the kind of task has to show."""
    first = curves(found, records)
    if found.config.task == "text":
        return [first]
    if found.config.task == "forecast":
        return [first, *forecasts(found)]
    answers = found.task.head.answers
    if answers == "class":
        return [first, *classes(found)]
    return [first] if answers == "flags" else [first, scatter(found)]


def curves(found: Any, records: Sequence[Record]) -> Picture:
    """Draws the training loss and the least validation loss, the median over seeds."""
    points: dict[str, Any] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    unit, per_unit = _unit(found)
    for record in records:
        if record["kind"] != "progress":
            continue
        for field in ("loss", "validation_loss"):
            value = record.get(field)
            if value is not None and np.isfinite(value):
                name = _setting(found.records[record["trial"]])
                points[field][name][record["step"] / per_unit].append(value)
    names = _shown(found)
    styles = figures.styles(names)
    fields = [field for field in ("loss", "validation_loss") if points[field]] or ["loss"]
    figure, panels = figures.grid(len(fields), 2, panel=PANEL)
    titles = {"loss": "training loss", "validation_loss": "least validation loss so far"}
    for axes, field in zip(panels, fields, strict=True):
        for name in names:
            each = sorted(points[field][name].items())
            x, y = [at for at, _ in each], [float(np.median(values)) for _, values in each]
            axes.plot(x, y, label=name, markevery=max(1, len(x) // 8), **styles[name])
        axes.set(xlabel=unit, ylabel=titles[field])
        low, high = axes.get_ylim()
        if low > 0 and high > 10 * low:
            axes.set_yscale("log")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    left = len({_setting(r) for r in found.records}) - len(names)
    caption = "Median over the seeds of a setting: the running mean of the training loss, and the "
    caption += "least validation loss so far." + (
        f" The {left} settings with larger losses are left out." * (left > 0)
    )
    return Picture("curves", caption, figure)


def _unit(found: Any) -> tuple[str, float]:
    """Returns the unit of training and the updates in it."""
    if found.config.task == "text":
        return "updates", 1
    return "epochs", -(-found.task.split_size("train") // found.config.batch_size)


def _setting(record: Record) -> str:
    rate = f"rate {record['learning_rate']:.3g}"
    return f"{rate}, dropout {record['dropout']:.3g}" if "dropout" in record else rate


def _shown(found: Any) -> list[str]:
    """Returns the settings with the least losses, in the order of the trials."""
    losses = defaultdict(list)
    for record in found.records:
        value = record.get("validation_loss", record["loss"])
        losses[_setting(record)].append(value if np.isfinite(value) else np.inf)
    best = sorted(losses, key=lambda name: np.median(losses[name]))[:MOST_CURVES]
    return [name for name in losses if name in best]


def padded(answers: Any, steps: int) -> np.ndarray:
    """Returns the answers of rows of different lengths as one array."""
    if isinstance(answers, np.ndarray):
        return answers
    return lj.data.convert.padded(answers, steps, answers[0].dtype)


# Classes. -----------------------------------------------------------------------------------------


def classes(found: Any) -> list[Picture]:
    """Draws the confusion matrix, and whether probabilities are shares of right answers."""
    rows = found.data.rows[found.split]
    data, labels = found.data.data, np.array(found.task.classes)
    y = np.asarray(data.y)[rows]
    p = padded(found.together.predict(data, probabilities=True), data.steps)[rows]
    counts = np.ones(len(y), bool) if found.task.readout == "last" else data.valid(rows)
    counts = counts & (y != "" if y.dtype.kind == "U" else y == y)
    y, p = y[counts].ravel(), p[counts].reshape(-1, len(labels))
    target = np.searchsorted(labels, y)
    pictures = [calibration(p, target)]
    if len(labels) <= MOST_CLASSES:
        pictures.insert(0, confusion(labels, target, p.argmax(-1)))
    return pictures


def confusion(labels: np.ndarray, target: np.ndarray, predicted: np.ndarray) -> Picture:
    """Draws how often each class is taken for each other."""
    n = len(labels)
    counts = np.bincount(target * n + predicted, minlength=n * n).reshape(n, n)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.55 * n + 2, 4.5, 12))
    figure, ((axes,),) = figures.canvas(1, 1, panel=(side + 1, side))
    drawn = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0) if n <= NUMBERED else ():
        ink = "white" if share[row, column] > 0.5 else "black"
        place = {"ha": "center", "va": "center", "fontsize": 12}
        axes.text(column, row, counts[row, column], color=ink, **place)
    names = [str(label)[:16] for label in labels]
    turn = 45 if max(map(len, names)) > 2 else 0
    axes.set_xticks(range(n), names, rotation=turn)
    axes.set_yticks(range(n), names)
    axes.set(xlabel="predicted", ylabel="true class")
    axes.grid(visible=False)
    figure.colorbar(drawn, ax=axes, label="share of the true class", shrink=0.8)
    caption = "Confusion matrix of the seeds together. Right answers are on the diagonal."
    return Picture("confusion", caption, figure)


def _diagonal(x: str, y: str) -> tuple[Any, Any]:
    """Returns a figure of shares against probabilities, with the line where they are equal."""
    figure, ((axes,),) = figures.canvas(1, 1, panel=PANEL)
    axes.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1.2, label="calibrated")
    axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
    return figure, axes


def calibration(p: np.ndarray, target: np.ndarray) -> Picture:
    """Draws the share of right answers against the probability that the networks give them."""
    sure, right = p.max(-1), p.argmax(-1) == target
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    filled = count > 0
    mean, share = (
        np.bincount(place, weights=values, minlength=BINS)[filled] / count[filled]
        for values in (sure, right.astype(float))
    )
    error = float(np.abs(mean - share) @ count[filled] / count.sum())
    figure, axes = _diagonal("probability of the prediction", "share that is right")
    shares = [wilson(round(y * n), n) for y, n in zip(share, count[filled].tolist(), strict=True)]
    style = {"color": COLOURS[0], "marker": "o", "linestyle": "none"}
    figures.error_bars(axes, mean.tolist(), shares, style, "networks")
    axes.legend(loc="upper left")
    caption = (
        "Calibration of the seeds together: answers of similar probability, with 95 % intervals. "
        f"Points below the line are overconfident. Mean distance to it: {error:.3f}."
    )
    return Picture("calibration", caption, figure)


def scatter(found: Any) -> Picture:
    """Draws predictions against targets."""
    rows, data = found.data.rows[found.split], found.data.data
    y = np.asarray(data.y, float)[rows]
    predicted = padded(found.together.predict(data), data.steps)[rows]
    counts = np.isfinite(y).reshape(*y.shape[: 1 + (found.task.readout == "every")], -1).all(-1)
    counts &= data.valid(rows) if found.task.readout == "every" else True
    targets = found.task.form.targets
    y, predicted = (part[counts].reshape(-1, targets) for part in (y, predicted))
    some = np.random.default_rng(0).permutation(len(y))[:MOST_POINTS]
    figure, panels = figures.grid(min(targets, 4), 2, panel=(5.4, 5))
    for k, axes in enumerate(panels):
        both = y[:, k], predicted[:, k]
        low, high = np.min(both), np.max(both)
        axes.plot([low, high], [low, high], color="0.5", linestyle="--", linewidth=1.2)
        axes.plot(y[some, k], predicted[some, k], "o", color=COLOURS[0], markersize=4, alpha=0.5)
        axes.set(xlabel="target" + f" {k}" * (targets > 1), ylabel="prediction")
    caption = "Predictions of the seeds together against the targets; the dashed line is equality."
    return Picture("scatter", caption, figure)


# Forecasts. ---------------------------------------------------------------------------------------


def forecasts(found: Any) -> list[Picture]:
    """Draws the bands of the best and of the worst series, and the coverage of quantiles."""
    arrays, windows = found.task.rows(found.split), found.data
    ends, head = arrays["windows"], found.task.head
    point = not head.levels
    levels = np.array(head.levels or (0.5,))
    asked = {} if point else {"levels": levels.tolist()}
    bands = found.together.predict(windows.series, ends=ends, **asked)
    bands = bands[..., None] if point else bands
    first = arrays["offsets"][ends[:, 0]] + ends[:, 1]
    y = arrays["values"][first[:, None] + np.arange(windows.horizon)].astype(float)
    middle = bands[..., np.argmin(np.abs(levels - 0.5))]
    errors = np.nanmean(np.abs(y - middle) / arrays["unit"][ends[:, 0]][:, None], axis=1)
    members = np.unique(ends[:, 0])
    mase = {n: float(np.nanmean(errors[ends[:, 0] == n])) for n in members}
    shown = dict.fromkeys((min(mase, key=mase.__getitem__), max(mase, key=mase.__getitem__)))
    figure, panels = figures.grid(len(shown), 1, panel=(11, 3.6))
    for axes, n, which in zip(panels, shown, ("best", "worst"), strict=False):
        for window in np.flatnonzero(ends[:, 0] == n):
            one = ends[window], bands[window], levels, middle[window]
            _band(axes, windows.series, found.task, *one)
        axes.set_title(f"series {windows.series.ids[n]}, {which} MASE {mase[n]:.2f}")
        axes.set(xlabel="time" if windows.series.start is not None else "time step")
    figures.legend(figure, panels[0])
    caption = f"Forecasts of the {found.split} windows by the seeds together"
    if point:
        return [Picture("forecasts", f"{caption}.", figure)]
    caption += f"; bands: quantiles {levels[0]:g} to {levels[-1]:g}."
    return [Picture("forecasts", caption, figure), coverage(y, bands, levels)]


def _band(
    axes: Any, series: Any, task: Any, window: np.ndarray, band: np.ndarray, levels: np.ndarray,
    middle: Any,
) -> None:  # fmt: skip
    """Draws the past of one window, the band of its quantiles, and their middle."""
    n, end = window
    past = np.arange(max(0, end - 2 * task.form.context), end)
    ahead = np.arange(end, end + task.form.horizon)
    values = series.values[series.offsets[n] :]
    labelled = not axes.get_legend_handles_labels()[1]
    named = lambda name: name if labelled else None  # noqa: E731
    whole = np.concatenate([past, ahead])
    style = {"color": "black", "linewidth": 1.4, "label": named("data")}
    axes.plot(series.times(n, whole), values[whole], **style)
    times = series.times(n, ahead)
    if len(levels) > 1:
        axes.fill_between(
            times, band[:, 0], band[:, -1], color=COLOURS[0], alpha=0.25, linewidth=0,
            label=named("band"),
        )  # fmt: skip
    axes.plot(times, middle, "o-", color=COLOURS[0], markersize=4, label=named("forecast"))


def coverage(y: np.ndarray, bands: np.ndarray, levels: np.ndarray) -> Picture:
    """Draws the share of targets below each quantile against its level."""
    there = np.isfinite(y)
    below = [float(np.mean(y[there] <= bands[..., q][there])) for q in range(len(levels))]
    figure, axes = _diagonal("level of the quantile", "share of values below it")
    axes.plot(levels, below, "o-", color=COLOURS[0], clip_on=False, label="forecasts")
    axes.legend(loc="upper left")
    caption = (
        f"Calibration: of {there.sum()} values the share below each predicted quantile. Above the "
        "line forecasts are too high, below it too low."
    )
    return Picture("calibration", caption, figure)
