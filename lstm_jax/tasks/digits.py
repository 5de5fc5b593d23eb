"""Digits: real handwritten digits, read one pixel or a few a step."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import numpy as np

from lstm_jax.data.splits import stratified
from lstm_jax.tasks import base
from lstm_jax.tasks.images import Images

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2
BRIGHTEST = 16


@dataclasses.dataclass(frozen=True)
class Digits(Images):
    """Name a handwritten digit after reading its 8 x 8 image pixel by pixel, or a few at a time.

    The 1,797 images of scikit-learn's `load_digits`, row after row, 64 steps of one brightness each
    in [0, 1] (sixteenths), by default. A three, its second row in full:

        step     0    1    2 ..    8    9   10   11   12   13   14   15 ..   63
        pixel    0    0  .44 ..    0  .50  .81  .38  .94  .25    0    0 ..    0
        answer                                                                3

    D = pixels, V = 10, T = 64 / pixels; y is a `Target` of labels [B] int32. Tenths of every class
    are set apart by `seed`: seven train, one validates, two test. The loss is the mean
    cross-entropy and chance 1/10; no accuracy on images that are seen again and again counts as
    solved.

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
    output_size: ClassVar = 10
    chance: ClassVar = 1 / 10

    def __post_init__(self):
        base.check_size("seed", self.seed, 0)
        base.check_choice("permuted", self.permuted, (False, True))
        base.check_choice("pixels", self.pixels, (1, 2, 4, 8, 16, 32, 64))

    @property
    def length(self) -> int:
        """T: the steps of an image."""
        return 64 // self.pixels

    def arrays(self) -> dict[str, Any]:
        """Returns the pixels of all images in the order they are read, and their labels."""
        return _arrays(self.seed, self.permuted)


@functools.cache
def _arrays(seed: int, permuted: bool) -> dict[str, Any]:
    """Returns pixels [1797, 64] and labels, and the rows of each split, read-only."""
    pixels, labels = _load()
    rng = np.random.default_rng(seed)
    splits = stratified(rng, labels, VALIDATION_SHARE, TEST_SHARE)
    order = rng.permutation(64) if permuted else np.arange(64)
    arrays = {
        "pixels": np.ascontiguousarray(pixels[:, order]),
        "label": labels,
        "splits": {split: splits[split].astype(np.int32) for split in base.SPLITS},
    }
    for array in jax.tree.leaves(arrays):
        array.setflags(write=False)
    return arrays


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
