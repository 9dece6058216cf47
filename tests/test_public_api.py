"""The public names: all of them there, sorted, documented, and loaded only when they are asked for."""

import inspect
import re
import subprocess
import sys

import pytest

import reslab


def test_the_names_are_sorted_as_the_linter_sorts_them_and_unique() -> None:
    def place(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert list(reslab.__all__) == sorted(set(reslab.__all__), key=place)


@pytest.mark.parametrize("name", reslab.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    found = getattr(reslab, name)
    if name.isupper():
        assert found
        assert isinstance(found, dict)
    else:
        assert found.__name__ == name
        assert re.fullmatch(r"reslab(\.\w+)*", found.__module__)
        assert vars(found).get("__doc__") if inspect.isclass(found) else found.__doc__


def test_the_table_of_homes_names_the_public_names_and_no_others() -> None:
    assert sorted(name for names in reslab._HOMES.values() for name in names) == sorted(reslab.__all__)
    assert set(reslab.__all__) <= set(dir(reslab))


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'reslab' has no attribute 'tarin'"):
        reslab.tarin  # noqa: B018


def test_functions_take_one_argument_by_place_and_the_rest_by_name() -> None:
    for name in reslab.__all__:
        found = getattr(reslab, name)
        if inspect.isfunction(found) and name not in ("load", "with_settings"):
            kinds = [parameter.kind for parameter in inspect.signature(found).parameters.values()]
            assert all(kind is inspect.Parameter.KEYWORD_ONLY for kind in kinds[1:] if kind.name != "VAR_KEYWORD"), name


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import reslab, sys; assert reslab.__version__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "reslab" in loaded
    assert not {"torch", "numpy", "pydantic", "matplotlib"} & set(loaded)


def test_a_star_import_gives_every_public_name() -> None:
    names: dict[str, object] = {}
    exec("from reslab import *", names)
    assert set(reslab.__all__) <= names.keys()
