from pathlib import Path

import pytest

from reslab.data import parse
from reslab.data.catalog import CIFAR10_CLASSES, CIFAR100_CLASSES, CIFAR100_SUPERCLASSES
from reslab.data.select import LocatedTerm, NamedTerm
from reslab.errors import UserError

REPTILES = ("crocodile", "dinosaur", "lizard", "snake", "turtle")


@pytest.mark.parametrize(
    ("expression", "terms"),
    [
        ("cifar10", [NamedTerm("cifar10", CIFAR10_CLASSES, None)]),
        ("cifar10:dog,cat", [NamedTerm("cifar10", ("dog", "cat"), None)]),
        ("cifar100:reptiles", [NamedTerm("cifar100", REPTILES, None)]),
        ("cifar100:wolf, reptiles ,bee", [NamedTerm("cifar100", ("wolf", *REPTILES, "bee"), None)]),
        ("cifar100-coarse:reptiles,fish", [NamedTerm("cifar100-coarse", ("reptiles", "fish"), None)]),
        ("digits", [NamedTerm("digits", tuple("0123456789"), None)]),
        ("digits:0-6", [NamedTerm("digits", tuple("0123456"), None)]),
        ("digits:9,1-3", [NamedTerm("digits", ("9", "1", "2", "3"), None)]),
        ("digits:7-9@20", [NamedTerm("digits", ("7", "8", "9"), 20)]),
        ("cifar10@5", [NamedTerm("cifar10", CIFAR10_CLASSES, 5)]),
        ("folder:a b/c", [LocatedTerm("folder", Path("a b/c"), None)]),
        ("folder:/a@3", [LocatedTerm("folder", Path("/a"), 3)]),
        ("folder:/a@3/", [LocatedTerm("folder", Path("/a@3"), None)]),
        ("npz:C:/x.npz", [LocatedTerm("npz", Path("C:/x.npz"), None)]),
        ("folder:a+b", [LocatedTerm("folder", Path("a+b"), None)]),
        ("npz:c++/x.npz", [LocatedTerm("npz", Path("c++/x.npz"), None)]),
        (
            "digits:1 + folder:a+b + npz:x.npz@2",
            [
                NamedTerm("digits", ("1",), None),
                LocatedTerm("folder", Path("a+b"), None),
                LocatedTerm("npz", Path("x.npz"), 2),
            ],
        ),
    ],
)
def test_grammar(expression: str, terms: list[NamedTerm | LocatedTerm]) -> None:
    assert list(parse(expression)) == terms


def test_cifar10_and_reptiles_are_fifteen_classes_in_the_order_written() -> None:
    first, second = parse("cifar10+cifar100:reptiles")
    assert isinstance(first, NamedTerm)
    assert isinstance(second, NamedTerm)
    assert (*first.classes, *second.classes) == (*CIFAR10_CLASSES, *REPTILES)


def test_a_path_in_the_home_folder_is_resolved() -> None:
    (term,) = parse("folder:~/pictures")
    assert isinstance(term, LocatedTerm)
    assert term.path == Path.home() / "pictures"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("cifa10", "'cifa10' is not a data source; did you mean 'cifar10'?"),
        ("CIFAR100", "did you mean 'cifar100'?"),
        ("imagenet", "it has cifar10, cifar100, cifar100-coarse, digits, folder, npz"),
        ("cifar10+cifa100:reptiles", "'cifa100' is not a data source; did you mean 'cifar100'?"),
        ("cifar10:kat", "'kat' is not a class of cifar10; did you mean 'cat'?"),
        ("cifar100:reptile", "did you mean 'reptiles'?"),
        ("cifar100:Lizard", "did you mean 'lizard'?"),
        ("cifar100:maple tree", "did you mean 'maple_tree'?"),
        ("cifar100:qqq", "it has apple, aquarium_fish, "),
        ("cifar100-coarse:lizard", "not a class of cifar100-coarse"),
        ("cifar10:", "'' is not a class of cifar10"),
        ("digits:10", "'10' is not a class of digits; it has 0 to 9"),
        ("digits:6-0", "'6-0' is not a class of digits"),
        ("digits@0", "0 training images"),
        ("cifar10+", "lacks a source"),
        ("", "lacks a source"),
        ("folder:", "lacks a path: write folder:PATH"),
        ("npz", "lacks a path: write npz:PATH"),
        ("cifar10:cat,cat", "'cat' is in 'cifar10:cat,cat' twice"),
        ("cifar10+cifar10", "'airplane' is in 'cifar10.cifar10' twice"),
        ("cifar100:reptiles,lizard", "'lizard' is in .* twice"),
        ("digits:0-3+digits:3-5", "'3' is in .* twice"),
    ],
)
def test_a_wrong_expression_is_refused_with_the_right_name(expression: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        parse(expression)


def test_the_tables_of_names_are_the_official_ones() -> None:
    assert CIFAR10_CLASSES[3] == "cat"
    assert len(set(CIFAR100_CLASSES)) == 100
    assert [CIFAR100_CLASSES[label] for label in (0, 44, 99)] == ["apple", "lizard", "worm"]
    assert [list(CIFAR100_SUPERCLASSES)[label] for label in (0, 9, 13, 15, 19)] == [
        "aquatic_mammals",
        "large_man-made_outdoor_things",
        "non-insect_invertebrates",
        "reptiles",
        "vehicles_2",
    ]
    assert {len(names) for names in CIFAR100_SUPERCLASSES.values()} == {5}
    assert all(list(names) == sorted(names) for names in CIFAR100_SUPERCLASSES.values())
    assert not set(CIFAR100_CLASSES) & set(CIFAR100_SUPERCLASSES)
