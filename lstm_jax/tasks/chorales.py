"""Chorales: the next chord of a chorale by Bach."""

import dataclasses
import functools
import math
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.data.digest import digest
from lstm_jax.tasks import base, heads
from lstm_jax.tasks.sequence_tasks import Labelling
from lstm_jax.types import Array, Batch

KEYS = 88  # of a piano
LOWEST = 21  # the MIDI number of its first key, A0
VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2


class Scores(NamedTuple):
    """All chorales, concatenated.

    Attributes:
      frames: [F, 88] bool, True for keys that sound.
      lengths: [N] int, the number of frames of each chorale.
    """

    frames: np.ndarray
    lengths: np.ndarray


@dataclasses.dataclass(frozen=True)
class Chorales(base.Task):
    """Predict the keys that sound at the next quarter note of a chorale, at every time step.

    The data are the 350 chorales by J. S. Bach in the package music21, in Riemenschneider's
    numbering and in their own keys. A frame is a quarter note; its 88 numbers are 1 for every piano
    key that sounds at its start. The first chords of BWV 342:

        step     0             1             2             3
        x        A3 C4 E4 C5   E3 C4 G4 C5   G3 B3 G4 D5   C3 C4 G4 E5
        y        E3 C4 G4 C5   G3 B3 G4 D5   C3 C4 G4 E5   C3 B3 G4 E5

    D = V = 88, T = window, y [T, B, 88]. A random 70 % of the chorales train, 10 % validate and 20
    % test. `sample` draws windows at random positions. `examples` cuts every chorale of a split
    into windows, the last of which may overlap the one before. Chorales of fewer than window + 1
    frames are left out. The loss is the mean over frames of the negative log-likelihood of all
    keys, in nats. The metric is the share of frames with every key right; chance is the share of
    the most common frame. No loss counts as solved. New chorales are rows x [N, T, 88] of zeros and
    ones.

    The first use reads the scores, which takes half a minute, and stores them in the user's cache.
    Splits and frames differ from those of Boulanger-Lewandowski et al. 2012, so losses are not
    comparable with theirs.

    Attributes:
      window: frames of a window, at least 1.
      seed: of the split, at least 0.

    Raises:
      ValueError: window or seed is too small or not an integer, or a split has no chorale of that
        length.
      ModuleNotFoundError: music21 is missing, on first use of the chorales.

    Source: the task, Boulanger-Lewandowski, Bengio & Vincent 2012; the collection, music21
    (Cuthbert & Ariza 2010).
    """

    window: int = 24
    seed: int = 0

    name: ClassVar = "chorales"
    readout: ClassVar = "every"
    metric_name: ClassVar = "accuracy of a frame"
    input_size: ClassVar = KEYS
    output_size: ClassVar = KEYS

    def __post_init__(self):
        base.check_size("window", self.window, 1)
        base.check_size("seed", self.seed, 0)

    @property
    def length(self) -> int:
        """T: the frames of a window."""
        return self.window

    @property
    def chance(self) -> float:
        """The share of the most common frame."""
        frames = _scores().frames
        return float(np.unique(frames, axis=0, return_counts=True)[1].max() / len(frames))

    def arrays(self) -> dict[str, Any]:
        """Returns the frames of all chorales, and the possible starts of windows by split."""
        starts = {split: self._starts(split, everywhere=True) for split in base.SPLITS}
        return {"frames": _scores().frames, "starts": starts}

    @property
    def serving(self) -> Labelling:
        """The task of saying which keys sound after each frame of new chorales."""
        names = tuple(f"key_{LOWEST + key}" for key in range(KEYS))
        return Labelling.serving_for(self, heads.Bernoulli(), targets=KEYS, names=names)

    @property
    def digest(self) -> str:
        """The hash of the frames and of the splits."""
        return digest(self.arrays())

    def sample(
        self, key: Array, batch_size: int, split: str = "train", arrays: Any = None
    ) -> Batch:
        """Draws windows of one split at random positions, with replacement."""
        key = base.split_key(key, split)
        arrays = self.arrays() if arrays is None else arrays
        starts = jnp.asarray(arrays["starts"][split])
        chosen = jax.random.randint(key, (batch_size,), 0, len(starts), jnp.int32)
        return self._windows(arrays, starts[chosen])

    def examples(self, split: str) -> Batch:
        """Returns every frame of a split in windows, x and y [T, N, 88]."""
        starts = jnp.asarray(self._starts(split, everywhere=False))
        return self._windows(self.arrays(), starts)

    def split_size(self, split: str) -> int:
        """Returns the number of windows of `examples`."""
        return len(self._starts(split, everywhere=False))

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean over frames of -sum_k log p(y_k), with p(1) = sigmoid(output_k)."""
        signed = jnp.where(batch.y > 0, outputs, -outputs)
        return -jnp.mean(jnp.sum(jax.nn.log_sigmoid(signed), axis=-1))

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where every key of every frame is right, else 0, [B]."""
        return jnp.min(_right(outputs, batch), axis=0)

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the share of frames with every key right, a scalar."""
        return jnp.mean(_right(outputs, batch))

    def _starts(self, split: str, *, everywhere: bool) -> np.ndarray:
        base.check_choice("split", split, base.SPLITS)
        return _starts(self.window, self.seed, everywhere)[split]

    def _windows(self, arrays: dict[str, Any], starts: Array) -> Batch:
        at = starts[None] + jnp.arange(self.window, dtype=jnp.int32)[:, None]
        frames = jnp.asarray(arrays["frames"])
        return Batch(*(frames[places].astype(jnp.float32) for places in (at, at + 1)))


def _right(outputs: Array, batch: Batch) -> Array:
    """Returns 1.0 where every key of a frame is right, else 0.0, [T, B]."""
    return jnp.all((outputs > 0) == (batch.y > 0), axis=-1).astype(jnp.float32)


@functools.cache
def _starts(window: int, seed: int, everywhere: bool) -> dict[str, np.ndarray]:
    """Returns the starts of windows by split, int32: all of them, or those that cover it."""
    lengths = _scores().lengths.tolist()
    first = np.cumsum([0, *lengths])
    found = {}
    for split, chorales in _members(seed, len(lengths)).items():
        starts = [
            first[c] + (np.arange(last + 1) if everywhere else _cut(last, window))
            for c in chorales
            if (last := lengths[c] - window - 1) >= 0
        ]
        if not starts:
            raise ValueError(f"window must leave {split} a chorale, got {window}")
        found[split] = np.concatenate(starts).astype(np.int32)
    return found


def _cut(last: int, window: int) -> np.ndarray:
    """Returns the starts 0, window, ..., last of windows that cover a chorale."""
    return np.append(np.arange(0, last, window), last)


def _members(seed: int, count: int) -> dict[str, np.ndarray]:
    """Returns the numbers of the chorales of each split."""
    order = np.random.default_rng(seed).permutation(count)
    validation, test = round(count * VALIDATION_SHARE), round(count * TEST_SHARE)
    parts = np.split(order, [validation, validation + test])
    return dict(zip(("validation", "test", "train"), map(np.sort, parts), strict=True))


@functools.cache
def _scores() -> Scores:
    """Returns the chorales of music21, from the user's cache after the first call."""
    try:
        import music21
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the chorales task needs music21: pip install 'lstm_jax[experiments]'"
        ) from error
    path = _cache() / f"chorales-music21-{music21.__version__}.npz"
    if not path.exists():
        _keep(path, _joined([_frames(_notes(name)) for name in _names()]))
    with np.load(path) as kept:
        scores = Scores(kept["frames"], kept["lengths"])
    for array in scores:
        array.setflags(write=False)
    return scores


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lstm_jax"


