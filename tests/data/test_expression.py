import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from reslab.data.expression import (
    LocatedTerm,
    NamedTerm,
    find_relative,
    find_remote,
    join_expressions,
    leave_out,
    leave_out_empty,
    move_relative,
    name_classes,
    parse,
    restore_limits,
)
from reslab.data.sources.catalog import CIFAR10_CLASSES, CIFAR100_CLASSES, CIFAR100_SUPERCLASSES
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
        ("cifar10:dog@0", [NamedTerm("cifar10", ("dog",), 0)]),
        ("folder:a b/c", [LocatedTerm("folder", Path("a b/c"), None)]),
        ("folder:/a@3", [LocatedTerm("folder", Path("/a"), 3)]),
        ("folder:/a@3/", [LocatedTerm("folder", Path("/a@3"), None)]),
        ("npz:C:/x.npz", [LocatedTerm("npz", Path("C:/x.npz"), None)]),
        ("folder:a+b", [LocatedTerm("folder", Path("a+b"), None)]),
        ("npz:c++/x.npz", [LocatedTerm("npz", Path("c++/x.npz"), None)]),
        ("folder:a+digits :1", [LocatedTerm("folder", Path("a"), None), NamedTerm("digits", ("1",), None)]),
        ("folder:a@2 + digits @ 3", [LocatedTerm("folder", Path("a"), 2), NamedTerm("digits", tuple("0123456789"), 3)]),
        ("folder : a+b", [LocatedTerm("folder", Path("a+b"), None)]),
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


def test_a_folder_of_a_similar_name_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^'picturs' is not a data source; did you mean folder:pictures\?$"):
        parse("picturs")
    with pytest.raises(UserError, match="did you mean 'digits'"):
        parse("digit:1,4")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("cifa10", "'cifa10' is not a data source; did you mean 'cifar10'?"),
        ("CIFAR100", "did you mean 'cifar100'?"),
        (
            "imagenet",
            "write folder:PATH for a folder of pictures, or take one of cifar10, cifar100, cifar100-coarse, digits",
        ),
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
        ("cifar10+", "lacks a source"),
        ("", "lacks a source"),
        ("folder:", "lacks a path: write folder:PATH"),
        ("folder:a?grup=time:5", "'grup' in folder:a?grup=time:5 is not an option: did you mean 'group'?"),
        ("npz", "lacks a path: write npz:PATH"),
        ("cifar10:cat,cat", "'cat' is in 'cifar10:cat,cat' twice"),
        ("cifar10+cifar10", "'airplane' is in 'cifar10.cifar10' twice"),
        ("cifar100:reptiles,lizard", "'lizard' is in .* twice"),
        ("digits:0-3+digits:3-5", "the class '3' is in .* twice: take it once"),
        (
            "folder:a:7,8@20?group=time:5",
            "@20 belongs at the end, after the options: write folder:a:7,8?group=time:5@20",
        ),
        (
            "folder:a/b+npz:a/b+folder:a//b@3",
            "^'folder:a/b' is in 'folder:a/b.npz:a/b.folder:a//b@3' twice: take it once",
        ),
    ],
)
def test_a_wrong_expression_is_refused_with_the_right_name(expression: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        parse(expression)


# ---- two expressions as one


def test_a_folder_may_be_called_like_a_misspelled_option(tmp_path: Path) -> None:
    (tmp_path / "a?grup=b").mkdir()
    (term,) = parse(f"folder:{tmp_path}/a?grup=b:cat,dog?group=parent")
    assert isinstance(term, LocatedTerm)
    assert (term.path, term.classes, term.options.group) == (tmp_path / "a?grup=b", ("cat", "dog"), "parent")


@pytest.mark.parametrize(
    ("old", "new", "old_limit", "expected"),
    [
        ("cifar10+digits@5", "cifar100:reptiles", 20, "cifar10@20+digits@5+cifar100:reptiles"),
        ("cifar10", "cifar100:reptiles", None, "cifar10+cifar100:reptiles"),
        ("cifar10@7", "cifar100:lizard@3", 20, "cifar10@7+cifar100:lizard@3"),
        ("cifar10@7", "cifar100:lizard@30", 0, "cifar10@0+cifar100:lizard@30"),
        ("cifar10@0+cifar100:lizard", "cifar100:snake", 20, "cifar10@0+cifar100:lizard@20+cifar100:snake"),
        ("cifar10 : cat , dog @ 9 ", " digits ", 2, "cifar10 : cat , dog@2+digits"),
        ("folder:a+b", "npz:c+d.npz", 4, "folder:a+b@4+npz:c+d.npz"),
        ("folder:/a@5/", "digits", None, "folder:/a@5/+digits"),
        ("folder:/a@5/", "digits", 9, "folder:/a@5/@9+digits"),
        ("folder:/a@5@6", "digits", 2, "folder:/a@5@2+digits"),
    ],
)
def test_join_puts_a_limit_on_the_old_part(old: str, new: str, old_limit: int | None, expected: str) -> None:
    assert join_expressions(old, new, old_limit=old_limit) == expected


OLD = [
    "cifar10:dog",
    " digits : 0-6 @ 3",
    "folder:~/a",
    "folder:a+b@3",
    "folder:a@5/",
    "folder:a@5/@6",
    "folder:a@5@6",
    "folder:a@",
    "folder:c++",
    "folder:c+@5",
    "folder:a + b",
    "npz:a+folder.npz@0",
    "folder:a+npzs:x@2+cifar10:cat",
]
NEW = ["cifar100:reptiles", "cifar100 :wolf @ 2", "folder:n+m@5/", "npz:d+@0", "npz: x+digit +digits:9@1"]


@pytest.mark.parametrize("num", [None, 0, 1, 5, 100])
def test_a_join_means_the_terms_of_both(num: int | None) -> None:
    def lowered(term: NamedTerm | LocatedTerm) -> NamedTerm | LocatedTerm:
        return replace(term, limit=min((limit for limit in (term.limit, num) if limit is not None), default=None))

    for old, new in itertools.product(OLD, NEW):
        joined = join_expressions(old, new, old_limit=num)
        assert parse(joined) == (*map(lowered, parse(old)), *parse(new)), joined
    for first, second in itertools.permutations(OLD[:5], 2):  # extended twice
        joined = join_expressions(join_expressions(first, "cifar100:bee", old_limit=num), second, old_limit=3)
        before = (*map(lowered, parse(first)), *parse("cifar100:bee"))
        at_most_3 = [replace(term, limit=3 if term.limit is None else min(3, term.limit)) for term in before]
        assert parse(joined) == (*at_most_3, *parse(second)), joined


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("folder:a", "b", "'b' is not a data source"),  # not the path a+b
        ("folder:a", "", "lacks a source"),
        ("digits:0-6", "digits:6-9", "the class '6' is in 'digits:0-6@4.digits:6-9' twice"),
        ("folder:a", "folder:a", "'folder:a' is in 'folder:a@4.folder:a' twice"),
    ],
)
def test_a_join_that_cannot_be_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        join_expressions(old, new, old_limit=4)


