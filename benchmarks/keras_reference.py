"""What Keras computes for the lab's network, as figures that a test compares with `preact_resnet`.

Keras is needed to make the file, not to run the test. In an environment of its own:

    python -m venv /tmp/keras && /tmp/keras/bin/pip install keras==3.15.1 tensorflow-cpu==2.21.0
    /tmp/keras/bin/python benchmarks/keras_reference.py tests/models/keras_preact_resnet32.json

Weights and images come from NumPy, a generator for every name, so that both sides draw the same ones. Names and shapes
are PyTorch's: kernels (outputs, inputs, rows, columns), images (N, C, H, W). Of every gradient and moving statistic the
file holds the norm and the product with a random tensor, which no permutation or change of sign leaves as it is.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 20160316
NUM_IMAGES, NUM_CLASSES = 4, 10
BLOCKS_PER_STAGE = 5
TORCH_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


# ---- what both sides draw


def draw(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw the tensor of this name: kernels of variance 1/fan_in, scales and variances around 1, others around 0."""
    numbers: NDArray[np.float64] = np.random.default_rng([SEED, *name.encode()]).uniform(-1, 1, shape)
    if len(shape) > 1 and name.endswith("weight"):
        numbers *= np.sqrt(3 / np.prod(shape[1:]))
        return numbers
    return numbers / 4 + name.endswith(("weight", "running_var"))


def draw_images() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw the images (N, C, H, W) in [-2, 2] and their labels (N,)."""
    return 8 * draw("images", (NUM_IMAGES, 3, 32, 32)), np.arange(NUM_IMAGES) * 3


def summarize(name: str, tensor: NDArray[Any]) -> dict[str, float]:
    """Tell the norm of a tensor and its product with a random one."""
    probe = draw(f"{name}.probe", tensor.shape)
    return {"norm": float(np.linalg.norm(tensor.ravel())), "product": float(np.sum(probe * tensor))}


# ---- Keras


def build() -> Any:
    """Build the lab's network as its functional model; layers carry the names of ours."""
    from keras import Input, Model, layers

    def conv(x: Any, filters: int, name: str, side: int = 3, stride: int = 1) -> Any:
        return layers.Conv2D(
            filters, side, strides=(stride, stride), padding="same", kernel_initializer="he_normal", name=name
        )(x)

    def norm_relu(x: Any, name: str) -> Any:
        return layers.Activation("relu")(layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x))

    images = Input((32, 32, 3))
    x = conv(images, 16, "stem")
    for number in range(3 * BLOCKS_PER_STAGE):
        stage, position = divmod(number, BLOCKS_PER_STAGE)
        filters, block = 16 * 2**stage, f"blocks.{number}"
        stride = 2 if stage > 0 and position == 0 else 1
        active = norm_relu(x, f"{block}.norm1")
        hidden = conv(active, filters, f"{block}.conv1", stride=stride)
        change = conv(norm_relu(hidden, f"{block}.norm2"), filters, f"{block}.conv2")
        shortcut = x if stride == 1 else conv(active, filters, f"{block}.project", side=1, stride=stride)
        x = layers.Add()([change, shortcut])
    features = layers.GlobalAveragePooling2D()(norm_relu(x, "norm"))
    return Model(images, layers.Dense(NUM_CLASSES, kernel_initializer="he_normal", name="head")(features))


def torch_name(variable: Any) -> str:
    """Name a Keras variable as PyTorch names it, `blocks.0.conv1.weight`."""
    layer, kind = variable.path.split("/")
    return f"{layer}.{TORCH_NAMES[kind]}"


def to_torch(tensor: Any) -> NDArray[Any]:
    """Order the axes of a Keras kernel as PyTorch does."""
    array = np.asarray(tensor)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def to_keras(tensor: NDArray[Any]) -> NDArray[Any]:
    """Order the axes of a PyTorch kernel as Keras does."""
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def measure(precision: str) -> dict[str, Any]:
    """Run the network in `precision`: inference, then one training step, which moves the statistics alone."""
    import keras
    import tensorflow as tf

    keras.config.set_floatx(precision)
    keras.backend.clear_session()
    model = build()
    for variable in model.weights:
        variable.assign(to_keras(draw(torch_name(variable), to_torch(variable).shape)))
    images, labels = draw_images()
    pixels = tf.constant(images.transpose(0, 2, 3, 1), precision)
    logits = np.asarray(model(pixels, training=False))
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(labels, model(pixels, training=True), from_logits=True)
        loss = tf.reduce_mean(losses)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    changed = {torch_name(variable): to_torch(variable) for variable in model.non_trainable_variables}
    named = {torch_name(variable): to_torch(g) for variable, g in zip(variables, gradients, strict=True)}
    return {
        "logits": logits.tolist(),
        "loss": float(loss),
        "gradients": {name: summarize(name, gradient) for name, gradient in named.items()},
        "moving": {name: summarize(name, statistic) for name, statistic in changed.items()},
    }


def describe_fresh() -> dict[str, Any]:
    """Count the parameters of a fresh network and look at the kernel with most numbers."""
    import keras

    keras.utils.set_random_seed(SEED)
    model = build()
    kernel = np.asarray(model.get_layer(f"blocks.{3 * BLOCKS_PER_STAGE - 1}.conv2").kernel)
    return {
        "parameters": model.count_params(),
        "trained_parameters": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        "kernel": {
            "shape": list(to_torch(kernel).shape),
            "deviation": float(kernel.std()),
            "largest": float(np.abs(kernel).max()),
        },
    }


def main() -> None:
    """Write the figures to the file named on the command line."""
    import keras
    import tensorflow as tf

    parser = argparse.ArgumentParser(description="Write what Keras computes for the lab's network.")
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__, "numpy": np.__version__}
    content = {
        "versions": versions | {"python": platform.python_version()},
        "fresh": describe_fresh(),
        # Single precision only says how near the logits come; double precision then compares everything sharply.
        "float32": {"logits": measure("float32")["logits"]},
        "float64": measure("float64"),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
