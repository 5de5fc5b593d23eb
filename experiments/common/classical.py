"""Classical forecasts of one series: seasonal naive, exponential smoothing, Theta, ETS.

All take the values [T] before the horizon H, without gaps, and return [H].
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np

Forecaster = Callable[[np.ndarray, int, int], np.ndarray]
WEIGHTS = np.linspace(1e-4, 0.9999, 1000)  # alpha of the smoothing, the bounds of R's `ses`


def seasonal_naive(history: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Returns the values of the last season, again and again; of a shorter series its last one."""
    season = season if len(history) >= season else 1
    return history[-season:][np.arange(horizon) % season]


def smooth(history: np.ndarray) -> tuple[float, float]:
    """Returns the last level and alpha of the exponential smoothing with the least squared error.

    level_t = alpha y_t + (1 - alpha) level_(t-1), an error e_t = y_t - level_(t-1). For a given
    alpha errors are linear in level_0, whose best value is a quotient: alpha alone is searched.
    """
    level, errors = np.zeros_like(WEIGHTS), []
    for y in history:
        errors.append(y - level)
        level = level + WEIGHTS * errors[-1]
    decay = (1 - WEIGHTS) ** np.arange(len(history) + 1)[:, None]  # of level_0, by time step
    start = np.sum(errors * decay[:-1], axis=0) / np.sum(decay[:-1] ** 2, axis=0)
    best = int(np.argmin(np.sum((errors - decay[:-1] * start) ** 2, axis=0)))
    return float((level + decay[-1] * start)[best]), float(WEIGHTS[best])


def exponential_smoothing(history: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Returns the last level of simple exponential smoothing."""
    return np.full(horizon, smooth(history)[0])


def theta(history: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Returns exponential smoothing with half the slope of the series (Hyndman & Billah 2003).

    A seasonal series is divided by its seasonal indices before, and multiplied after.
    """
    n = len(history)
    index = seasonal_indices(history, season)
    history = history / index[np.arange(n) % season]
    level, alpha = smooth(history)
    slope = np.polyfit(np.arange(n), history, 1)[0]
    steps = np.arange(horizon) + (1 - (1 - alpha) ** n) / alpha
    return (level + slope / 2 * steps) * index[(n + np.arange(horizon)) % season]


def seasonal_indices(history: np.ndarray, season: int) -> np.ndarray:
    """Returns [season] mean ratios to the centred moving average.

    They are 1 without a season, with fewer than two seasons, with a value that is not above 0, or
    if the autocorrelation at one season is not significant at 90 %, as in the M3 competition.
    """
    n = len(history)
    if season == 1 or n < 2 * season + 1 or history.min() <= 0 or not is_seasonal(history, season):
        return np.ones(season)
    even = season % 2 == 0
    weights = np.array([0.5, *np.ones(season - 1), 0.5]) if even else np.ones(season)
    half = len(weights) // 2
    ratio = history[half : n - half] / np.convolve(history, weights / season, "valid")
    phase = np.arange(half, n - half) % season
    index = np.array([ratio[phase == k].mean() for k in range(season)])
    return index / index.mean()


def is_seasonal(history: np.ndarray, season: int) -> bool:
    """Returns whether the autocorrelation at one season is significant at 90 %."""
    away = history - history.mean()
    if not away.any():
        return False
    r = np.array([away[k:] @ away[: len(away) - k] for k in range(1, season + 1)]) / (away @ away)
    return abs(r[-1]) > 1.645 * np.sqrt((1 + 2 * np.sum(r[:-1] ** 2)) / len(history))


def ets(history: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Returns the forecast of statsmodels' damped trend, multiplicative seasons where it can."""
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    if len(history) < 10 or not np.ptp(history):
        return exponential_smoothing(history, horizon, season)
    seasonal = season > 1 and len(history) >= 2 * season + 5
    kind = "mul" if history.min() > 0 else "add"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that does not converge
        model = ExponentialSmoothing(
            history, trend="add", damped_trend=True, seasonal=kind if seasonal else None,
            seasonal_periods=season if seasonal else None, initialization_method="heuristic",
        )  # fmt: skip
        found = model.fit().forecast(horizon)
    return found if np.isfinite(found).all() else exponential_smoothing(history, horizon, season)


FORECASTERS: Mapping[str, Forecaster] = {
    "seasonal naive": seasonal_naive,
    "SES": exponential_smoothing,
    "Theta": theta,
    "ETS": ets,
}
