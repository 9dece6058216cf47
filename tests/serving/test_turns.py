import pytest

from reslab.serving.turns import Turns


def take_all(turns):
    return [turns.take() for _ in range(len(turns))]


def test_owners_take_turns_and_each_keeps_its_order():
    turns = Turns()
    turns.add("a", [1, 2, 3, 4])
    turns.add("b", [10])
    turns.add("c", [100, 101])
    turns.add("b", [11])
    assert (len(turns), turns.peek()) == (8, 1)
    assert take_all(turns) == [1, 10, 100, 2, 11, 101, 3, 4]
    with pytest.raises(KeyError):
        turns.take()


def test_what_is_dropped_waits_no_more():
    turns = Turns()
    turns.add("a", [1, 2])
    turns.add("b", [10])
    assert turns.drop("a") == [1, 2]
    assert turns.drop("a") == []
    assert take_all(turns) == [10]
    turns.add("b", [])
    assert not turns
