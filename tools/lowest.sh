#!/usr/bin/env bash
# Install the lowest versions that pyproject.toml allows into an environment of its own, and run the tests of security
# and a small lab on them.
#     tools/lowest.sh                          with the PyTorch that constraints.txt pins
#     TORCH=torch==2.10.0 tools/lowest.sh      with another one, which pip has to find
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
torch="${TORCH:-$(grep '^torch==' "$here/constraints.txt")}"
extras=(export hub ray report serve shards track)

python3 -m venv "$place/env"
python="$place/env/bin/python"
"$python" -m pip install --quiet uv
# Only what pyproject.toml names is at its lowest; what that needs in turn is as new as it allows.
"$python" -m uv pip compile --quiet --no-annotate --no-header --resolution lowest-direct --no-emit-package torch \
  "${extras[@]/#/--extra=}" "$here/pyproject.toml" --output-file "$place/lowest.txt" > "$place/resolved.log"
grep --invert-match --ignore-case --extended-regexp '^(nvidia-|cuda-|triton)' "$place/lowest.txt" > "$place/pins.txt"
# PyTorch comes first and by pip: uv would fetch a build for CUDA.
"$python" -m pip install --quiet "$torch"
"$python" -m pip install --quiet --requirement "$place/pins.txt"
"$python" -m pip install --quiet --constraint "$place/pins.txt" aiohttp httpx hypothesis psutil pytest pytest-xdist
"$python" -m pip install --quiet --no-deps --editable "$here"
"$python" -m pip list --format=freeze

mkdir "$place/elsewhere"
cd "$place/elsewhere"
export OMP_NUM_THREADS=1
"$place/env/bin/reslab" train digits-quick --set data=digits:0-6 --set epochs=2 --out base
"$place/env/bin/reslab" evaluate base
"$place/env/bin/reslab" extend base --with digits:7 --out seven
"$place/env/bin/reslab" report base
"$place/env/bin/reslab" export base --to base.onnx
cd "$here"
# Old versions warn of each other, which is no fault of reslab's.
"$python" -m pytest -n 2 --basetemp "$place/tests" --override-ini filterwarnings=default tests/data/test_addresses.py \
  tests/cli/test_remote.py tests/cli/test_hostile_folder.py tests/cli/test_malicious_pickle.py \
  tests/models/test_foreign.py tests/study/test_cluster.py tests/study/test_storage.py tests/data/sources/test_shards.py \
  tests/serving tests/fuzz
echo "The lowest versions work."
