"""What importing a module costs; who may import whom is a contract in pyproject.toml, which `make check` holds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/reslab"

# Importing the first must not load any of the others, by whatever way.
NEVER_LOADS = {
    "reslab": "torch numpy pydantic",
    "reslab.machine.launch": "torch numpy pydantic typer",
    "reslab.cli": "torch numpy pydantic sklearn scipy matplotlib PIL requests",
    "reslab.recipe.shipped": "torch numpy",
    "reslab.report": "torch sklearn",
    "reslab.report.comparison": "torch sklearn",
    "reslab.study": "torch sklearn matplotlib",
    "reslab.study.worker": "torch sklearn matplotlib",
    "reslab.study.cluster": "torch sklearn matplotlib",
    "reslab.study.report": "torch sklearn",
    "reslab.network.onnx_file": "torch pydantic sklearn scipy",
}


@pytest.mark.parametrize(("module", "heavy"), NEVER_LOADS.items())
def test_importing_a_module_does_not_load_what_is_heavy(module, heavy):
    code = f"import sys, {module}; print(sorted({set(heavy.split())} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_imported_by_its_name_in_a_string():
    """Such an import escapes the contract; only the public names and other people's networks are loaded so."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names |= {node.id for node in nodes if isinstance(node, ast.Name)}
        if names & {"import_module", "__import__"}:
            found.add(path.relative_to(SOURCE).as_posix())
    assert found == {"__init__.py", "models/foreign.py"}
