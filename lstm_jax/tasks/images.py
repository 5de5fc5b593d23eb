"""Images: the class of an image after its pixels, one or a few a time step."""

from typing import ClassVar, Literal

import jax.numpy as jnp

from lstm_jax.data.digest import digest
from lstm_jax.tasks import base, heads
from lstm_jax.tasks.sequence_tasks import Classification
from lstm_jax.types import Array, Batch

BRIGHTEST = 255  # of a byte


class Images(base.Rows):
    """Name the class of an image after reading its pixels in order.

    A new one states `name`, `output_size`, `chance`, `length` and, for more than one pixel a time
    step, `pixels`; and writes `arrays`, whose entries are "pixels" [N, length pixels], bytes or
    brightness in [0, 1], "label" [N] int32 and "splits". Bytes become brightness, byte / 255, in
    the compiled program: 70,000 images of 28 x 28 pixels take 55 MB.

    D = pixels, T = length; y is a `Target` of labels [B] int32. The loss is the mean cross-entropy.
    No accuracy on images that are read again and again counts as solved. New images are rows x
    [N, T, D] of brightness in [0, 1], in the order in which pixels are read.

    Attributes:
      pixels: read at every time step.
    """

    readout: ClassVar[Literal["last", "every"]] = "last"
    pixels: int = 1

    @property
    def input_size(self) -> int:
        """D: the pixels of a step."""
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
        """Mean cross-entropy of the class, in nats; outputs [B, V]."""
        each = base.cross_entropies(outputs, batch.y.value)
        return base.weighted_mean(each, batch.y.weight.astype(each.dtype))

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Where the largest output is that of the class, [B]."""
        right = base.labelled(outputs, batch.y.value)
        return jnp.where(batch.y.weight > 0, right, jnp.zeros_like(right))

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the share of images that are right."""
        return base.weighted_mean(base.labelled(outputs, batch.y.value), batch.y.weight)
