"""Who may import whom: the table below is the architecture, and the imports of every module are held to it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src"
EVERYTHING = "*"

# Each module or package of reslab, and what it may import besides itself and `errors`, which everyone may.
MAY_IMPORT = {
    # values and numbers
    "errors": "",
    "text": "",
    "launch": "",
    "signals": "",
    "extras": "",
    "complaints": "",
    "bombs": "",
    "metrics": "",
    "pictures": "",
    "published": "",
    "models": "",
    "part": "complaints text",
    "architectures": "part",
    "recipe": "architectures bombs complaints part",
    "recipes": "recipe published",
    "records": "recipe",
    "settings": "complaints recipe",
    # files
    "runs": "bombs complaints recipe records text",
    "data": "bombs extras pictures recipe records text",
    "onnx_file": "extras pictures",
    # stages: they meet in run folders, so none imports another
    "training": "recipe records data models metrics runs signals text version",
    "extension": "recipe records data models metrics runs training",
    "evaluation": "recipe records data models metrics runs pictures onnx_file extras",
    "card": "recipe records runs text",
    "report": "recipe records metrics published runs comparison card text",
    "comparison": "records metrics runs",
    # many runs, one table: the stages inside the functions that start a run
    "study": "bombs complaints extras launch recipe recipes records settings signals published metrics runs report "
    "data models text training extension evaluation",
    # what takes a run elsewhere
    "exporting": "recipe records data models runs evaluation onnx_file extras card",
    "hub": "records runs exporting extras card",
    "tracking": "records runs extras",
    "serving": "complaints recipe records data models runs evaluation comparison pictures version",
    # what puts the stages together
    "lab": EVERYTHING,
    "notebook": "data report runs extras",
    "doctor": "launch data models training version",
    "sklearn_classifier": EVERYTHING,
    "cli": EVERYTHING,
    "__main__": "cli signals",
    "version": EVERYTHING,  # reslab/__init__.py: the version, and the public names on demand
}

# What a command pays for before it knows which one it is: only this may stand outside of its functions.
CLI_MAY_IMPORT_AT_ONCE = "cli errors signals text"

# Importing the first must not load any of the others, by whatever way.
NEVER_LOADS = {
    "reslab": "torch numpy pydantic",
    "reslab.launch": "torch numpy pydantic typer",
    "reslab.cli": "torch numpy sklearn scipy matplotlib PIL requests",
    "reslab.recipes": "torch numpy",
    "reslab.report": "torch sklearn",
    "reslab.comparison": "torch sklearn matplotlib",
    "reslab.study": "torch sklearn matplotlib",
    "reslab.study.execute": "torch sklearn matplotlib",
    "reslab.study.report": "torch sklearn",
    "reslab.onnx_file": "torch pydantic sklearn scipy",
}


class Import(NamedTuple):
    """One imported module, and where: at the `top`, inside a `function`, or for the type checker (`types`)."""

    target: str
    place: Literal["top", "function", "types"]


def module_of(path: Path) -> str:
    """Name the module of a file: reslab/data/spec.py is reslab.data.spec."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in sorted((SOURCE / "reslab").rglob("*.py"))}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


def find_imports(node: ast.AST, place: str = "top") -> Iterator[Import]:
    """Yield the imports of reslab's own modules below a node of a syntax tree."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from (Import(name.name, place) for name in names if name.name.split(".")[0] == "reslab")
            case ast.ImportFrom(module=module, names=names, level=level):
                assert level == 0, f"imports are absolute here: from {'.' * level}{module or ''}"
                if module is not None and module.split(".")[0] == "reslab":
                    inside = [f"{module}.{name.name}" for name in names]
                    yield from (Import(name if name in FILES else module, place) for name in inside)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from find_imports(child, "function")
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from find_imports(child, "types")
            case _:
                yield from find_imports(child, place)


IMPORTS = {module: sorted(set(find_imports(tree))) for module, tree in TREES.items()}


def layer_of(module: str) -> str:
    """Find a module's row in the table: reslab.data.spec stands in `data`."""
    return [*module.split("."), "version"][1]


def test_the_imports_are_found():
    assert Import("reslab.errors", "top") in IMPORTS["reslab.runs.folder"]
    assert Import("reslab.report.figures", "top") in IMPORTS["reslab.report.pictures"]
    assert Import("reslab.training", "types") in IMPORTS["reslab"]
    assert {("reslab.training", "function"), ("reslab.cli.show", "top")} <= set(IMPORTS["reslab.cli.runs"])
    assert sum(map(len, IMPORTS.values())) > 100


def test_every_module_has_its_row_in_the_table():
    assert {layer_of(module) for module in FILES} == set(MAY_IMPORT), "place the new module in MAY_IMPORT"


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_what_its_row_allows(module):
    layer = layer_of(module)
    targets = {layer_of(found.target) for found in IMPORTS[module]} - {layer, "errors"}
    if MAY_IMPORT[layer] != EVERYTHING:
        assert targets <= set(MAY_IMPORT[layer].split()), f"{module} may import {MAY_IMPORT[layer] or 'nothing'}"


def test_published_figures_stand_alone():
    assert IMPORTS["reslab.published"] == []


@pytest.mark.parametrize("module", [module for module in FILES if layer_of(module) == "cli"])
def test_a_command_imports_inside_its_function(module):
    at_once = {layer_of(found.target) for found in IMPORTS[module] if found.place == "top"}
    assert at_once <= set(CLI_MAY_IMPORT_AT_ONCE.split())


def test_the_package_itself_imports_nothing_at_once():
    assert {found.place for found in IMPORTS["reslab"]} == {"types"}


def test_no_module_imports_itself_by_way_of_others():
    graph = {
        module: {found.target for found in imports if found.place != "types"} for module, imports in IMPORTS.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("module", FILES)
def test_nothing_is_imported_by_its_name_in_a_string(module):
    """Such an import escapes the tests above; only the package itself loads its public names so, and other people's."""
    names = {node.attr for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(TREES[module]) if isinstance(node, ast.Name)}
    assert module in ("reslab", "reslab.models.foreign") or not names & {"import_module", "__import__"}


@pytest.mark.parametrize(("module", "heavy"), NEVER_LOADS.items())
def test_importing_a_module_does_not_load_what_is_heavy(module, heavy):
    code = f"import sys, {module}; print(sorted({set(heavy.split())} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
