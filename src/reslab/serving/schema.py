"""Request and response types of the API, from which its OpenAPI page is made. Fractions lie in [0, 1]."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from reslab.recipe.shapes import Resizing
from reslab.records import Estimate

MAX_PICTURES = 64  # per request
MAX_NAME = 255  # characters of a file's name


class Upload(BaseModel):
    """One picture: the bytes of a file, in base64."""

    model_config = ConfigDict(extra="forbid", val_json_bytes="base64")

    # OpenAPI calls base64 `byte`, so that generated clients send it.
    data: Annotated[bytes, WithJsonSchema({"type": "string", "format": "byte", "contentEncoding": "base64"})]
    name: str = "picture"


class Uploads(BaseModel):
    """The body of a request in JSON."""

    model_config = ConfigDict(extra="forbid")

    pictures: Annotated[list[Upload], Field(min_length=1, max_length=MAX_PICTURES, fail_fast=True)]


class Guess(BaseModel):
    """A class and its probability. `evidence`: its logit without the bias, spread over the last feature map, by row."""

    name: str
    probability: float
    evidence: list[list[float]] | None = None


class Neighbour(BaseModel):
    """A training image: its class, the cosine between its features and the picture's, and a PNG as a data URL."""

    name: str
    similarity: float
    image: str


class Example(BaseModel):
    """A picture to try: its class, and a PNG as a data URL."""

    name: str
    image: str


class RunAnswer(BaseModel):
    """One run's answer to a picture, the most probable class first.

    `familiarity` is the share of held-out images that are no more like the training images than this picture; at 0.05
    or less the picture is not `answered`, and its classes are only a guess. `class_set` contains the true class in the
    share of cases that was requested as `coverage`; a picture that is not answered has none.
    """

    run: str
    classes: list[Guess]
    familiarity: float | None
    answered: bool
    class_set: list[str] | None
    nearest: list[Neighbour]


class Predicted(BaseModel):
    """Every run's answer to one picture."""

    name: str
    answers: list[RunAnswer]


class PredictResponse(BaseModel):
    """The pictures in the order of the request."""

    pictures: list[Predicted]


class ServedRun(BaseModel):
    """A served run. `calibration` and `neighbours` say in a sentence what they are based on."""

    name: str
    recipe: str | None
    data: str | None
    network: str
    classes: tuple[str, ...]
    image_size: int
    channels: int
    resize: Resizing  # how a picture becomes a square
    test_accuracy: Estimate | None
    temperature: float | None  # None: not calibrated
    calibration: str
    has_neighbours: bool
    neighbours: str


class Model(BaseModel):
    """The served runs, and the limits of a request."""

    version: str
    runs: list[ServedRun]
    max_pictures: int
    max_bytes: int
    max_pixels: int


class Problem(BaseModel):
    """Why a request was refused, in a sentence."""

    detail: str
