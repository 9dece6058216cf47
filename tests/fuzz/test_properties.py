"""What holds for all that is read from outside: any bytes and values are refused or work, sound files return."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from reslab.data import expression as select
from reslab.data.sources.npz import open_npz
from reslab.runs.files import read_safetensors, to_safetensors

BYTES: tuple[str, ...] = (
    "archives",
    "archives, inside",
    "checkpoints",
    "npz of images",
    "npz of predictions",
    "official batches",
)
BYTES += ("pictures", "weights", "answers of a mirror")
TEXT = ("data expressions", "settings")
OBJECTS = ("checkpoints, facts", "environments", "logs", "priors", "recipes", "weights, described")
# Fixtures are shared by all examples: a folder that each one writes anew, and a reader.
repeat = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=9), values, max_size=3),
    max_leaves=9,
)


@pytest.fixture(scope="module")
def outcome(fuzz: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Feed bytes to one of the readers, and say how that ended."""
    folder, guard = tmp_path_factory.mktemp("outside").resolve(), fuzz.Guard()
    fuzz.warm_up(folder)
    return lambda name, content: fuzz.feed(fuzz.TARGETS[name], content, folder=folder, guard=guard)


def test_every_reader_is_held_to_a_property(fuzz: ModuleType) -> None:
    assert sorted(fuzz.TARGETS) == sorted((*BYTES, *TEXT, *OBJECTS))


@pytest.mark.parametrize("name", BYTES)
@repeat
@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused(outcome: Any, name: str, content: bytes) -> None:
    assert outcome(name, content) in ("works", "refused")


@pytest.mark.parametrize("name", TEXT)
@repeat
@given(text=st.text(max_size=40))
def test_any_text_works_or_is_refused(outcome: Any, name: str, text: str) -> None:
    assert outcome(name, text.encode(errors="surrogatepass")) in ("works", "refused")


@pytest.mark.parametrize("name", OBJECTS)
@repeat
@given(data=st.data())
def test_a_record_with_any_value_in_a_field_works_or_is_refused(
    fuzz: ModuleType, outcome: Any, name: str, data: st.DataObject
) -> None:
    record = json.loads(data.draw(st.sampled_from(fuzz.TARGETS[name].seeds())))
    record[data.draw(st.sampled_from([*record, "new"]))] = data.draw(JSON)
    assert outcome(name, json.dumps(record).encode()) in ("works", "refused")


# ---- what is written is read


NAMED = st.sampled_from(sorted(select.CLASSES)).flatmap(
    lambda source: st.tuples(
        st.just(source),
        st.lists(st.sampled_from(select.CLASSES[source]), min_size=1, max_size=4, unique=True),
        st.none() | st.integers(0, 9999),
    )
)


@repeat
@given(terms=st.lists(NAMED, min_size=1, max_size=3, unique_by=lambda term: term[0]))
def test_an_expression_says_the_classes_that_were_written(terms: list[tuple[Any, list[str], int | None]]) -> None:
    written = "+".join(
        f"{source}:{','.join(classes)}" + ("" if limit is None else f"@{limit}") for source, classes, limit in terms
    )
    expected = tuple(select.NamedTerm(source, tuple(classes), limit) for source, classes, limit in terms)
    assert select.parse(written) == expected


@repeat
@given(
    values=arrays.arrays(st.sampled_from(["f4", "f8", "i8", "u1", "?"]), arrays.array_shapes(min_dims=0, max_dims=4))
)
def test_tensors_return_to_the_bit(tmp_path: Path, values: NDArray[Any]) -> None:
    (tmp_path / "it").write_bytes(to_safetensors({"it": values}, {"said": "ä"}))
    tensors, metadata = read_safetensors(tmp_path / "it")
    assert metadata == {"said": "ä"}
    assert (tensors["it"].dtype, tensors["it"].shape) == (values.dtype, values.shape)
    assert tensors["it"].tobytes() == values.tobytes()


@repeat
@given(images=arrays.arrays("u1", st.tuples(st.just(4), *[st.integers(1, 9)] * 2, st.integers(1, 4))))
def test_images_of_an_archive_return(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    np.savez(tmp_path / "it.npz", x_train=images, y_train=[0, 1, 0, 1], x_test=images[:2], y_test=[0, 1])
    (found,) = open_npz(tmp_path / "it.npz", split="train").blocks
    assert (found.images == images.transpose(0, 3, 1, 2)).all()
