"""What an exported network costs and wins, on the test split, and how long a picture takes from the start of a command.

The run is one of `reslab train fast94`; it is exported with --int8 into a temporary folder, every file is measured by
`reslab evaluate --onnx`, and `reslab predict FILE.onnx` is started several times for one picture.

    python benchmarks/export.py RUN          writes benchmarks/export.json
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import write_record

STARTS = 7


def reslab(*arguments: str) -> str:
    """Run a command; its output."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "reslab", *arguments], check=True, capture_output=True, text=True
    ).stdout


def measure(run: Path, folder: Path) -> dict[str, Any]:
    files = [folder / "model.onnx", folder / "model-int8.onnx"]
    reslab("export", str(run), "--to", str(folder), "--int8")
    measured = json.loads(
        reslab("evaluate", str(run), *(part for file in files for part in ("--onnx", str(file))), "--json")
    )
    picture = folder / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    taken = []
    for _ in range(STARTS):
        began = time.perf_counter()
        reslab("predict", str(files[0]), str(picture))
        taken.append(time.perf_counter() - began)
    return {
        "test": {Path(each["file"]).name: each for each in measured["files"]},
        "bytes": {file.name: file.stat().st_size for file in files},
        "seconds_to_predict_from_the_start": round(statistics.median(taken), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.run, Path(folder))
    for each in result["test"].values():
        each["file"] = Path(each["file"]).name
    write_record(arguments.out, result)


if __name__ == "__main__":
    main()
