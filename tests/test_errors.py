import pytest

from reslab.errors import did_you_mean


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sign11", "did you mean 'sign1'?"), ("sign7", "it knows four"), ("house", "it knows four")],
)
def test_the_closest_name_is_suggested_but_not_one_of_several_that_are_as_close(name: str, expected: str) -> None:
    assert did_you_mean(name, ["sign0", "sign1", "sign2", "sign3"], otherwise="it knows four") == expected
