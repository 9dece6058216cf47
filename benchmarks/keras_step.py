"""The lab's network trained by Keras' `model.fit`, a process that takes a step when it is told to (`alternate.py`).

It runs in an environment of its own, with Keras 3 and TensorFlow (`keras_reference.py` says which), as its tutorials
have it: images and labels in memory, a `tf.data` pipeline that flips, pads and crops, SGD with Nesterov's momentum.
"""

import os
import resource
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras_reference import build

NUM_BATCHES, SIDE, MARGIN = 400, 32, 4


class TakeSteps(keras.callbacks.Callback):  # type: ignore[misc]
    """Waits for a line before each step and answers with a line after it."""

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not sys.stdin.readline():
            os._exit(0)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)


def make_batches(batch_size: int) -> Any:
    """Noise of CIFAR's size and type, (N, H, W, C), in augmented batches without end."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch_size * NUM_BATCHES, SIDE, SIDE, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, len(images))

    def augment(image: Any, label: Any) -> tuple[Any, Any]:
        image = tf.image.random_flip_left_right(tf.cast(image, tf.float32) / 128 - 1)
        padded = tf.image.resize_with_crop_or_pad(image, SIDE + 2 * MARGIN, SIDE + 2 * MARGIN)
        return tf.image.random_crop(padded, (SIDE, SIDE, 3)), label

    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(10_000).repeat()
    return data.map(augment, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    keras.mixed_precision.set_global_policy(sys.argv[2])
    model = build()
    model.compile(
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        make_batches(int(sys.argv[1])), epochs=10**6, steps_per_epoch=NUM_BATCHES, callbacks=[TakeSteps()], verbose=0
    )


if __name__ == "__main__":
    main()
