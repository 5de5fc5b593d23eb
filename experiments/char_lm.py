"""An LSTM over characters needs fewer bits for held-out folk tunes than interpolated n-grams.

A language model reads O'Neill's tunes in ABC notation, or `--text_file`, as one stream. The
baseline is the modified Kneser-Ney n-gram model whose order is the best on validation. Bits per
character are of held-out tunes. Ten texts of the first network are parsed by music21.
`--sample` prints texts, and `--prompt` begins them.

Command: scripts/run char_lm
Cost: --quick a minute, by default 6 minutes, both on two cores
Expect: bits per character 1.86 of the LSTM, 2.15 of n-grams; 10 of 10 drawn tunes parse
Method: docs/experiments.md#char_lm
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize

import lstm_jax as lj
from experiments.common import networks, ngrams, runner, terminal, tunes, tuning
from experiments.common.flags import Config, need, setting
from experiments.common.own_data import blaming
from experiments.common.plan import Claim, Computed, Experiment, Group, Picture, Record, Row
from lstm_jax import cells
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import FAILS, REPRODUCES, exceeds
from lstm_jax.tasks import LanguageModel

NGRAMS, LSTM = "n-grams", "LSTM"
SAMPLES, ENOUGH = 10, 6  # tunes that are drawn, and that music21 has to parse
DRAWN = 600  # characters of one, or fewer: a tune ends with an empty line
WARM_UP = 1000  # characters of training text before a prompt: networks learn from carried states
DARK = 0.6  # output of a unit from which its colour needs white symbols
SHOWN, LINE = 480, 60  # held-out characters in the picture of a unit, and in one line of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class CharLM(Config):
    """The text, the network and its training, and the texts to draw."""

    seeds: int = setting(8, "networks that are reported, each from its own seed")
    tuning_seeds: int = setting(1, "networks for each learning rate, where there are several")
    steps: int = setting(3000, "updates of a network")
    hidden: int = setting(128, "hidden units of a layer")
    depth: int = setting(1, "layers")
    embedding: int = setting(64, "width of the embedding of a character", (1, 100_000))
    window: int = setting(64, "characters from one update to the next")
    batch_size: int = setting(32, "parts of the text that are read side by side")
    learning_rates: tuple[float, ...] = setting((5e-3,), "Adam's learning rates to choose from")
    dropout: float = setting(0.0, "rate of dropout of outputs", (0, 0.99))
    input_dropout: float = setting(0.0, "rate of variational dropout of inputs", (0, 0.99))
    weight_drop: float = setting(0.0, "rate of dropout of recurrent weights", (0, 0.99))
    tied: bool = setting(False, "output weights are the embedding, as wide as --hidden")
    order: int = setting(11, "the longest context of n-grams", (0, 50))
    text_file: str = setting("", "your text in UTF-8, in place of the tunes")
    sample: int = setting(1, "texts to print", (0, SAMPLES))
    prompt: str = setting("", "how every drawn text begins; by default as a tune")
    temperature: float = setting(0.8, "of the draws", (1e-3, 100))

    def __post_init__(self):
        super().__post_init__()
        fits = not self.tied or self.embedding == self.hidden
        need(fits, "tied", self.tied, f"need --embedding={self.hidden}, as --hidden")


SCALES = {
    "quick": CharLM(seeds=2, steps=60, hidden=32, embedding=16, order=4),
    "small": CharLM(),
    "paper": CharLM(seeds=5, steps=40_000, hidden=512, depth=2, dropout=0.3, weight_drop=0.3),
}


@functools.cache
def task_of(text_file: str, window: int) -> LanguageModel:
    """Returns the task of a text; the message of an error names the flag."""
    with blaming("text_file", text_file):
        return LanguageModel(tunes.text_of(text_file)[1], window=window)


def plan(config: CharLM, records: Sequence[Record]) -> list[Group | Computed]:
    """Returns the n-grams and the networks."""
    task = task_of(config.text_file, config.window)
    start, stop = task.bounds[0]
    most = stop - start - 1
    need(config.batch_size <= most, "batch_size", config.batch_size, f"need at most {most}")
    model = networks.spec(
        cells.LSTM(config.hidden), task, config.engine, depth=config.depth,
        front="embed", front_width=config.embedding, tied=config.tied,
    )  # fmt: skip
    group = Group(
        LSTM, task, model, config.steps, config.batch_size, None, "test",
        measure=functools.partial(measure, config, task, model), save_model=True,
    )  # fmt: skip
    return [
        Computed(NGRAMS, functools.partial(baseline, config)),
        *tuning.tune_then_report(
            config, config.learning_rates, records, group, choose=tuning.lowest_loss,
            decay=float(config.steps), dropout=config.dropout,
            input_dropout=config.input_dropout, weight_drop=config.weight_drop,
        ),
    ]  # fmt: skip


def baseline(config: CharLM) -> tuple[list[Record], Any]:
    """Returns the bits per character of n-grams, one result for each order."""
    text, division = tunes.text_of(config.text_file)
    train, validation, test = (text[slice(*bounds)] for bounds in division.bounds.values())
    on = [ngrams.bits(train, held, config.order) for held in (validation, test)]
    results: list[Record] = [
        {"trial": n, "order": n, "validation_bits": float(v), "test_bits": float(t)}
        for n, (v, t) in enumerate(zip(*on, strict=True))
    ]
    return results, {"test_bits": on[1]}


def measure(
    config: CharLM, task: LanguageModel, model: Any, params: Any, trials: Any
) -> list[Record]:
    """Returns drawn texts and a unit's states of the first network; prints some of the texts."""
    first, trial = jax.tree.map(lambda leaf: leaf[:1], (params, trials))
    predictor = lj.Predictor(task, model, first, trial)
    drawn = [draw_text(config, predictor, seed) for seed in range(SAMPLES)]
    for text in drawn[: config.sample]:
        terminal.write(f"\n{text}\n")
    parsed = None if config.text_file else sum(map(tunes.parses, drawn))
    found = {"drawn": drawn, "parsed": parsed, "unit": unit_of(config, predictor)}
    return [found, *({} for _ in trials.seed[1:])]


