"""Digits: handwritten digits, one or a few pixels a time step."""

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
    """Classify a handwritten digit from its 8 x 8 image, one or a few pixels a time step.

    The data are the 1,797 images of scikit-learn's `load_digits`, read row by row. A pixel is a
    brightness in [0, 1], in sixteenths. A three, with its second row in full:

        step     0    1    2 ..    8    9   10   11   12   13   14   15 ..   63
        pixel    0    0  .44 ..    0  .50  .81  .38  .94  .25    0    0 ..    0
        answer                                                                3

    D = pixels, V = 10, T = 64 / pixels; y is a `Target` of labels [B] int32. In every class a
    random 70 % train, 10 % validate and 20 % test. The loss is the mean cross-entropy, and chance
    is 1/10. No accuracy counts as solved.

    Attributes:
      seed: of the split and of the order of the pixels, at least 0.
      permuted: reads the pixels in one fixed random order.
      pixels: pixels of a time step, a power of two up to 64; 8 reads row by row.

    Raises:
      ValueError: seed is negative or not an integer, permuted is not a bool, or pixels is not such
        a power.
      ModuleNotFoundError: scikit-learn is missing, on first use of the images.
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
        """T: the time steps of an image."""
        return 64 // self.pixels

    def arrays(self) -> dict[str, Any]:
        """Returns the pixels of all images in reading order, with labels and splits."""
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
