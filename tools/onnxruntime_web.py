"""Take ONNX Runtime for browsers from npm's archive into the package, for `reslab export --to page.html`.

python tools/onnxruntime_web.py
"""

import base64
import hashlib
import lzma
import tarfile
import urllib.request
from io import BytesIO
from pathlib import Path

URL = "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.23.2.tgz"
SHA512 = "T09JUtMn+CZLk3mFwqiH0lgQf+4S7+oYHHtk6uhaYAAJI95bTcKi5bOOZYwORXfS/RLZCjDDEXGWIuOCAFlEjg=="  # npm's "integrity"
FILES = {
    "ort.wasm.min.mjs": "runtime.mjs.xz",
    "ort-wasm-simd-threaded.mjs": "loader.mjs.xz",
    "ort-wasm-simd-threaded.wasm": "runtime.wasm.xz",
}
TARGET = Path(__file__).parents[1] / "src/reslab/exporting/page"


def main() -> None:
    with urllib.request.urlopen(URL) as response:
        archive = response.read()
    if base64.b64encode(hashlib.sha512(archive).digest()).decode() != SHA512:
        raise SystemExit(f"{URL} is not the archive that this script was written for")
    with tarfile.open(fileobj=BytesIO(archive)) as members:
        for name, ours in FILES.items():
            member = members.extractfile(f"package/dist/{name}")
            assert member is not None
            (TARGET / ours).write_bytes(lzma.compress(member.read(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
