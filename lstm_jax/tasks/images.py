"""Images: classification of images, one or a few pixels a time step."""

from typing import ClassVar, Literal

import jax.numpy as jnp

from lstm_jax.data.digest import digest
from lstm_jax.tasks import base, heads
from lstm_jax.tasks.sequence_tasks import Classification
from lstm_jax.types import Array, Batch

BRIGHTEST = 255  # of a byte


class Images(base.Rows):
    """Classify an image after reading its pixels in order.

    A new task sets `name`, `output_size`, `chance`, `length` and, for more than one pixel a time
    step, `pixels`. Its `arrays` has the entries "pixels" [N, length pixels], bytes or brightness in
    [0, 1], "label" [N] int32 and "splits". The compiled program turns bytes into brightness,
    byte / 255, so 70,000 images of 28 x 28 pixels take 55 MB.

    D = pixels, T = length; y is a `Target` of labels [B] int32. The loss is the mean cross-entropy.
    No accuracy counts as solved. New images are rows x [N, T, D] of brightness in [0, 1], in the
    order in which pixels are read.

    Attributes:
      pixels: pixels of a time step.
    """

    readout: ClassVar[Literal["last", "every"]] = "last"
    pixels: int = 1

    @property
    def input_size(self) -> int:
        """D: the pixels of a time step."""
        return self.pixels

    @property
    def serving(self) -> Classification:
        """The task of naming the class of new images."""
        head, classes = heads.CrossEntropy(self.output_size), tuple(range(self.output_size))
        names = tuple(f"pixel_{n}" for n in range(self.pixels))
        return Classification.serving_for(self, head, classes=classes, names=names)

    @property
    def digest(self) -> str:
        """The hash of the images and their splits."""
        return digest(self.arrays())

    def batch(self, arrays: dict, index: Array, weight: Array) -> Batch:
        """Returns images, x [T, B, D], and y, a `Target` of their labels [B]."""
        pixels = jnp.asarray(arrays["pixels"])[index]
        if pixels.dtype == jnp.uint8:
            pixels = pixels.astype(jnp.float32) / BRIGHTEST
        pixels = pixels.reshape(-1, self.length, self.pixels)
        label = jnp.asarray(arrays["label"])[index]
        target = base.Target(label, jnp.asarray(weight, jnp.float32))
        return Batch(jnp.swapaxes(pixels, 0, 1), target)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean cross-entropy of the class, in nats; outputs [B, V]."""
        each = base.cross_entropies(outputs, batch.y.value)
        return base.weighted_mean(each, batch.y.weight.astype(each.dtype))

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where the class has the largest output, else 0, [B]."""
        right = base.labelled(outputs, batch.y.value)
        return jnp.where(batch.y.weight > 0, right, jnp.zeros_like(right))

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the accuracy."""
        return base.weighted_mean(base.labelled(outputs, batch.y.value), batch.y.weight)
