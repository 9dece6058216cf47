"""Whether one exported network answers the same in every runtime: 10,000 images of CIFAR-10, none of the test split.

The run is one of `reslab train fast94`: its 5,000 held-out images and as many training images, in six runtimes. Those
that take free sizes get the ordinary file; OpenCV, which does not, gets the one of `--fixed-size`. An image whose two
highest probabilities lie within 1e-4 by PyTorch is counted, and may be classified otherwise.

    pip install openvino opencv-python-headless
    npm install --prefix FOLDER onnxruntime-node onnxruntime-web@1.23.2     the version of the exported page
    python benchmarks/agreement.py RUN --npm FOLDER          writes benchmarks/agreement.json
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from record import write_record

from reslab.data.recipe_data import read_split
from reslab.exporting import export
from reslab.network.network import Network
from reslab.network.onnx_file import INPUT, OnnxFile, to_pictures
from reslab.runs import Run

NUM_EACH, BATCH, MARGIN = 5000, 100, 1e-4

Pixels: TypeAlias = NDArray[np.uint8]
Probabilities: TypeAlias = NDArray[np.float32]

NODE = """
import { readFileSync, writeFileSync } from 'fs';
import { createRequire } from 'module';
const [folder, name, model, images, out, side, batch] = process.argv.slice(2);
const ort = createRequire(folder + '/package.json')(name);
if (ort.env.wasm) ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(model)));
const pixels = new Uint8Array(readFileSync(images)), step = batch * side * side * 3, found = [];
for (let start = 0; start < pixels.length; start += step) {
  const some = new ort.Tensor('uint8', pixels.slice(start, start + step), [+batch, +side, +side, 3]);
  found.push(Buffer.from((await session.run({ images: some })).probabilities.data.slice().buffer));
}
writeFileSync(out, Buffer.concat(found));
"""


def in_batches(pictures: Pixels, predict: Callable[[Pixels], Probabilities]) -> Probabilities:
    return np.concatenate([predict(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)])


def by_openvino(file: Path, pictures: Pixels) -> Probabilities:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32"}  # else it computes in bfloat16 where the processor can
    compiled = openvino.Core().compile_model(str(file), "CPU", options)
    return in_batches(pictures, lambda some: compiled({INPUT: some})["probabilities"].copy())


def by_opencv(file: Path, pictures: Pixels) -> Probabilities:
    import cv2

    network = cv2.dnn.readNetFromONNX(str(file))

    def predict(some: Pixels) -> Probabilities:
        network.setInput(some, INPUT)
        found: Probabilities = network.forward("probabilities").copy()
        return found

    return in_batches(pictures, predict)


def by_node(file: Path, pictures: Pixels, *, npm: Path, package: str, folder: Path) -> Probabilities:
    script, images, out = folder / "run.mjs", folder / "images.bin", folder / "out.bin"
    script.write_text(NODE)
    images.write_bytes(np.ascontiguousarray(pictures).tobytes())
    arguments = [npm.resolve(), package, file, images, out, pictures.shape[1], BATCH]
    subprocess.run(["node", script, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return np.fromfile(out, np.float32).reshape(len(pictures), -1)


def npm_version(npm: Path, package: str) -> str:
    found: str = json.loads((npm / "node_modules" / package / "package.json").read_text())["version"]
    return found


def compare(found: Probabilities, wanted: Probabilities) -> dict[str, Any]:
    clear = _margins(wanted) >= MARGIN
    differs = found.argmax(axis=1) != wanted.argmax(axis=1)
    return {
        "other_class": int((differs & clear).sum()),
        "other_class_within_the_margin": int((differs & ~clear).sum()),
        "largest_difference": float(np.abs(found - wanted).max()),
    }


def _margins(probabilities: Probabilities) -> Probabilities:
    ordered = np.sort(probabilities, axis=1)
    return np.subtract(ordered[:, -1], ordered[:, -2])


def measure(run: Run, *, npm: Path, folder: Path) -> dict[str, Any]:
    splits = [read_split(run.recipe, "validation"), read_split(run.recipe, "train")]
    images = torch.cat([split.images[:NUM_EACH] for split in splits])
    wanted = Network.load(run.path, device="cpu").logits(images).softmax(dim=1).numpy()
    pictures = np.ascontiguousarray(to_pictures(images.numpy()))
    free, fixed = folder / "free.onnx", folder / "fixed.onnx"
    export(run, to=free)
    export(run, to=fixed, fixed_size=True)
    opened = OnnxFile(free)
    found = {
        f"ONNX Runtime {version('onnxruntime')}, Python": in_batches(
            pictures, lambda some: opened.predict_pictures(some).probabilities
        ),
        f"OpenVINO {version('openvino')}": by_openvino(free, pictures),
        f"OpenCV {version('opencv-python-headless')}, fixed size": by_opencv(fixed, pictures),
        f"ONNX Runtime {npm_version(npm, 'onnxruntime-node')}, Node": by_node(
            free, pictures, npm=npm, package="onnxruntime-node", folder=folder
        ),
        f"ONNX Runtime {npm_version(npm, 'onnxruntime-web')}, WebAssembly": by_node(
            free, pictures, npm=npm, package="onnxruntime-web", folder=folder
        ),
    }
    return {
        "num_images": len(images),
        "num_within_the_margin": int((_margins(wanted) < MARGIN).sum()),
        "runtimes": {name: compare(each, wanted) for name, each in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--npm", type=Path, required=True, help="folder that npm installed the two packages into")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Run.open(arguments.run), npm=arguments.npm, folder=Path(folder))
    write_record(arguments.out, result)


if __name__ == "__main__":
    main()
