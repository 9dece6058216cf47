"""Pictures to try a run with: one test image of each of its first classes, as evaluation kept them."""

import base64

import numpy as np
import torch

from reslab.errors import UserError
from reslab.runs import DEMO, DEMO_FOLDER, GalleryImages, read_exhibit
from reslab.serving.neighbours import to_data_url
from reslab.serving.schema import Example
from reslab.serving.served import Served

MOST = 8


def find_examples(served: Served) -> list[Example]:
    """Find a test image of each class, at most eight; none if evaluation kept none. The demo has its own pictures."""
    if served.run is None or served.run.path == DEMO_FOLDER:
        return _find_shipped() if served.name == DEMO else []
    try:
        kept = read_exhibit(served.run.path, "test", GalleryImages)
        labels = served.run.read_predictions("test").labels if kept else None
    except UserError:  # a damaged gallery hides its images, not the network
        return []
    if kept is None or labels is None or kept.indices.max(initial=-1) >= len(labels):
        return []
    classes, places = np.unique(labels[kept.indices], return_index=True)
    names = served.network.classes
    return [
        Example(name=names[label], image=to_data_url(torch.from_numpy(kept.images[place])))
        for label, place in list(zip(classes.tolist(), places.tolist(), strict=True))[:MOST]
    ]


def _find_shipped() -> list[Example]:
    pictures = sorted((DEMO_FOLDER / "pictures").glob("*.png"))
    content = ((path.stem, base64.b64encode(path.read_bytes()).decode()) for path in pictures)
    return [Example(name=name, image=f"data:image/png;base64,{each}") for name, each in content]
