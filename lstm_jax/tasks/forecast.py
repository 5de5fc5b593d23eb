"""Forecast: the next time steps of series from a window of those before."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from lstm_jax import metrics
from lstm_jax.checks import check_size
from lstm_jax.data import frames, times, windows
from lstm_jax.data.digest import digest
from lstm_jax.data.series import Series, to_forecast
from lstm_jax.data.windows import Windows
from lstm_jax.tasks import base, heads, inputs, series_arrays, windowing
from lstm_jax.tasks.predicting import Fitted
from lstm_jax.tasks.windowing import Form, Scaling, Window
from lstm_jax.types import Array, Batch


class Horizon(NamedTuple):
    """The targets of a forecast.

    Attributes:
      value: [B, H], 0 for missing values.
      there: [B, H] bool, False for missing values.
      window: the units of the window.
      scored: [B], the factor of the window's error in the metric.
    """

    value: Array
    there: Array
    window: Window
    scored: Array


DERIVED = ("fitted", "changes", "scored")  # arrays that are made from the others


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """The data of a task and constants fitted to them; equal to itself alone.

    Attributes:
      arrays: the series, their windows, and "fitted", the constants.
      chance: the metric of the seasonal naive forecast.
      digest: the hash of the data.
      names: the names of the covariates, as in `Series`.
      frequency: the distance of time steps; None without times.
    """

    arrays: dict[str, Any]
    chance: float
    digest: str
    names: dict[str, tuple[str, ...]]
    frequency: times.Frequency | None


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Forecast(Fitted, base.Rows):
    """Forecast the next H time steps of series after reading C of them.

    A row is a window of a series. x [C, B, D] holds for each time step: the value, normalised by
    its window, 0 where it is missing; 1 where it is there; the known and past covariates; the known
    covariates of the whole horizon; the static numbers. Covariates have mean 0 and standard
    deviation 1 over the training part. Steps before the beginning of a series are masked.

    With `patch`, a time step of the network reads that many of the window side by side, such as a
    season: x [C / patch, B, D] (segments, Lin et al. 2023). It is masked where all of them are.

    All horizons are emitted at the last step: V = H x head.size. Outputs are normalised, too:

        log_ratio    z = log(y / level) / spread     spread = mean |log(y / level)| in training
        ratio        z = y / level
        standard     z = (y - level) / spread        spread = mean |y - level| of the context

    With `seasonal`, an output is the difference of z from that of the seasonal naive forecast, the
    value a whole number of seasons before (seasonal differencing, Box and Jenkins 1970).

    `level` is the mean of the context; a constant context has the spread `unit`. The `unit` of a
    series is the mean error of its seasonal naive forecast within the training part. The loss of a
    point or of quantiles is that of y / unit, so that all series count alike; the loss of a density
    is that of z. Counts stay counts: a `NegativeBinomial` has `level` times the mean that its
    outputs stand for (DeepAR, Salinas et al. 2020), and its loss is that of y. Missing targets do
    not count. The metric is the mean absolute error in `unit`s: MASE. A forecast is correct where
    that is below 1. A series that is constant in training has no naive error: its MASE is undefined
    and not in the metric, which is nan where all series are such.

    Attributes:
      form: the sizes.
      head: the loss of the outputs, and the forecasts they stand for.
      scale: how windows are normalised.
      known: the data; None in `static`.
    """

    form: Form
    head: heads.Head
    scale: Scaling
    known: Known | None

    name: ClassVar = "forecast"
    readout: ClassVar = "last"
    metric_name: ClassVar = "MASE"
    higher_is_better: ClassVar = False

    def __init__(
        self,
        data: Windows | Series,
        *,
        horizon: int | None = None,
        context: int | None = None,
        head: heads.Head | None = None,
        scale: Scaling | None = None,
        seasonal: bool = False,
        patch: int = 1,
    ):
        """Takes windows, and fits what is fitted to their training part.

        Args:
          data: `series.split(horizon=H, validation=1, test=1)`; or a series, whose last window
            validates and none tests.
          horizon: H, of a series.
          context: C; by default two seasons or horizons, whichever is longer.
          head: `heads.Quantiles()` by default.
          scale: "log_ratio" where all numbers that train are above 0, else "standard", by default;
            of counts "ratio".
          seasonal: whether outputs are differences from the seasonal naive forecast.
          patch: values that the network reads at each of its time steps; it divides C.

        Raises:
          ValueError: an argument is out of range, or no window trains; TypeError: data are none.
        """
        if isinstance(data, Series):
            if horizon is None:
                right = "given with a Series, or in series.split(horizon=...) before it"
                raise ValueError(f"horizon must be {right}, got None")
            check_size("horizon", horizon, 1)
            data = data.split(horizon=horizon, validation=1, test=0)  # pyright: ignore
        if not isinstance(data, Windows):
            right = "windows, such as Series(values).split(horizon=...)"
            raise TypeError(f"data must be {right}, got {type(data).__name__}")
        if horizon not in (None, data.horizon):
            raise ValueError(f"horizon must be that of data, {data.horizon}, got {horizon}")
        head = heads.Quantiles() if head is None else head
        series_arrays.check_head(head, data.series, seasonal)
        check_size("patch", patch, 1)
        context = series_arrays.default_context(data, patch) if context is None else context
        check_size("context", context, 1)
        series_arrays.check_context(data, context, patch)
        arrays = series_arrays.fit(data, context)
        hashed = digest({name: part for name, part in arrays.items() if name not in DERIVED})
        scale = series_arrays.scale_of(data, scale, head)
        if scale == "log_ratio":
            spread = series_arrays.log_spread(arrays, context, data.horizon)
            arrays["fitted"]["spread"] = spread
        split = "validation" if len(arrays["splits"]["validation"]) else "train"
        naive = series_arrays.seasonal_naive(arrays, split, data.horizon, data.series.season)
        known = Known(arrays, naive, hashed, data.series.names, data.series.frequency)
        beside = series_arrays.covariates(data.series)
        widths = {name: 0 if part is None else part.shape[1] for name, part in beside.items()}
        season = data.series.season
        form = Form(data.horizon, context, **widths, season=season, seasonal=seasonal, patch=patch)
        self._set(form=form, head=head, scale=scale, known=known)

    def __repr__(self) -> str:
        return f"Forecast({self.form}, {self.head}, scale={self.scale!r})"

    @property
    def input_size(self) -> int:
        """D: value, presence and covariates."""
        form = self.form
        each = 2 + form.known + form.past
        return form.patch * each + form.known * form.horizon + form.static

    @property
    def input_scale(self) -> None:
        """Raises ValueError: every window has a scale of its own."""
        raise ValueError(
            "a Forecast scales each window by itself, which no export does: export (spec, params), "
            "whose inputs are those of a batch"
        )

    @property
    def output_size(self) -> int:
        """V: the outputs of the head for each time step of the horizon."""
        return self.head.width(self.form.horizon)

    @property
    def length(self) -> int:
        """T: the time steps in which a network reads the context."""
        return self.form.context // self.form.patch

    @property
    def chance(self) -> float:
        """The MASE of the seasonal naive forecast on the windows that validate, else train."""
        return self._known().chance

    def seasonal_naive(self, split: str = "test") -> float:
        """Returns the MASE of the seasonal naive forecast on a split: a model should be below it.

        It is nan where all series are constant in training.

        Raises:
          ValueError: the split has no window.
        """
        base.check_choice("split", split, base.SPLITS)
        if self.split_size(split) == 0:
            raise ValueError(f"split must be one with windows, got {split!r}, which has none")
        form = self.form
        return series_arrays.seasonal_naive(self.arrays(), split, form.horizon, form.season)

    @property
    def static(self) -> "Forecast":
        """The task without its data."""
        return self._of(form=self.form, head=self.head, scale=self.scale, known=None)

    def batch(self, arrays: dict[str, Any], index: Array, weight: Array) -> Batch:
        """Returns windows, y a `Target` whose value is a `Horizon`."""
        member, end = jnp.moveaxis(jnp.asarray(arrays["windows"])[index], -1, 0)
        window = windowing.units(self.scale, arrays, member, end, self.form)
        x = windowing.inputs(self.scale, arrays, member, end, self.form, window)
        step = windowing.steps_ahead(end, self.form.horizon)
        ahead = windowing.read(arrays, "values", member[:, None], step)
        there = ~jnp.isnan(ahead)
        scored = jnp.asarray(arrays["scored"])[index]
        value = Horizon(jnp.where(there, ahead, 0), there, window, scored)
        weight = jnp.where(there.any(1), weight, 0)
        began = windowing.steps_before(end, self.form.context) >= 0
        mask = windowing.patched(began[..., None], self.form.patch).any(-1)
        return Batch(x, base.Target(value, weight), mask=mask)

    @property
    def _counts(self) -> bool:
        return self.head.answers == "counts"

    def _losses(self, outputs: Array, target: Horizon) -> Array:
        """Returns the loss of each time step, [B, H]."""
        window = target.window
        outputs = self._split(outputs, window)
        if self._counts:
            return self.head.losses(outputs, target.value)
        if isinstance(self.head, heads.Density):
            return self.head.losses(outputs, windowing.normalise(self.scale, target.value, window))
        outputs = outputs.astype(window.unit.dtype)
        scaled = windowing.denormalise(self.scale, outputs, window.wide) / window.wide.unit
        return self.head.losses(scaled, target.value / window.unit)

    def _point(self, outputs: Array, window: Window) -> Array:
        return self._values(self.head.predict(self._split(outputs, window)), window)

    def _split(self, outputs: Array, window: Window) -> Array:
        """Returns outputs [B, H, size]; those of a distribution of counts in the window's unit."""
        head: Any = self.head
        outputs = head.split(outputs)
        return head.scaled(outputs, window.level) if self._counts else outputs

    def _values(self, z: Array, window: Window) -> Array:
        """Returns the values of what the head predicts, which of counts they are."""
        return z if self._counts else windowing.denormalise(self.scale, z, window)

    def _scaled_errors(self, outputs: Array, target: Horizon) -> Array:
        """Returns the mean absolute scaled error of each window, [B]."""
        point = self._point(outputs, target.window)
        return windowing.mean_there(
            jnp.abs(point - target.value) / target.window.unit, target.there
        )

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """The mean over windows of the mean loss of the time steps that are there."""
        target = batch.y.value
        losses = windowing.mean_there(self._losses(outputs, target), target.there)
        return base.weighted_mean(losses, batch.y.weight)

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """The mean absolute scaled error, MASE, of the series that have one."""
        target = batch.y.value
        errors = self._scaled_errors(outputs, target)
        errors = jnp.where(target.scored == 0, 0, errors * target.scored)
        return base.weighted_mean(errors, batch.y.weight)

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Where a forecast is better than the naive one was in training, [B]."""
        errors = self._scaled_errors(outputs, batch.y.value)
        return ((errors < 1) & (batch.y.value.scored > 0)).astype(jnp.float32)

    def encode(self, series: Any, *, ends: Any = None) -> dict[str, Any]:
        """Returns the arrays of series that are to be forecast, in the form that `batch` takes.

        Args:
          series: a `Series`, or the values of one or several; or `Windows`, those that test.
          ends: [W, 2] windows (n, end); by default the one behind the last number of each series.

        Raises:
          ValueError: the series lack covariates or numbers, or have others than in training, or
            another time step.
        """
        trained = series.trained if isinstance(series, Windows) else None
        series, ends = to_forecast(series, ends)
        series_arrays.check_alike(series, self._known(), self.form)
        series_arrays.check_ends(series, ends, self.form, self.scale)
        trained = series.lengths if trained is None else trained
        unit = series_arrays.arrays_of(series, trained, self.form.season)
        arrays = unit | {"windows": ends, "fitted": self._known().arrays["fitted"]}
        return arrays | {"scored": series_arrays.scored(arrays, np.arange(len(ends)))}

    def decode(
        self, outputs: Any, arrays: dict[str, Any], levels: Sequence[float] | None = None
    ) -> np.ndarray:
        """Returns forecasts in their units: [W, H, levels], of a head of points [W, H].

        Args:
          outputs: [W, V] of all windows of `arrays`, in their order.
          arrays: as `encode` or `arrays` returns them.
          levels: of the quantiles; by default those of the head, of a density 0.1, 0.5, 0.9.

        Raises:
          TypeError: levels are given, and the head predicts no quantiles.
        """
        outputs, window = jnp.asarray(outputs), self._windows(arrays)
        if levels is None and not self.head.levels:
            return np.asarray(self._point(outputs, window))
        levels = self.head.levels if levels is None else levels
        z = self.head.quantile(self._split(outputs, window), levels)
        return np.asarray(self._values(z, window.wide))

    def point(self, outputs: Any, arrays: dict[str, Any]) -> np.ndarray:
        """Returns the point forecasts [W, H] in their units; arguments are those of `decode`."""
        return np.asarray(self._point(jnp.asarray(outputs), self._windows(arrays)))

    def table(
        self, values: np.ndarray, series: Any, *, ends: Any = None, levels: Any = None
    ) -> Any:
        """Returns forecasts as a table, one row for each window and time step ahead.

        `values` are points [W, H], or quantiles [W, H, levels]. `series` and `ends` are those of
        `encode`.
        """
        quantiles = [f"q{level:g}" for level in (self.head.levels if levels is None else levels)]
        names = ["prediction"] if values.ndim == 2 else quantiles
        columns = dict(zip(names, values.reshape(-1, len(names)).T, strict=True))
        series, ends = to_forecast(series, ends)
        rows = windows.columns(series, ends, self.form.horizon)
        return frames.made(series.origin.library, rows | columns)

    def _windows(self, arrays: dict[str, Any]) -> Window:
        """Returns the units of all windows."""
        member, end = jnp.moveaxis(jnp.asarray(arrays["windows"]), -1, 0)
        return windowing.units(self.scale, arrays, member, end, self.form)

    def count(self, arrays: dict[str, Any]) -> int:
        """Returns how many windows arrays hold."""
        return len(arrays["windows"])

    def rows(self, split: str) -> dict[str, Any]:
        """Returns the arrays of the windows of one split."""
        base.check_choice("split", split, base.SPLITS)
        arrays = self.arrays()
        rows = arrays["splits"][split]
        return arrays | {name: arrays[name][rows] for name in ("windows", "scored")}

    def predictions(
        self,
        outputs: np.ndarray,
        arrays: dict[str, Any],
        *,
        levels: Sequence[float] | None = None,
        probabilities: bool = False,
    ) -> np.ndarray:
        """Returns the mean forecast of M models, see `decode` and `Predictor.predict`."""
        if probabilities:
            raise TypeError("probabilities need classes, a forecast has quantiles: give levels")
        return np.mean([self.decode(one, arrays, levels) for one in outputs], axis=0)

    def scores(self, outputs: np.ndarray, arrays: dict[str, Any]) -> dict[str, float]:
        """Returns MASE; of quantiles also the pinball loss and the coverage of the widest band.

        MASE is nan where it is undefined for all windows.
        """
        index = jnp.arange(self.count(arrays), dtype=jnp.int32)
        target = self.batch(arrays, index, jnp.ones(len(index))).y.value
        point = np.mean([self.point(one, arrays) for one in outputs], axis=0)
        there, unit = np.asarray(target.there), np.asarray(target.window.unit)
        y = np.where(there, np.asarray(target.value), np.nan)
        counts = (np.asarray(target.scored) > 0) & there.any(1)
        errors = np.nanmean((np.abs(point - y) / unit)[counts], axis=1)
        found = {"MASE": float(np.mean(errors)) if len(errors) else np.nan}
        if self.head.levels:
            bands = self.predictions(outputs, arrays)
            found["pinball"] = metrics.pinball(y[there], bands[there], self.head.levels)
            found["coverage"] = metrics.coverage(y[there], bands[there][:, 0], bands[there][:, -1])
        return found

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Returns what forecasts of new series need: JSON-able entries, and constants as arrays."""
        known = self._known()
        description = {
            "kind": type(self).__name__,
            "form": self.form._asdict(),
            "head": self.head.describe(),
            "scale": self.scale,
            "chance": known.chance,
            "digest": known.digest,
            "names": known.names,
            "frequency": known.frequency,
        }
        return description, inputs.flat(known.arrays["fitted"])

    @classmethod
    def restore(cls, description: dict[str, Any], arrays: dict[str, np.ndarray]) -> "Forecast":
        """Returns a task without series from its `state`."""
        names = {name: tuple(part) for name, part in description.get("names", {}).items()}
        frequency = description.get("frequency")
        known = Known(
            {"fitted": inputs.unflat(arrays)},
            description["chance"],
            description["digest"],
            names,
            None if frequency is None else times.Frequency(*frequency),
        )
        form, head = Form(**description["form"]), heads.make(**description["head"])
        return cls._of(form=form, head=head, scale=description["scale"], known=known)
