"""Mutations of bytes and of JSON: what a broken disk, a cut connection or an enemy makes of a file."""

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (0, 1, -1, 7, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**18)
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "é\udcff", "0" * 5000, [], {}, [[]], {"kind": "resnet"}, {"": 0}),
    *(0.5, -0.5, 1e308, float("inf"), float("nan"), 10**30, 10**4000),
    *NUMBERS,
)


def mutate(content: bytes, chance: random.Random, *, others: Sequence[bytes]) -> bytes:
    """Change a file in one to four places, with pieces of `others` among what is put there."""
    if content[:1] in (b"{", b"[") and chance.random() < 0.5:
        content = mutate_json(content, chance)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        content = chance.choice(WAYS)(content, chance) if chance.random() < 0.9 else splice(content, chance, others)
    return content


def splice(content: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Go on with another file."""
    other = chance.choice(others)
    return content[: _place(content, chance)] + other[_place(other, chance) :]


def flip_bit(content: bytes, chance: random.Random) -> bytes:
    place = _place(content, chance)
    return _put(content, place, bytes([content[place] ^ (1 << chance.randrange(8))])) if content else b""


def put_byte(content: bytes, chance: random.Random) -> bytes:
    return _put(content, _place(content, chance), bytes([chance.choice((0, 1, 9, 10, 32, 48, 127, 128, 254, 255))]))


def put_number(content: bytes, chance: random.Random) -> bytes:
    size = chance.choice((2, 4, 8))
    number = chance.choice(NUMBERS) % 256**size
    return _put(content, _place(content, chance), number.to_bytes(size, chance.choice(("little", "big"))))


def put_digits(content: bytes, chance: random.Random) -> bytes:
    """Replace a number that is written in digits."""
    places = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return put_byte(content, chance)
    begin = end = chance.choice(places)
    while end < len(content) and 48 <= content[end] <= 57:
        end += 1
    return content[:begin] + str(chance.choice(NUMBERS)).encode() + content[end:]


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: _place(content, chance)]


def drop(content: bytes, chance: random.Random) -> bytes:
    begin = _place(content, chance)
    return content[:begin] + content[begin + chance.randrange(1, 64) :]


def double(content: bytes, chance: random.Random) -> bytes:
    begin = _place(content, chance)
    piece = content[begin : begin + chance.randrange(1, 256)]
    return content[:begin] + piece * chance.choice((2, 3, 50)) + content[begin + len(piece) :]


def swap(content: bytes, chance: random.Random) -> bytes:
    first, second = sorted((_place(content, chance), _place(content, chance)))
    return content[second:] + content[first:second] + content[:first]


def insert(content: bytes, chance: random.Random) -> bytes:
    begin = _place(content, chance)
    return content[:begin] + chance.randbytes(chance.randrange(1, 16)) + content[begin:]


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip_bit, flip_bit, put_byte, put_number, put_digits, put_digits, cut, drop, double, swap, insert),
)


def mutate_json(content: bytes, chance: random.Random) -> bytes:
    """Replace, drop or add a value somewhere in JSON; what is no JSON stays as it is."""
    try:
        parsed = [json.loads(content)]
    except ValueError:
        return content
    for _ in range(chance.choice((1, 1, 2))):
        places = list(_walk(parsed))
        holder, key = chance.choice(places)
        if isinstance(holder, dict) and chance.random() < 0.2:
            holder.pop(key)
        elif isinstance(holder, dict) and chance.random() < 0.2:
            holder[chance.choice(("kind", "schema_version", "x", ""))] = copy.deepcopy(chance.choice(VALUES))
        else:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
    return json.dumps(parsed[0]).encode()


def _walk(value: Any) -> list[tuple[Any, Any]]:
    places: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            places += [(value, key), *_walk(value[key])]
    return places


def _place(content: bytes, chance: random.Random) -> int:
    """Choose a place, half of the time among the first hundred, where headers are."""
    return chance.randrange(min(100, len(content)) if chance.random() < 0.5 else len(content)) if content else 0


def _put(content: bytes, place: int, piece: bytes) -> bytes:
    return content[:place] + piece + content[place + len(piece) :]
