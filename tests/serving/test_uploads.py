import base64
import json
import re
import time

import pytest

from reslab.errors import UserError
from reslab.serving.schema import MAX_NAME, MAX_PICTURES
from reslab.serving.uploads import read_uploads

JSON, FORM = "application/json", "multipart/form-data; boundary=b"


def form(*parts):
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def part(disposition, content=b"x", *, more=b""):
    return b"Content-Disposition: form-data; " + disposition + more + b"\r\n\r\n" + content


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b'name="files"; filename="a b.png"', "a b.png"),
        (b"name=files; filename=a.png", "a.png"),
        (b'name="files"; filename="\xd0\xba\xd0\xbe\xd1\x82.png"', "кот.png"),
        (b"name=files; filename=cat.png; filename*=utf-8''%D0%BA%D0%BE%D1%82.png", "cat.png"),
        (b"name=files; filename*=utf-8''%D0%BA%D0%BE%D1%82.png", "кот.png"),
        (b'name="files"; filename="say \\"a\\".png"', 'say "a".png'),
        (b'name="files"; filename="a;b=c.png"', "a;b=c.png"),
        (b'name="files"; filename=""', "picture"),
        (b"name=files; filename*=unicode_escape''%5cud800", "?"),
        (b"name=files; filename*=nonsense''a%FF", "a\xff"),
    ],
)
def test_files_of_a_form_keep_their_names_and_bytes(disposition, name):
    content = b"-b\r\n\r\n\0--c\r\n--"
    ((found, read),) = read_uploads(
        form(part(disposition, content, more=b"\r\nContent-Type: image/png")), content_type=FORM
    )
    assert (found, read) == (name, content)


def test_other_fields_are_passed_over():
    body = b"a preamble\r\n" + form(
        part(b"name=token", b"secret"), part(b"name=files; filename=a"), part(b"name=files")
    )
    assert read_uploads(body, content_type='Multipart/Form-Data; charset=utf-8; boundary="b"') == [("a", b"x")]


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        (b'{"pictures":[' + b",".join([b"0"] * 100_000) + b"]}", JSON, "holds more values than 64 pictures need"),
        (b'{"pictures":[' + b",".join([b"[]"] * 100_000) + b"]}", JSON, "holds more values"),
        (b'{"a":' * 100_000, JSON, "holds more values"),
        (b"[" * 1000, JSON, "recursion limit"),
        (b'{"pictures":' + b"9" * 1_000_000 + b"}", JSON, "number out of range"),
        (b'{"pictures":[{"data":"","' + b"k" * 1_000_000 + b'":0}]}', JSON, "is invalid, pictures.0.kkk"),
        (b'{"pictures":[0,0]}', JSON, "pictures.0: Input should be an object"),
        (json.dumps({"pictures": [{"data": ""}] * (MAX_PICTURES + 1)}).encode(), JSON, "at most 64 items"),
        (json.dumps({"pictures": [{"data": "", "name": "n" * 256}]}).encode(), JSON, "at most 255 are allowed"),
        (form(part(b"name=files; filename=" + b"n" * 256)), FORM, "at most 255 are allowed"),
        (form(*[part(b"name=x")] * 200), FORM, "more than 128 parts"),
        (
            form(*[part(b"name=files; filename=a")] * 65),
            FORM,
            "Send 1 to 64 pictures in the form field 'files', not 65",
        ),
        (form(part(b"name=files; filename*=undefined''x")), FORM, "a file name in no encoding that is known"),
        (form(part(b"name=files; filename*=punycode''%ff")), FORM, "a file name in no encoding that is known"),
        (form(part(b"name=files; filename*=a%00b''x")), FORM, "a file name in no encoding that is known"),
        (form(part(b"name=files", more=b"; a=b" * 1000)), FORM, "does not end within 4,096 bytes"),
        (form(part(b"name=files; filename=a"))[:-4], FORM, "does not end with its boundary"),
        (b"\r\n--" * 100_000, FORM, "does not end with its boundary"),
        (b"", FORM, "does not end with its boundary"),
        (form(), FORM, "not 0"),
        (form(), "multipart/form-data", "names no boundary"),
        (form(), "multipart/form-data; boundary=" + "b" * 71, "names no boundary"),
        (b"x", "text/" + "x" * 1000, "not as text/"),
    ],
)
def test_what_is_wrong_is_said_shortly_and_at_once(body, kind, sentence):
    began = time.process_time()
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        read_uploads(body, content_type=kind)
    assert len(str(caught.value)) < 300
    assert time.process_time() - began < 1


def test_a_full_request_is_not_too_many_values():
    name = "," * MAX_NAME
    picture = {"data": base64.b64encode(b"x").decode(), "name": name}
    body = json.dumps({"pictures": [picture] * MAX_PICTURES}).encode()
    assert read_uploads(body, content_type=JSON) == [(name, b"x")] * MAX_PICTURES


def test_no_charset_of_the_clients_is_decoded_by():
    """Punycode would take minutes for a megabyte."""
    body = form(part(b"name=note", b"a-0a" * 250_000), part(b"name=files; filename=a"))
    began = time.process_time()
    assert read_uploads(body, content_type=FORM + "; charset=punycode") == [("a", b"x")]
    assert time.process_time() - began < 1
