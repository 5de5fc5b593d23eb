"""An LSTM predicts the next chord of Bach's chorales no worse than a GRU or a tanh RNN does.

The networks read 88 keys a quarter note and give the probability of every key at the next one. All
get the same grid of learning rates, tuning seeds, width and updates; the rate is chosen by the
validation loss. The measure is the negative log-likelihood of a frame on test chorales. Each
network then continues the beginning of a test chorale, as MIDI and as a piano roll.

Command: scripts/run chorales
Cost: --quick a minute, by default two minutes, both on two cores; --scale=paper is for a GPU
Expect: nats a frame on test chorales; the constant answer has 11.7
  LSTM      9.23
  GRU       9.34
  tanh RNN  9.57
Method: docs/experiments.md#chorales
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

import lstm_jax as lj
from experiments.common import networks, runner, tuning
from experiments.common.flags import Config, setting
from experiments.common.plan import Claim, Experiment, Group, Picture, Record, Row
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import below

CELLS = {"lstm": "LSTM", "gru": "GRU", "rnn": "tanh RNN"}
RATES = (3e-3, 1e-2, 3e-2)
WINDOW = 24  # frames that are read in one go
PRIMED = 8  # frames of a test chorale before those that are sampled
SAMPLED = 40
LOWEST = 21  # the MIDI number of the first key
PUBLISHED = "gated units are better than tanh units, and GRU and LSTM alike (Chung et al. 2014)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chorales(Config):
    """Which networks predict chords, and for how long they train."""

    seeds: int = setting(8, "networks reported for each kind, each from its own seed")
    steps: int = setting(1500, "updates of a trial")
    hidden: int = setting(64, "hidden units")
    networks: tuple[str, ...] = setting(tuple(CELLS), "networks to train", choices=CELLS)
    learning_rates: tuple[float, ...] = setting(RATES, "the grid to choose from")
    tuning_seeds: int = setting(2, "seeds to choose on, before those that are reported")
    batch_size: int = setting(16, "windows of 24 frames an update")
    dropout: float = setting(0.3, "rate at which a unit is dropped before the readout", (0, 0.99))


SCALES = {
    "quick": Chorales(seeds=2, steps=200, hidden=32, learning_rates=(1e-2,)),
    "small": Chorales(),
    "paper": Chorales(seeds=20, steps=20_000, hidden=256, learning_rates=(3e-4, 1e-3, *RATES)),
}


def plan(config: Chorales, records: Sequence[Record]) -> list[Group]:
    """Returns for each network the tuning group, then the reported group."""
    task, groups = lj.tasks.Chorales(WINDOW), []
    for cell in config.networks:
        model = networks.network(cell, task, config.hidden, config.engine)
        group = Group(
            cell, task, model, config.steps, config.batch_size, None, "test",
            measure=functools.partial(sampled, task, model), save_model=True,
        )  # fmt: skip
        groups += tuning.tune_then_report(
            config, config.learning_rates, records, group, choose=tuning.lowest_loss,
            decay=config.steps, dropout=config.dropout,
        )  # fmt: skip
    return groups


def sampled(
    task: lj.tasks.Chorales, model: lj.nn.SequenceSpec, params: Any, trials: Any
) -> list[Record]:
    """Returns for the first network the MIDI numbers of each frame that it continues."""
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), params)
    beginning = task.examples("test").x[:PRIMED, 0]
    frames = jax.jit(functools.partial(continue_from, model))(first, beginning, jax.random.key(0))
    numbers = [(LOWEST + np.flatnonzero(frame)).tolist() for frame in np.asarray(frames)]
    return [{"chorale": numbers}, *({} for _ in trials.seed[1:])]


def continue_from(
    model: lj.nn.SequenceSpec, params: Any, beginning: jax.Array, key: jax.Array
) -> jax.Array:
    """Returns the beginning [P, 88] and `SAMPLED` frames after it; keys are drawn one by one."""

    def step(carry, key):
        state, logits = carry
        frame = jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.float32)
        return model.stream(params, state, frame), frame

    state, outputs = model.unroll(params, beginning[:, None])
    frames = jax.lax.scan(step, (state, outputs[-1]), jax.random.split(key, SAMPLED))[1]
    return jnp.concatenate([beginning, frames[:, 0]])


def midi(frames: Sequence[Sequence[int]]) -> bytes:
    """Returns frames as a MIDI file; a key that goes on sounding is one note."""
    from music21 import midi, note, stream

    part = stream.Stream()
    for key, begin, end in notes(frames):
        part.insert(begin, note.Note(key, quarterLength=end - begin))
    file: Any = midi.translate.streamToMidiFile(part)
    return file.writestr()


def notes(frames: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Returns (MIDI number, first frame, frame after the last) of each note."""
    found, begun = [], {}
    for time, keys in enumerate([*frames, []]):
        for key in begun.keys() - set(keys):
            found.append((key, begun.pop(key), time))
        begun |= {key: time for key in keys if key not in begun}
    return sorted(found, key=lambda found: (found[1], found[0]))


