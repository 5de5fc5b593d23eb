"""Forecast: the next time steps of series from a window of those before."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from lstm_jax import metrics
from lstm_jax.data import scaling, windows
from lstm_jax.data.digest import digest
from lstm_jax.data.series import Series
from lstm_jax.data.windows import Windows
from lstm_jax.tasks import base, heads, inputs, series_arrays
from lstm_jax.tasks.predicting import Predicting
from lstm_jax.types import Array, Batch

Scaling = Literal["log_ratio", "standard"]
LEAST_RATIO = 1e-3  # of a value to its window's mean: a logarithm has no lower one
CONSTANT = 1e-6  # of its level: a window with a smaller spread is taken as constant
LARGEST = 30.0  # logarithm of a forecast's ratio to its window's mean: stays finite
LEVELS = (0.1, 0.5, 0.9)  # of the quantiles of a density, where no others are given


class Form(NamedTuple):
    """The sizes that a program is built from.

    Attributes:
      horizon: H, the time steps of a forecast.
      context: C, the time steps read before it.
      known: covariates known ahead.
      past: covariates that are not.
      static: numbers that do not change within a series.
    """

    horizon: int
    context: int
    known: int
    past: int
    static: int


class Window(NamedTuple):
    """The units of windows, each [B, 1].

    Attributes:
      level: mean of the context.
      spread: the unit of what is normalised.
      unit: of errors, the naive error of the series.
    """

    level: Array
    spread: Array
    unit: Array


class Horizon(NamedTuple):
    """What is to be forecast.

    Attributes:
      value: [B, H], 0 where it is missing.
      there: [B, H] bool, where it is not.
      window: the units of the window.
    """

    value: Array
    there: Array
    window: Window


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """What a task knows of its data; equal to itself alone.

    Attributes:
      arrays: the series, their windows, and "fitted", the constants.
      chance: the metric of the seasonal naive forecast.
      digest: the hash of the data.
    """

    arrays: dict[str, Any]
    chance: float
    digest: str


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Forecast(Predicting):
    """Forecast the next H time steps of series after reading C of them.

    A row is a window of a series. x [C, B, D] holds for each time step: the value, normalised by
    its window, 0 where it is missing; 1 where it is there; the known and past covariates; the known
    covariates of the whole horizon; the static numbers. Covariates have mean 0 and standard
    deviation 1 over the training part. Steps before the beginning of a series are masked.

    All horizons are emitted at the last step: V = H x head.size. Outputs are normalised, too:

        log_ratio    z = log(y / level) / spread     spread = mean |log(y / level)| in training
        standard     z = (y - level) / spread        spread = mean |y - level| of the context

    `level` is the mean of the context; a constant context has the spread `unit`. The `unit` of a
    series is the mean error of its seasonal naive forecast within the training part. The loss of a
    point or of quantiles is that of y / unit, so that all series count alike; the loss of a density
    is that of z. Missing targets do not count. The metric is the mean absolute error in `unit`s:
    MASE. A forecast is correct where that is below 1.

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
    ):
        """Takes windows, and fits what is fitted to their training part.

        Args:
          data: `series.split(horizon=H, validation=1, test=1)`; or a series, whose last window
            validates and none tests.
          horizon: H, of a series.
          context: C; by default two seasons or horizons, whichever is longer.
          head: `heads.Quantiles()` by default.
          scale: "log_ratio" where all numbers that train are above 0, else "standard", by default.

        Raises:
          ValueError: an argument is out of range, or no window trains; TypeError: data are none.
        """
        if isinstance(data, Series):
            windows.check_whole("horizon", horizon, 1)
            data = data.split(horizon=horizon, validation=1, test=0)  # pyright: ignore
        if not isinstance(data, Windows):
            right = "windows, such as Series(values).split(horizon=8)"
            raise TypeError(f"data must be {right}, got {type(data).__name__}")
        if horizon not in (None, data.horizon):
            raise ValueError(f"horizon must be that of data, {data.horizon}, got {horizon}")
        head = heads.Quantiles() if head is None else head
        check_head(head)
        context = _default_context(data) if context is None else context
        windows.check_whole("context", context, 1)
        arrays = series_arrays.fit(data, context)
        hashed = digest({name: part for name, part in arrays.items() if name != "fitted"})
        scale = _scale(scale, data)
        if scale == "log_ratio":
            spread = series_arrays.log_spread(arrays, context, data.horizon, LEAST_RATIO)
            arrays["fitted"]["spread"] = spread
        known = Known(arrays, series_arrays.seasonal_naive(arrays, data), hashed)
        beside = series_arrays.covariates(data.series)
        widths = {name: 0 if part is None else part.shape[1] for name, part in beside.items()}
        form = Form(data.horizon, context, **widths)
        self._set(form, head, scale, known)

    def _set(self, form: Form, head: heads.Head, scale: Any, known: Known | None) -> None:
        for name, value in {"form": form, "head": head, "scale": scale, "known": known}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def _of(cls, form: Form, head: heads.Head, scale: Any, known: Known | None) -> "Forecast":
        task = cls.__new__(cls)
        task._set(form, head, scale, known)
        return task

    def __repr__(self) -> str:
        return f"Forecast({self.form}, {self.head}, scale={self.scale!r})"

    @property
    def input_size(self) -> int:
        """D: value, presence and covariates."""
        form = self.form
        return 2 + form.known * (1 + form.horizon) + form.past + form.static

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
        """T: the time steps of the context."""
        return self.form.context

    @property
    def chance(self) -> float:
        """The MASE of the seasonal naive forecast on the windows that validate, else train."""
        return self._known().chance

    @property
    def static(self) -> "Forecast":
        """The task without its data."""
        return self._of(self.form, self.head, self.scale, None)

    @property
    def digest(self) -> str:
        """The hash of the series and of their windows."""
        return self._known().digest

    def arrays(self) -> dict[str, Any]:
        """Returns the series one behind the other, the windows, and the constants."""
        return self._known().arrays

    def _known(self) -> Known:
        if self.known is None:
            raise ValueError("a static task has no data: use the task that it was made of")
        return self.known

    def batch(self, arrays: dict[str, Any], index: Array, weight: Array) -> Batch:
        """Returns windows, y a `Target` whose value is a `Horizon`."""
        member, end = jnp.moveaxis(jnp.asarray(arrays["windows"])[index], -1, 0)
        steps = jnp.arange(self.form.context, dtype=jnp.int32)[:, None]
        context = steps + (end - self.form.context)[None]  # [C, B]
        horizon = jnp.arange(self.form.horizon, dtype=jnp.int32)[None] + end[:, None]  # [B, H]
        ahead = _read(arrays, "values", member[:, None], horizon)
        there = ~jnp.isnan(ahead)
        values = _read(arrays, "values", member[None], context)
        window = self._units(arrays, member, values)
        x = self._inputs(arrays, member, context, horizon, values, window)
        value = Horizon(jnp.where(there, ahead, 0), there, window)
        weight = jnp.where(there.any(1), weight, 0)
        return Batch(x, base.Target(value, weight), mask=context >= 0)

    def _inputs(
        self,
        arrays: dict[str, Any],
        member: Array,
        context: Array,
        horizon: Array,
        values: Array,
        window: Window,
    ) -> Array:
        """Returns x [C, B, D]."""
        rows = Window(*(part[None, :, 0] for part in window))
        z, there = self.normalise(values, rows), ~jnp.isnan(values)
        parts = [jnp.where(there, z, 0)[..., None], there.astype(z.dtype)[..., None]]
        fitted = arrays["fitted"]
        for name in ("known", "past"):
            if name in fitted:
                each = _read(arrays, name, member[None], context)
                parts.append(_scaled(each, fitted[name]))
        fixed = []
        if "known" in fitted:
            each = _scaled(_read(arrays, "known", member[:, None], horizon), fitted["known"])
            fixed.append(each.reshape(len(member), -1))
        if "static" in fitted:
            fixed.append(_scaled(jnp.asarray(arrays["static"])[member], fitted["static"]))
        parts += [jnp.broadcast_to(part[None], (*values.shape, part.shape[-1])) for part in fixed]
        return jnp.concatenate(parts, axis=-1)

    def normalise(self, values: Array, window: Window) -> Array:
        """Returns z of values; the units broadcast."""
        if self.scale == "log_ratio":
            return jnp.log(jnp.maximum(values / window.level, LEAST_RATIO)) / window.spread
        return (values - window.level) / window.spread

    def denormalise(self, z: Array, window: Window) -> Array:
        """Returns values of z; the units broadcast."""
        if self.scale == "log_ratio":
            ratio = window.spread * z
            return window.level * jnp.exp(jnp.where(ratio < LARGEST, ratio, LARGEST))
        return window.level + window.spread * z

    def _losses(self, outputs: Array, target: Horizon) -> Array:
        """Returns the loss of each time step, [B, H]."""
        outputs, window = self.head.split(outputs), target.window
        if isinstance(self.head, heads.Density):
            return self.head.losses(outputs, self.normalise(target.value, window))
        wide = Window(*(part[..., None] for part in window))
        scaled = self.denormalise(outputs.astype(window.unit.dtype), wide) / wide.unit
        return self.head.losses(scaled, target.value / window.unit)

    def _point(self, outputs: Array, window: Window) -> Array:
        return self.denormalise(self.head.predict(self.head.split(outputs)), window)

    def _scaled_errors(self, outputs: Array, target: Horizon) -> Array:
        """Returns the mean absolute scaled error of each window, [B]."""
        point = self._point(outputs, target.window)
        return _mean_there(jnp.abs(point - target.value) / target.window.unit, target.there)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """The mean over windows of the mean loss of the time steps that are there."""
        target = batch.y.value
        losses = _mean_there(self._losses(outputs, target), target.there)
        return base.weighted_mean(losses, batch.y.weight)

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """The mean absolute scaled error, MASE."""
        return base.weighted_mean(self._scaled_errors(outputs, batch.y.value), batch.y.weight)

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Where a forecast is better than the naive one was in training, [B]."""
        return (self._scaled_errors(outputs, batch.y.value) < 1).astype(jnp.float32)

    def encode(self, series: Any, *, ends: Any = None) -> dict[str, Any]:
        """Returns the arrays of series that are to be forecast, in the form that `batch` takes.

        Args:
          series: a `Series`, or the values of one or several.
          ends: [W, 2] windows (n, end); by default the one behind the last number of each series.

        Raises:
          ValueError: the series lack covariates or numbers; the message names the series.
        """
        series = series if isinstance(series, Series) else Series(series)
        self._check_covariates(series)
        ends = windows.newest(series) if ends is None else np.asarray(ends, np.int32)
        _check_ends(series, ends, self.form, self.scale)
        unit = series_arrays.arrays_of(series, series.lengths)
        return unit | {"windows": ends, "fitted": self._known().arrays["fitted"]}

    def _check_covariates(self, series: Series) -> None:
        for name, part in series_arrays.covariates(series).items():
            wanted, got = getattr(self.form, name), 0 if part is None else part.shape[1]
            if got != wanted:
                raise ValueError(f"{name} must have {wanted} columns, as in training, got {got}")

    def decode(
        self, outputs: Any, arrays: dict[str, Any], levels: Sequence[float] | None = None
    ) -> np.ndarray:
        """Returns forecasts in their units: [W, H, levels], of a head of points [W, H].

        Args:
          outputs: [W, V] of all windows of `arrays`, in their order.
          arrays: as `encode` or `arrays` returns them.
          levels: of the quantiles; by default those of the head, of a density 0.1, 0.5, 0.9.
        """
        outputs, window = jnp.asarray(outputs), self._windows(arrays)
        if not isinstance(self.head, heads.Density | heads.Quantiles):
            return np.asarray(self._point(outputs, window))
        own = self.head.levels if isinstance(self.head, heads.Quantiles) else LEVELS
        z = self.head.quantile(self.head.split(outputs), own if levels is None else levels)
        return np.asarray(self.denormalise(z, Window(*(part[..., None] for part in window))))

    def point(self, outputs: Any, arrays: dict[str, Any]) -> np.ndarray:
        """Returns the point forecasts [W, H] in their units; arguments are those of `decode`."""
        return np.asarray(self._point(jnp.asarray(outputs), self._windows(arrays)))

    def _windows(self, arrays: dict[str, Any]) -> Window:
        """Returns the units of all windows."""
        member, end = jnp.moveaxis(jnp.asarray(arrays["windows"]), -1, 0)
        steps = jnp.arange(self.form.context, dtype=jnp.int32)[:, None]
        values = _read(arrays, "values", member[None], steps + (end - self.form.context)[None])
        return self._units(arrays, member, values)

    def _units(self, arrays: dict[str, Any], member: Array, values: Array) -> Window:
        """Returns the units of windows with values [C, B]."""
        unit = jnp.asarray(arrays["unit"])[member]
        level = _mean_there(values, ~jnp.isnan(values), axis=0)
        if self.scale == "log_ratio":
            spread = jnp.full_like(level, arrays["fitted"]["spread"])
        else:
            away = jnp.abs(values - level[None])
            spread = _mean_there(away, ~jnp.isnan(away), axis=0)
            spread = jnp.where(spread > CONSTANT * jnp.abs(level), spread, unit)
        return Window(level[:, None], spread[:, None], unit[:, None])

    def count(self, arrays: dict[str, Any]) -> int:
        """Returns how many windows arrays hold."""
        return len(arrays["windows"])

    def rows(self, split: str) -> dict[str, Any]:
        """Returns the arrays of the windows of one split."""
        base.check_choice("split", split, base.SPLITS)
        arrays = self.arrays()
        return arrays | {"windows": arrays["windows"][arrays["splits"][split]]}

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
        """Returns MASE; of quantiles also the pinball loss and the coverage of the widest band."""
        index = jnp.arange(self.count(arrays), dtype=jnp.int32)
        target = self.batch(arrays, index, jnp.ones(len(index))).y.value
        point = np.mean([self.point(one, arrays) for one in outputs], axis=0)
        there, unit = np.asarray(target.there), np.asarray(target.window.unit)
        y = np.where(there, np.asarray(target.value), np.nan)
        found = {"MASE": float(np.nanmean(np.nanmean(np.abs(point - y) / unit, axis=1)))}
        if isinstance(self.head, heads.Density | heads.Quantiles):
            levels = self.head.levels if isinstance(self.head, heads.Quantiles) else LEVELS
            bands = self.predictions(outputs, arrays)
            found["pinball"] = metrics.pinball(y[there], bands[there], levels)
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
        }
        return description, inputs.flat(known.arrays["fitted"])

    @classmethod
    def restore(cls, description: dict[str, Any], arrays: dict[str, np.ndarray]) -> "Forecast":
        """Returns a task without series from its `state`."""
        known = Known(
            {"fitted": inputs.unflat(arrays)}, description["chance"], description["digest"]
        )
        head = heads.make(**description["head"])
        return cls._of(Form(**description["form"]), head, description["scale"], known)


def _default_context(data: Windows) -> int:
    """Returns two seasons or horizons, as far as series that train are so long."""
    longest = int(data.trained.max()) - data.horizon
    return min(2 * max(data.series.season, data.horizon), longest)


def _scale(scale: Scaling | None, data: Windows) -> Scaling:
    """Returns the scale that was asked for, or the one that fits the numbers that train.

    Raises:
      ValueError: it needs other numbers.
    """
    values = data.series.values[series_arrays.trains(data)]
    positive = bool(np.nanmin(values) > 0)
    scale = ("log_ratio" if positive else "standard") if scale is None else scale
    base.check_choice("scale", scale, ("log_ratio", "standard"))
    if scale == "log_ratio" and not positive:
        raise ValueError(f"scale must be 'standard' where a number is {np.nanmin(values):g}")
    return scale


def check_head(head: Any) -> None:
    """Raises TypeError unless this head forecasts numbers on a scale of their own."""
    wrong = (heads.CrossEntropy, heads.Bernoulli, heads.NegativeBinomial)
    if not isinstance(head, heads.Head) or isinstance(head, wrong):
        right = "Quantiles, Gaussian, StudentT, Absolute, Squared or Huber"
        raise TypeError(f"head must be {right} for a forecast, got {head!r}")


def _check_ends(series: Series, ends: np.ndarray, form: Form, scale: Scaling) -> None:
    """Raises ValueError unless each window can be read."""
    for n, end in ends:
        name, first = series.ids[n], series.offsets[n]
        if not 0 < end <= series.lengths[n]:
            got = f"{end} of series {name!r}"
            raise ValueError(f"ends must be 1 to the {series.lengths[n]} time steps, got {got}")
        read = series.values[first + max(0, end - form.context) : first + end]
        if np.isnan(read).all():
            got = f"none in {len(read)} time steps"
            raise ValueError(f"series {name!r} must have a number to forecast from, got {got}")
        if scale == "log_ratio" and np.nanmin(read) < 0:
            got = f"{np.nanmin(read)} in series {name!r}"
            raise ValueError(f"values must not be negative, as in training, got {got}")
        ahead = int(series.offsets[n + 1] - first - end)
        if form.known and ahead < form.horizon:
            right = f"reach {form.horizon} time steps beyond the window"
            raise ValueError(f"known of series {name!r} must {right}, got {max(ahead, 0)}")


def _read(arrays: dict[str, Any], name: str, member: Array, step: Array) -> Array:
    """Returns numbers at time steps of series, NaN outside; member and step broadcast."""
    offsets, numbers = jnp.asarray(arrays["offsets"]), jnp.asarray(arrays[name])
    place = offsets[member] + step
    inside = (step >= 0) & (place < offsets[member + 1])
    found = numbers[jnp.clip(place, 0, len(numbers) - 1)]
    return jnp.where(
        inside.reshape(*inside.shape, *[1] * (found.ndim - inside.ndim)), found, jnp.nan
    )


def _mean_there(values: Array, there: Array, axis: int = 1) -> Array:
    """Returns the mean of the values that are there; 0 of none."""
    total = jnp.sum(jnp.where(there, values, 0), axis=axis)
    return total / jnp.maximum(jnp.sum(there, axis=axis), 1).astype(total.dtype)


def _scaled(values: Array, scale: scaling.Scale) -> Array:
    """Returns covariates [..., n] scaled, 0 where they are missing."""
    shape = (1,) * (values.ndim - 1) + (-1,)
    mean, deviation = (jnp.asarray(part).reshape(shape) for part in scale)
    return jnp.where(jnp.isnan(values), 0, (values - mean) / deviation)