def draw_text(config: CharLM, predictor: lj.Predictor, seed: int) -> str:
    """Returns a prompt and its continuation, of a tune up to its end."""
    text, division = tunes.text_of(config.text_file)
    stop = division.bounds["train"][1]
    prompt = config.prompt or ("" if config.text_file else "X:")
    before = text[max(0, stop - WARM_UP) : stop]
    drawn = predictor.generate(before + prompt, DRAWN, temperature=config.temperature, seed=seed)
    return prompt + (drawn if config.text_file else drawn.split("\n\n")[0])


def unit_of(config: CharLM, predictor: lj.Predictor) -> Record:
    """Returns held-out text with the output of the unit that follows the place in a line best."""
    text, division = tunes.text_of(config.text_file)
    shown = text[slice(*division.bounds["test"])][:SHOWN]
    params = jax.tree.map(lambda leaf: leaf[0], predictor.params)
    batch = predictor.task.batch(predictor.task.encode(shown), np.arange(len(shown)))
    x = params["front"]["embedding"][np.asarray(batch.x)]
    model: Any = predictor.model
    _, outputs = lj.unroll(model.cell, networks.recurrent(model, params), x, mask=batch.mask)
    h = np.asarray(outputs)[:, 0]  # [T, H]
    place = np.array([n - shown.rfind("\n", 0, n) for n in range(len(shown))], float)
    with np.errstate(invalid="ignore"):  # a constant unit has no correlation
        correlation = np.corrcoef(h.T, place)[-1, :-1]
    unit = int(np.argmax(np.abs(np.nan_to_num(correlation))))
    return {"text": shown, "number": unit, "states": [round(float(v), 3) for v in h[:, unit]]}


def networks_of(records: Sequence[Record]) -> list[Record]:
    """Returns the results of the reported networks."""
    return [r for r in ledger.results(records) if "test_loss" in r]


def summarise(config: CharLM, records: Sequence[Record]) -> list[Row]:
    """Returns bits per character of the best order, of the networks, and what they save."""
    best = min(ledger.results(records, NGRAMS), key=lambda r: r["validation_bits"])
    bits = [r["test_loss"] / math.log(2) for r in networks_of(records)]
    found = {
        f"n-grams, contexts of {best['order']}": statistics.interval([best["test_bits"]]),
        f"{LSTM}, {config.hidden} units": statistics.interval(bits),
        "saved by the LSTM": statistics.interval([best["test_bits"] - value for value in bits]),
    }
    parsed = [None, networks_of(records)[0]["parsed"], None]
    rows = zip(found.items(), parsed, strict=True)
    return [{"model": name, "bits": value, "parsed": n} for (name, value), n in rows]


def claims(config: CharLM, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claims on bits per character and on drawn tunes."""
    ngram, lstm, saved = (row["bits"] for row in rows)
    said = "An LSTM needs fewer bits per character than the best interpolated n-grams"
    ours = f"{lstm} against {ngram}: {saved} saved"
    found = [Claim(said, ours, "-", exceeds(saved, 0.0))]
    if (parsed := rows[1]["parsed"]) is not None:
        verdict = REPRODUCES if parsed >= ENOUGH else FAILS
        said = f"music21 parses at least {ENOUGH} of {SAMPLES} drawn tunes"
        found.append(Claim(said, f"{parsed} of {SAMPLES}", "-", verdict))
    return found


def draw(config: CharLM, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws a held-out text coloured by one unit."""
    return [unit(networks_of(records)[0]["unit"])]


def unit(shown: Record) -> Picture:
    """Draws a text with every character on the colour of a unit's output there."""
    lines = _lines(shown["text"], shown["states"])
    figure, ((axes,),) = figures.canvas(1, 1, panel=(12, 0.34 * len(lines) + 0.6))
    states = np.full((len(lines), LINE), np.nan)
    for row, line in enumerate(lines):
        for column, (symbol, state) in enumerate(line):
            states[row, column] = state
            axes.text(
                column, row, symbol, ha="center", va="center", family="monospace", fontsize=11,
                parse_math=False, color="white" if abs(state) > DARK else "black",
            )  # fmt: skip
    image = axes.imshow(states, colormaps["RdBu_r"], Normalize(-1, 1), aspect="auto", alpha=0.8)
    axes.set(xticks=(), yticks=())
    axes.spines[:].set_visible(False)
    axes.grid(False)
    figure.colorbar(image, ax=axes, label=f"output of unit {shown['number']}")
    caption = (
        "The first network on held-out text: the output of the unit of its first layer that "
        "correlates most with the place in a line."
    )
    return Picture("unit", caption, figure)


def _lines(text: str, states: Sequence[float]) -> list[list[tuple[str, float]]]:
    """Returns the printable characters with their states, by line of at most `LINE`."""
    lines: list[list[tuple[str, float]]] = [[]]
    for symbol, state in zip(text, states, strict=True):
        if symbol == "\n" or len(lines[-1]) == LINE:
            lines.append([])
        if symbol != "\n":
            lines[-1].append((symbol if symbol.isprintable() else " ", state))
    return [line for line in lines if line]


EXPERIMENT = Experiment("char_lm", str(__doc__), SCALES, plan, summarise, draw, claims=claims)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
