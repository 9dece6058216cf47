#!/usr/bin/env bash
# Build an sdist and from it a wheel, install the wheel into an empty environment, and run `reslab lab` from an empty
# folder outside of the repository.
#     tools/package.sh                   everything is installed anew, by the pins of constraints.txt
#     tools/package.sh --see PYTHON      the dependencies are those that PYTHON sees
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
see=""
if [ "${1:-}" = --see ]; then see="$2"; fi
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT

python3 -m venv "$place/builder"
"$place/builder/bin/python" -m pip install --quiet build
"$place/builder/bin/python" -m build --outdir "$place/dist" "$here" > "$place/build.log" 2>&1 ||
  { cat "$place/build.log"; exit 1; }
ls -l "$place/dist"

"${see:-python3}" -m venv "$place/empty"
python="$place/empty/bin/python"
if [ -n "$see" ]; then
  # A path file lends what is installed there, but not what it has put on its path itself, such as an editable reslab.
  "$see" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    > "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lent.pth"
  "$python" -m pip install --quiet --no-deps --ignore-installed "$place"/dist/*.whl
else
  "$python" -m pip install --quiet --constraint "$here/constraints.txt" torch
  "$python" -m pip install --quiet --constraint "$here/constraints.txt" "$place"/dist/*.whl
fi

mkdir "$place/elsewhere"
cd "$place/elsewhere"
unset PYTHONPATH
"$python" -c 'import reslab, sys; print(reslab.__version__, reslab.__file__); assert reslab.__file__.startswith(sys.prefix)'
"$place/empty/bin/reslab" --version
"$place/empty/bin/reslab" pull demo --out runs/demo
"$place/empty/bin/reslab" predict runs/demo runs/demo/pictures
"$place/empty/bin/reslab" lab
test -s runs/lab/base/report.html
test -s runs/lab/extended/report.html
"$place/empty/bin/reslab" study list > /dev/null
echo "The package works outside of the repository."
