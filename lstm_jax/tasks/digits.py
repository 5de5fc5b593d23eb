"""Digits: real handwritten digits, read one pixel or a few a step."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2
BRIGHTEST = 16


@dataclasses.dataclass(frozen=True)
class Digits(base.Task):
    """Name a handwritten digit after reading its 8 x 8 image pixel by pixel, or a few at a time.

    The 1,797 images of scikit-learn's `load_digits`, row after row, 64 steps of one brightness each
    in [0, 1] (sixteenths), by default. A three, its second row in full:

        step     0    1    2 ..    8    9   10   11   12   13   14   15 ..   63
        pixel    0    0  .44 ..    0  .50  .81  .38  .94  .25    0    0 ..    0
        answer                                                                3

    D = pixels, V = 10, T = 64 / pixels; y [B] int32. Tenths of every class are set apart by `seed`:
    seven train, one validates, two test. `sample` draws from a split with replacement, `examples`
    gives it whole. The loss is the mean cross-entropy and chance 1/10; no accuracy on images that
    are seen again and again counts as solved.

    Attributes:
      seed: which images train, validate and test (and the order of the pixels), at least 0.
      permuted: read the pixels in one fixed random order, which leaves no neighbours to rely on.
      pixels: read at every step, a power of two up to 64: 1, or 8 for row by row.

    Raises:
      ValueError: seed is negative or no integer, permuted is no bool, or pixels are no such power.
      ModuleNotFoundError: on first use of the images, where scikit-learn is missing.
    """

    seed: int = 0
    permuted: bool = False
    pixels: int = 1

    name: ClassVar = "digits"
    readout: ClassVar = "last"
    output_size: ClassVar = 10
    chance: ClassVar = 1 / 10

    def __post_init__(self):
        base.check_size("seed", self.seed, 0)
        base.check_choice("permuted", self.permuted, (False, True))
        base.check_choice("pixels", self.pixels, (1, 2, 4, 8, 16, 32, 64))

    @property
    def input_size(self) -> int:
        """D: the pixels of a step."""
        return self.pixels

    @property
    def length(self) -> int:
        """T: the steps of an image."""
        return 64 // self.pixels

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws images of one split, with replacement."""
        key = base.split_key(key, split)
        whole = self.examples(split)
        index = jax.random.randint(key, (batch_size,), 0, whole.y.shape[0], jnp.int32)
        return Batch(whole.x[:, index], whole.y[index])

    def examples(self, split: str) -> Batch:
        """Returns every image of a split once, x [T, N, D] and y [N]."""
        base.check_choice("split", split, base.SPLITS)
        pixels, labels = _splits(self.seed, self.permuted)[split]
        steps = np.swapaxes(pixels.reshape(self.length, self.pixels, -1), 1, 2)
        return Batch(jnp.asarray(steps), jnp.asarray(labels))

    def split_size(self, split: str) -> int:
        """Returns how many images a split holds."""
        base.check_choice("split", split, base.SPLITS)
        return len(_splits(self.seed, self.permuted)[split][1])

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Mean cross-entropy of the digit, in nats; outputs [B, 10]."""
        return base.cross_entropy(outputs, batch.y)

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Where the largest output is that of the digit, [B]."""
        return base.labelled(outputs, batch.y)


@functools.cache
def _splits(seed: int, permuted: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns for each split its pixels [64, N, 1] float32 and labels [N] int32, read-only."""
    pixels, labels = _load()
    rng = np.random.default_rng(seed)
    members = _stratified(rng, labels)
    order = rng.permutation(64) if permuted else np.arange(64)
    splits = {}
    for split, index in members.items():
        x = np.ascontiguousarray(pixels[index][:, order].T[..., None])
        splits[split] = _read_only(x), _read_only(labels[index])
    return splits


def _stratified(rng: np.random.Generator, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the rows of each split, the same shares of every class, in the order of the data."""
    members = {split: [] for split in base.SPLITS}
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        validation, test = round(len(rows) * VALIDATION_SHARE), round(len(rows) * TEST_SHARE)
        parts = np.split(rows, [validation, validation + test])
        for split, part in zip(("validation", "test", "train"), parts, strict=True):
            members[split].append(part)
    return {split: np.sort(np.concatenate(parts)) for split, parts in members.items()}


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    """Returns all images as rows of pixels [1797, 64] in [0, 1] and their labels [1797]."""
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits task needs scikit-learn: pip install 'lstm_jax[experiments]'"
        ) from error
    pixels, labels = datasets.load_digits(return_X_y=True)
    return np.asarray(pixels / BRIGHTEST, np.float32), np.asarray(labels, np.int32)


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
