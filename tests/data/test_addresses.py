"""Which addresses are opened at all, and which of them leave the machine."""

from pathlib import Path

import pytest

from reslab.data.addresses import check_address, is_remote, open_address
from reslab.data.load import load
from reslab.data.packing import pack
from reslab.errors import UserError
from reslab.study.storage import Storage

ALLOWED = [
    "packed",
    "./a:b/packed",
    "/data/packed",
    "C:/data/packed",
    "file:///data/packed",
    "memory://packed",
    "s3://bucket/packed",
    "gs://bucket/packed",
    "az://container/packed",
    "https://example.com/packed",
]


@pytest.mark.parametrize("url", ALLOWED)
def test_what_is_allowed_is_no_error(url: str) -> None:
    check_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "reference::template.json",
        "reference://template.json",
        "pipe:cat /etc/passwd",
        "pipe://cat",
        "data:text/plain,hello",
        "github://owner:repo@main/packed",
        "git://folder",
        "dask://host",
        "jupyter://host:8888/packed",
        "libarchive://a.tar",
        "asynclocal:///data",
        "HTTP://example.com/packed",
        "s3:bucket/packed",
    ],
)
def test_another_protocol_is_refused_by_its_name(url: str) -> None:
    scheme = url.partition(":")[0]
    with pytest.raises(UserError, match=rf"reslab does not open {scheme}: addresses; write a path, or one of file://"):
        open_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.json::reference://",
        "file:///a.zip::zip://inner",
        "packed/x::reference://template.json",
        "file://zip://inner::file:///a.zip",
        "./packed/reference://template.json",
    ],
)
def test_a_chain_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="is a chain of addresses"):
        open_address(url)


def test_a_template_runs_no_command(tmp_path: Path) -> None:
    """fsspec's templates were Jinja's, without a sandbox: a file that was only to be read ran what it said."""
    command = "{{ cycler.__init__.__globals__.os.system('touch " + str(tmp_path / "harmed") + "') }}"
    (tmp_path / "t.json").write_text('{"version": 1, "templates": {}, "gen": [{"key": "' + command + '", "url": "x"}]}')
    for url in (f"reference::{tmp_path}/t.json", f"reference://{tmp_path}/t.json"):
        with pytest.raises(UserError, match="reslab does not open reference: addresses"):
            open_address(url)
    assert not (tmp_path / "harmed").exists()


def test_who_is_asked_is_known_before() -> None:
    remote = ["s3://b/x", "https://h/x", "ssh://h/x", "//server/share", r"\\server\share", "file://server/share"]
    remote += ["file:////server/share", "local:////server/share", "local://server/share"]
    assert [is_remote(url) for url in remote] == [True] * len(remote)
    assert [is_remote(url) for url in ("x", "/x", "C:/x", "file:///x", "memory://x", "./s3://x", "folder//x")] == [
        False
    ] * 7


def test_every_door_has_the_list() -> None:
    for door in (
        lambda: load("shards:reference://t.json", "train"),
        lambda: pack("digits", "reference://t.json"),
        lambda: Storage("reference://t.json"),
    ):
        with pytest.raises(UserError, match="reslab does not open reference: addresses"):
            door()
