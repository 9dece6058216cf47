"""A classifier in an ONNX file written by `export`, run by ONNX Runtime; no torch here.

The file is self-contained: it takes the pixels of pictures of any size, and its metadata name the classes.
Axes: N images, P channels of a picture, C channels of the network, H rows, W columns, K classes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from reslab.data.answers import Unread, answer_all
from reslab.data.pictures import ANSWERED, Answer, Said, Wanted, with_channels
from reslab.errors import UserError, check_kind, extra
from reslab.measure.class_sets import find_threshold
from reslab.recipe.shapes import Resizing

if TYPE_CHECKING:
    from reslab.records import ClassSets

LARGEST: Final = 2**31 - 1  # bytes of a file, by its format
AXES = ("num_images", "rows", "columns")
INPUT, OUTPUTS = "images", ("logits", "probabilities", "familiarity")


class Outputs(NamedTuple):
    """A network's output for N images: logits (N, K), probabilities (N, K) and, if available, familiarity (N,).

    All are float32.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    familiarity: NDArray[np.float32] | None = None


def picture_channels(channels: int) -> int:
    """Return the number of channels of a graph's input: RGB if the network's images are grey or RGB."""
    return 3 if channels == 1 else channels


def to_pictures(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn stored images (N, C, H, W) into a graph's input (N, H, W, P)."""
    return with_channels(images, picture_channels(images.shape[1])).transpose(0, 2, 3, 1)


class Description(NamedTuple):
    """Description of a network: the names of its classes, and the channels and side of its square images.

    `resize` says how other pictures become square; with a familiarity of `threshold` or less, an answer is only a
    guess. `class_sets` is JSON, available if images were held out. `white` is the value that becomes white in grey
    pictures of more than 8 bits, if it has learned from such.
    """

    classes: tuple[str, ...]
    channels: int
    image_size: int
    resize: Resizing
    threshold: float = round(1 - ANSWERED, 6)
    class_sets: str | None = None
    white: int | None = None

    def to_metadata(self) -> dict[str, str]:
        """Convert to the metadata of a file, including the colours of its input pictures."""
        colours = {"colours": "RGB" if picture_channels(self.channels) == 3 else None}
        shape = {name: json.dumps(value) for name, value in (self.to_plain() | colours).items()}
        return shape if self.class_sets is None else shape | {"class_sets": self.class_sets}

    def to_plain(self) -> dict[str, Any]:
        """Convert to plain values for JSON, without the class sets."""
        return {name: value for name, value in self._asdict().items() if name != "class_sets"}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Description":
        """Parse metadata. Raises: ValueError or KeyError if they are invalid."""
        classes, channels, image_size, resize, threshold = (json.loads(metadata[name]) for name in cls._fields[:5])
        named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        if not named or not all(type(number) is int and number > 0 for number in (channels, image_size)):
            raise ValueError(metadata)
        if resize not in get_args(Resizing) or not isinstance(threshold, float):
            raise ValueError(metadata)
        white = json.loads(metadata.get("white", "null"))
        if white is not None and (type(white) is not int or white < 1):
            raise ValueError(metadata)
        return cls(tuple(classes), channels, image_size, resize, threshold, metadata.get("class_sets"), white)


class OnnxFile:
    """An open file, run on the CPU. Raises: UserError if it cannot be read or was not written by `export`."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        with extra("export"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are reported below
        options.intra_op_num_threads = threads or 0
        check_kind(path)
        try:
            if path.stat().st_size > LARGEST:
                raise UserError(f"{path} has {path.stat().st_size:,} bytes, but at most {LARGEST:,} are read")
            content = path.read_bytes()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        except Exception as error:  # ONNX Runtime's errors have no class in common
            raise UserError(f"{path} is not a valid ONNX file: {error}") from None
        self.path = path
        self.description = self._describe()

    def _describe(self) -> Description:
        try:
            known = Description.from_metadata(self._session.get_modelmeta().custom_metadata_map)
            (images,), outputs = self._session.get_inputs(), self._session.get_outputs()
        except (ValueError, KeyError, RecursionError):
            raise self._foreign() from None
        fits = images.type == "tensor(uint8)" and len(images.shape) == 4
        fits = fits and images.shape[3] == picture_channels(known.channels)
        if (
            not fits
            or [out.name for out in outputs] not in ([*OUTPUTS], [*OUTPUTS[:2]])
            or outputs[0].shape[1:] != [len(known.classes)]
        ):
            raise UserError(f"{self.path} does not match its metadata: export it again")
        return known

    def _foreign(self) -> UserError:
        return UserError(f"{self.path} does not say what it classifies: reslab export did not write it")

    def read_class_sets(self) -> "ClassSets | None":
        """Read how to choose class sets. Raises: UserError if the metadata are invalid."""
        from reslab.records import ClassSets  # imported here, since it loads pydantic, which takes a tenth of a second

        text = self.description.class_sets
        try:
            return None if text is None else ClassSets.model_validate_json(text)
        except ValueError:
            raise self._foreign() from None

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        """Compute the network's output for stored pixels (N, C, H, W)."""
        return self.predict_pictures(to_pictures(images))

    def predict_pictures(self, pictures: NDArray[np.uint8]) -> Outputs:
        """Compute the network's output for pictures (N, H, W, P), in RGB unless it is for other channels."""
        return Outputs(*self._session.run(None, {INPUT: np.ascontiguousarray(pictures)}))

    def predict_logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute only the logits."""
        return self.predict(images).logits


def classify_each_by_onnx(
    files: Sequence[Path], *, onnx: Path, top: int = 3, answer: float = ANSWERED, coverage: float | None = None
) -> Iterator[Answer | Unread]:
    """Classify each picture into its `top` most probable classes, or say why it cannot be read, a few at a time.

    Raises: UserError if the file cannot be read, or the network takes neither grey nor RGB images.
    """
    network = OnnxFile(onnx)
    known = network.description
    threshold = None if coverage is None else find_threshold(network.read_class_sets(), coverage=coverage)
    return answer_all(
        files,
        lambda images: Said(*network.predict(images)[1:]),
        classes=known.classes,
        image_size=known.image_size,
        channels=known.channels,
        resize=known.resize,
        white=known.white,
        wanted=Wanted(top, answer, threshold),
    )
