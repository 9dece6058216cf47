"""Whether the web page of `reslab export --to page.html` answers as Python does: 200 pictures in headless Chromium.

The run is one of `reslab train fast94`. Its held-out images, as they are and enlarged to other shapes, become PNG and
JPEG files; Chromium opens the page from the disk, without a network, and gets them through the page's own file field.
`reslab predict` has the decoder shrink a large JPEG, which changes it (`decode.py`), so the page is compared with what
Python says of all pixels.

    python benchmarks/page.py RUN [--chromium PROGRAM]          writes benchmarks/page.json
"""

import argparse
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import write_record

from reslab.data.recipe_data import read_split
from reslab.evaluation.classify import classify
from reslab.exporting import export
from reslab.runs import Run

NUM_PICTURES, SECONDS = 200, 400
ENDINGS = ("png", "jpg")


class Browser:
    """Chromium's own protocol over two pipes: one message of JSON after another, each ended by a zero byte."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = os.fdopen(to, "wb", buffering=0), os.fdopen(back, "rb")
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **self._session}
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(b"".join(iter(lambda: self._back.read(1), b"\0")))
            if answer.get("id") == number:
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, page: Path) -> None:
        target = self.call("Target.createTarget", url=page.as_uri())["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def ask(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.ask(expression):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression}; the page says: {self.ask('document.body.innerText')}")
            time.sleep(0.5)

    def choose(self, files: list[Path]) -> None:
        field = self.call("Runtime.evaluate", expression="document.getElementById('files')")["result"]["objectId"]
        self.call("DOM.setFileInputFiles", files=[str(file) for file in files], objectId=field)


@contextmanager
def chromium(program: str, profile: Path) -> Iterator[Browser]:
    read, to = os.pipe()
    back, write = os.pipe()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    # It reads from 3 and writes to 4.
    shell = f'exec "$0" "$@" 3<&{read} 4>&{write}'
    process = subprocess.Popen(
        ["bash", "-c", shell, program, *options], pass_fds=(read, write), stderr=subprocess.DEVNULL
    )
    os.close(read)
    os.close(write)
    try:
        yield Browser(to, back)
    finally:
        process.terminate()
        process.wait()


def make_pictures(run: Run, folder: Path) -> list[Path]:
    images = read_split(run.recipe, "validation").images[:NUM_PICTURES].numpy().transpose(0, 2, 3, 1)
    draw = np.random.default_rng(0)
    files = []
    for place, pixels in enumerate(images):
        picture = Image.fromarray(pixels)
        if place % 4:
            width, height = map(int, draw.integers(20, 400, 2))
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        files.append(folder / f"{place}.{ENDINGS[place // 2 % 2]}")
        picture.save(files[-1])
    return files


def save_whole(file: Path) -> Path:
    copy = file.with_suffix(".whole.png")
    with Image.open(file) as picture:
        picture.save(copy)
    return copy


def measure(run: Run, *, program: str, folder: Path) -> dict[str, Any]:
    page = folder / "page.html"
    (written,) = export(run, to=page).files
    files = make_pictures(run, folder)
    whole = [file if file.suffix == ".png" else save_whole(file) for file in files]
    wanted = classify(whole, weights=run.path, top=10)
    with chromium(program, folder / "profile") as browser:
        browser.open(page.resolve())
        browser.wait_for("document.getElementById('state')?.textContent.match(/Ready|cannot/)")
        browser.choose(files)
        browser.wait_for(f"answers.length === {len(files)}")
        found = {each["file"]: each for each in browser.ask("answers")}
        classes = browser.ask("known.classes")
    if failed := [each for each in found.values() if "error" in each]:
        raise RuntimeError(f"the page could not read {failed}")
    differences = {ending: [0.0] for ending in ENDINGS}
    other_class = 0
    for file, answer in zip(files, wanted, strict=True):
        by_name = dict(zip(classes, found[file.name]["probabilities"], strict=True))
        other_class += max(by_name, key=lambda name: by_name[name]) != answer.classes[0]
        differences[file.suffix[1:]] += [
            abs(by_name[name] - probability)
            for name, probability in zip(answer.classes, answer.probabilities, strict=True)
        ]
    return {
        "megabytes": round(written.num_bytes / 1e6, 2),
        "num_pictures": len(files),
        "other_class": other_class,
        "largest_difference": {ending: max(each) for ending, each in differences.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Run.open(arguments.run), program=arguments.chromium, folder=Path(folder))
    write_record(arguments.out, result)


if __name__ == "__main__":
    main()