@pytest.mark.parametrize(
    ("joined", "lowered", "before", "whole"),
    [
        ("cifar10@0+cifar100:bee@0+folder:new", 0, "cifar10", "cifar10+cifar100:bee+folder:new"),
        ("digits:0-6@20+folder:a@5+folder:new", 20, "digits:0-6@50", "digits:0-6@50+folder:a@5+folder:new"),
        ("folder:a@0+digits", 0, "folder:a@5", "folder:a@5+digits"),
        ("folder:a@20+digits@20+folder:new@20", 20, "folder:a", "folder:a+digits+folder:new@20"),  # as written
        ("folder:a@20+digits+folder:new", None, "folder:a", "folder:a+digits+folder:new"),  # lowered by the base
    ],
)
def test_limits_that_were_lowered_are_restored(joined: str, lowered: int | None, before: str, whole: str) -> None:
    num_old = len(parse(joined)) - 1
    assert restore_limits(joined, before=before, lowered=lowered, num_old=num_old) == whole


@pytest.mark.parametrize(
    ("expression", "moved"),
    [
        ("folder:pets:-a,b?label=^(x)@5 + digits", "folder:../pets:-a,b?label=^(x)@5+digits"),
        ("csv:t/a.csv?file=x&label=y+npz:/abs/a.npz@3", "csv:../t/a.csv?file=x&label=y+npz:/abs/a.npz@3"),
        ("shards:packed@3+folder:a+b:c", "shards:../packed@3+folder:../a+b:c"),
        ("folder:pics@5/+folder:a:b/", "folder:../pics@5/+folder:../a:b/"),
        ("shards:s3://bucket/packed+cifar10:cat,dog", "shards:s3://bucket/packed+cifar10:cat,dog"),
    ],
)
def test_relative_paths_are_moved_and_nothing_else(expression: str, moved: str) -> None:
    assert move_relative(expression, lambda path: Path("..") / path) == moved
    assert len(find_relative(expression)) == moved.count("../")


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


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("folder:pets", "folder:pets:cat,dog,7"),
        ("folder:pets:-bird?group=parent@5", "folder:pets:cat,dog,7?group=parent@5"),
        ("digits:7+folder:a+b@0", "digits:7+folder:a+b:cat,dog@0"),
        ("csv:t.csv?label=x", "csv:t.csv:cat,dog,7?label=x"),
        ("digits:7", "digits:7"),  # known as they are
        ("folder:pets:cat,dog", "folder:pets:cat,dog"),
        ("folder:a+folder:b", "folder:a+folder:b"),  # which has which?
        ("shards:x", "shards:x"),
    ],
)
def test_classes_are_written_out_where_that_leaves_no_doubt(expression: str, expected: str) -> None:
    assert name_classes(expression, ("cat", "dog", "7")) == expected
    parse(expected)


def test_classes_that_an_expression_cannot_name_are_left_to_be_read() -> None:
    assert name_classes("folder:pets", ("cat", "dog,big")) == "folder:pets"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("folder:gone:cat,dog@0+folder:new", "folder:new"),
        ("folder:here@20+digits:1@0", "folder:here@20"),
        ("folder:here", "folder:here"),
        ("digits@0", "digits@0"),
    ],
)
def test_sources_of_which_no_image_is_taken_are_left_out(expression: str, expected: str) -> None:
    assert leave_out_empty(expression) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("folder:pets", "folder:pets:-cat"),
        ("folder:pets:-dog", "folder:pets:-dog,-cat"),
        ("folder:pets:dog,cat,owl", "folder:pets:dog,owl"),
        ("folder:pets?group=parent@20", "folder:pets:-cat?group=parent@20"),
        ("folder:pets+digits", None),
        ("digits", None),
    ],
)
def test_classes_are_left_out_of_a_single_source(expression: str, expected: str | None) -> None:
    assert leave_out(expression, ["cat"]) == expected


def test_classes_that_an_expression_cannot_name_are_not_left_out() -> None:
    assert leave_out("folder:pets", ["cat,big"]) is None


def test_the_folder_of_a_table_can_be_on_another_machine_too() -> None:
    assert find_remote("csv:t.csv?folder=//server/share+folder:a") == ["//server/share"]