def files(config: Chorales, records: Sequence[Record]) -> Mapping[str, bytes]:
    """Returns the sampled chorale of each network as a MIDI file."""
    return {f"{cell}.mid": midi(chorale(records, cell)) for cell in config.networks}


def chorale(records: Sequence[Record], cell: str) -> list[list[int]]:
    """Returns the frames that one kind of network continued."""
    return ledger.results(records, f"{cell}-reported")[0]["chorale"]


def summarise(config: Chorales, records: Sequence[Record]) -> list[Row]:
    """Returns a row for each network, over the reported seeds."""
    return [row(cell, ledger.results(records, f"{cell}-reported")) for cell in config.networks]


def row(cell: str, results: Sequence[Record]) -> Row:
    """Returns one line of the table, from the results of one group."""
    return {
        "network": CELLS[cell],
        "learning_rate": results[0]["learning_rate"],
        "nats_a_frame": statistics.interval([r["test_loss"] for r in results], (0, inf)),
        "frames_right": statistics.interval([r["test_metric"] for r in results], (0, 1)),
        "diverged": sum(r["status"] == "diverged" for r in results),
    }


def claims(config: Chorales, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claims that the LSTM is no worse than the others by more than their interval."""
    losses = {r["network"]: r["nats_a_frame"] for r in rows}
    if CELLS["lstm"] not in losses:
        return []
    ours, found = losses.pop(CELLS["lstm"]), []
    for other, theirs in losses.items():
        said = f"An LSTM predicts the next chord of a chorale no worse than a {other}"
        numbers = f"{ours} nats a frame against {theirs}"
        found.append(Claim(said, numbers, PUBLISHED, below(ours, theirs.high)))
    return found


def draw(config: Chorales, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws the test losses with learning curves, and the sampled chorales as piano rolls."""
    styles = figures.styles(list(CELLS.values()))
    figure, ((losses, curves),) = figures.canvas(1, 2)
    figures.named_bars(losses, {r["network"]: r["nats_a_frame"] for r in rows}, styles)
    losses.set_ylabel("test loss (nats a frame)")
    for cell in config.networks:
        mine, label = ledger.group(records, f"{cell}-reported"), CELLS[cell]
        figures.band(curves, *ledger.curve(mine, "loss"), styles[label], label)
    curves.set(xlabel="updates", ylabel="training loss, with dropout")
    figures.legend(figure, curves)
    caption = "Chorales: mean loss over seeds, with Student's 95 % interval."
    return [Picture("chorales", caption, figure), rolls(config, records)]


def rolls(config: Chorales, records: Sequence[Record]) -> Picture:
    """Draws the piano roll of each sampled chorale."""
    figure, panels = figures.canvas(len(config.networks), 1, panel=(9, 3))
    for cell, (axes,) in zip(config.networks, panels, strict=True):
        piano_roll(axes, chorale(records, cell))
        axes.set(ylabel="MIDI number", title=CELLS[cell])
    panels[-1][0].set_xlabel("quarter note")
    caption = f"The first {PRIMED} frames of a test chorale, up to the line, and the frames that "
    caption += "the first reported network of each kind draws after them."
    return Picture("piano_roll", caption, figure)


def piano_roll(axes: Axes, frames: Sequence[Sequence[int]]) -> None:
    """Draws notes as bars over time."""
    for key, begin, end in notes(frames):
        axes.barh(key, end - begin, left=begin, height=0.8, color="C0")
    axes.axvline(PRIMED, color="grey", linestyle=":")
    axes.set(xlim=(0, len(frames)), ylim=(35, 85))


EXPERIMENT = Experiment(
    "chorales", str(__doc__), SCALES, plan, summarise, draw, claims=claims, files=files
)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
