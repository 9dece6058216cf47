"""Parse a request's body into files' names and bytes. The cost depends on its size alone, whatever it holds."""

import re
from email import message_from_string

from pydantic import ValidationError

from reslab.errors import UserError
from reslab.serving.decoding import Uploaded
from reslab.serving.schema import MAX_NAME, MAX_PICTURES, Uploads

FIELD = "files"  # of a form; others are ignored
MAX_PARTS = 2 * MAX_PICTURES
MAX_HEAD = 4096  # bytes before a part's content
# Every value in JSON but the first follows one of these: 3 around all pictures, 5 in each, and some in its name.
SEPARATORS = b"[{:,"
MAX_SEPARATORS = 3 + MAX_PICTURES * (5 + MAX_NAME)
_BOUNDARY = re.compile(r';\s*boundary="?([^";]{1,70})"?\s*(?:;|$)', re.IGNORECASE)


def read_uploads(body: bytes, *, content_type: str) -> list[Uploaded]:
    """Read the files in a form, or in JSON with base64. Raises: UserError if that is not possible."""
    match content_type.partition(";")[0].strip().lower():
        case "application/json":
            uploads = _read_json(body)
        case "multipart/form-data":
            uploads = _read_form(body, content_type=content_type)
        case kind:
            raise UserError(
                f"Send pictures as multipart/form-data or as application/json, not as {kind[:100] or 'nothing'}"
            )
    if not 1 <= len(uploads) <= MAX_PICTURES:
        raise UserError(f"Send 1 to {MAX_PICTURES} pictures in the form field {FIELD!r}, not {len(uploads)}")
    for name, _ in uploads:
        if len(name) > MAX_NAME:
            raise UserError(f"A file's name has {len(name):,} characters: at most {MAX_NAME} are allowed")
    return uploads


def _read_json(body: bytes) -> list[Uploaded]:
    # A parser takes hundreds of bytes per value: a list of millions would fill the memory before it is refused.
    if sum(map(body.count, SEPARATORS)) > MAX_SEPARATORS:
        raise UserError(f"The request holds more values than {MAX_PICTURES} pictures need: send fewer at once")
    try:
        found = Uploads.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:100] or "the body"
        raise UserError(f"The request is invalid, {where}: {first['msg']}") from None
    return [(upload.name or "picture", upload.data) for upload in found.pictures]


def _read_form(body: bytes, *, content_type: str) -> list[Uploaded]:
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise UserError("The form's Content-Type names no boundary of 1 to 70 characters: let your client write it")
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode(), MAX_PARTS + 2)
    if len(parts) > MAX_PARTS + 1:
        raise UserError(f"The form has more than {MAX_PARTS} parts: send at most {MAX_PICTURES} pictures at once")
    if not parts or not parts.pop().startswith(b"--"):
        raise UserError("The form does not end with its boundary: send it whole")
    return [upload for part in parts if (upload := _read_part(part)) is not None]


def _read_part(part: bytes) -> Uploaded | None:
    """Read the name and the bytes of a file; None if the part is another field."""
    end = part.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0:
        raise UserError(f"The head of a part of the form does not end within {MAX_HEAD:,} bytes")
    head = message_from_string(part[:end].decode(errors="replace").lstrip())
    try:
        name = head.get_filename()
    except (ValueError, LookupError):
        raise UserError("A part of the form has a file name in no encoding that is known") from None
    if name is None or head.get_param("name", header="content-disposition") != FIELD:
        return None
    return name.encode(errors="replace").decode() or "picture", part[end + 4 :]