def _keep(path: Path, scores: Scores) -> None:
    """Writes the scores whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.savez_compressed(file, **scores._asdict())
    os.replace(file.name, path)


def _joined(chorales: list[np.ndarray]) -> Scores:
    return Scores(np.concatenate(chorales), np.array([len(frames) for frames in chorales]))


def _names() -> list[str]:
    """Returns the files of the chorales, each once: the numbering repeats some."""
    from music21 import corpus

    numbered: Any = corpus.chorales.Iterator(
        numberingSystem="riemenschneider", returnType="filename"
    )
    return sorted(set(numbered))


def _notes(name: str) -> list[tuple[float, float, list[int]]]:
    """Returns start and end of each note or chord, in quarter notes, with its MIDI numbers."""
    from music21 import corpus

    sounding: Any = corpus.parse(name).flatten().notes
    return [
        (float(n.offset), float(n.offset + n.quarterLength), [pitch.midi for pitch in n.pitches])
        for n in sounding
    ]


def _frames(notes: list[tuple[float, float, list[int]]]) -> np.ndarray:
    """Returns the keys that sound at the start of every quarter note, [F, 88] bool."""
    frames = np.zeros((math.ceil(max(end for _, end, _ in notes)), KEYS), bool)
    for begin, end, pitches in notes:
        for pitch in pitches:
            frames[math.ceil(begin) : math.ceil(end), pitch - LOWEST] = True
    return frames
