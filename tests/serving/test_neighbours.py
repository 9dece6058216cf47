import asyncio
import threading
import time

import torch

from reslab.data.images import ImageSet
from reslab.data.recipe_data import describe_data, read_split
from reslab.runs import Run
from reslab.serving import service as room
from reslab.serving.metrics import Metrics
from reslab.serving.neighbours import Index
from reslab.serving.own_images import read_own, read_some
from reslab.serving.served import Served
from reslab.serving.service import Service


def test_the_nearest_are_those_of_the_smallest_angle(finished: Run):
    images = read_some(finished, num=6, data_dir=None)
    assert isinstance(images, ImageSet)
    features = torch.tensor([[1.0, 0], [0, 1], [1, 1], [-1, 0], [0, -1], [2, 0.1]])
    (found,) = Index(images, features).search(torch.tensor([[3.0, 0.0]]), num=3)
    assert [each.similarity for each in found] == sorted((each.similarity for each in found), reverse=True)
    assert [round(each.similarity, 4) for each in found] == [1.0, 0.9988, 0.7071]
    assert [each.label for each in found] == [int(images.labels[place]) for place in (0, 5, 2)]
    assert torch.equal(found[1].image, images.images[5])


def test_as_many_of_each_class_are_read(finished: Run):
    images = read_some(finished, num=12, data_dir=None)
    assert images.counts() == [4, 4, 4]
    assert images.split == "train"


def test_nothing_is_downloaded(finished: Run, official, opened):
    """`official` has pinned tiny sets whose mirror is absent."""
    finished.write_recipe(finished.recipe.model_copy(update={"data": "cifar10", "validation": 0, "image_size": 32}))
    used = describe_data(read_split(finished.recipe, "train", data_dir=official))
    finished.write_environment(finished.environment.model_copy(update={"data": (used,)}))
    assert len(read_some(finished, num=10, data_dir=official).labels) == 10
    (official / "cifar-10-batches-py" / "data_batch_3").unlink()
    assert "cifar10 is not on this machine" in read_some(finished, num=10, data_dir=official)


def test_a_folder_that_is_gone_is_named(finished: Run, tmp_path):
    finished.write_recipe(finished.recipe.model_copy(update={"data": f"folder:{tmp_path}/gone"}))
    assert "gone" in read_some(finished, num=10, data_dir=None)


def test_images_that_are_not_what_they_were_are_not_shown(finished: Run):
    (first, *others) = finished.environment.data
    assert first.split == "train"
    changed = first.model_copy(update={"fingerprint": "0" * 64})
    finished.write_environment(finished.environment.model_copy(update={"data": (changed, *others)}))
    assert "has changed: its fingerprint was 000000000000… and is" in read_own(finished, "train", data_dir=None)


def test_images_that_the_run_has_not_recorded_are_not_shown(finished: Run):
    """A run from elsewhere could name any folder of this machine."""
    finished.write_environment(finished.environment.model_copy(update={"data": ()}))
    assert read_own(finished, "train", data_dir=None) == "The run has no record of its train images."


def serve_for(seconds, run):
    """Serve a run with neighbours for a while; return what the page says of them then."""
    served = Served(run.path, name="small")

    async def serve():
        async with Service([served], metrics=Metrics()).running(neighbours=3):
            await asyncio.sleep(seconds)

    asyncio.run(serve())
    return served.index_note


def test_the_server_ends_while_training_images_are_read(finished: Run, monkeypatch):
    goes_on, readers = threading.Event(), []

    def read(*args, **options):
        readers.append(threading.current_thread())
        goes_on.wait(60)
        return "Too late."

    monkeypatch.setattr(room, "read_some", read)
    began = time.monotonic()
    assert serve_for(0.2, finished) == "The nearest training images are being prepared."
    assert time.monotonic() - began < 30
    assert [reader.daemon for reader in readers] == [True]  # the process does not wait for it either
    goes_on.set()
    readers[0].join(10)


def test_a_failure_to_prepare_them_is_said(finished: Run, monkeypatch):
    """Else the page would wait for them for ever."""

    def read(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(room, "read_some", read)
    note = "No nearest training images: preparing them failed ([Errno 13] Permission denied)."
    assert serve_for(0.2, finished) == note
