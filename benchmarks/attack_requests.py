"""Requests that a server at 127.0.0.1 would rather not get, each of at most 16 MB."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

MOST = (16 << 20) - 4096  # bytes of a body, with room for what stands around it
JSON, FORM = "application/json", "multipart/form-data; boundary=b"
PATH = "/v1/predict"


def post(body: bytes, kind: str = FORM, *, path: str = PATH, headers: Sequence[str] = ()) -> bytes:
    """Write a request with a body."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "Connection: close", "", ""]).encode() + body


def form(*contents: bytes) -> bytes:
    """Write the body of a form with these files."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    return b"".join(head + content + b"\r\n" for content in contents) + b"--b--\r\n"


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def small_picture() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), "PNG")


def large_picture(side: int = 7900) -> bytes:
    """Write a PNG of one colour and as many pixels as a picture may have."""
    return png([(b"IHDR", struct.pack("!IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zeros(side * (3 * side + 1)))])


def png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    written = (
        struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written) + struct.pack("!I", 0) + b"IEND\xaeB`\x82"


def zeros(num: int) -> bytes:
    """Compress so many zeros, a part at a time."""
    packer = zlib.compressobj(9)
    return b"".join(
        [*(packer.compress(bytes(min(1 << 20, num - at))) for at in range(0, num, 1 << 20)), packer.flush()]
    )


def repeat(unit: bytes, *, size: int = MOST) -> bytes:
    return unit * (size // len(unit))


def bodies_in_json() -> Iterator[tuple[str, bytes]]:
    """Give JSON by kind."""
    around = b'{"pictures":[%s]}'
    yield "a list of numbers", around % repeat(b"0,")[:-1]
    yield "a list of lists", around % repeat(b"[],")[:-1]
    yield "a list of objects", around % repeat(b"{},")[:-1]
    yield "an object of many keys", b"{" + b",".join(b'"%d":0' % number for number in range(1_000_000)) + b"}"
    yield "deep", repeat(b"[")
    yield "deep objects", repeat(b'{"a":')
    yield "a huge whole number", b'{"pictures":%s}' % repeat(b"9")
    yield "a huge fraction", b'{"pictures":0.%s}' % repeat(b"9")
    yield "a huge exponent", b'{"pictures":1e%s}' % repeat(b"9")
    yield "a long name", around % (b'{"data":"","name":"%s"}' % repeat(b"n"))
    yield "a long key", around % (b'{"data":"","%s":0}' % repeat(b"k"))
    yield "escapes", around % (b'{"data":"%s"}' % repeat(b"\\u0041"))
    yield "no base64", around % (b'{"data":"%s"}' % repeat(b"?"))
    yield "base64 of zeros", around % (b'{"data":"%s"}' % repeat(b"A"))
    yield "not UTF-8", around % (b'{"data":"%s"}' % repeat(b"\xff"))
    yield "white space", repeat(b" ")
    yield "zero bytes", repeat(b"\0")
    yield "a lone surrogate", around % b'{"data":"","name":"\\ud800"}'


def bodies_of_forms() -> Iterator[tuple[str, bytes, str]]:
    """Give forms by kind, with their content type."""
    disposition = b'--b\r\nContent-Disposition: form-data; name="files"'
    yield "many parts", repeat(b"--b\r\n\r\n\r\n") + b"--b--\r\n", FORM
    yield "many files", form(*[b""] * 150_000), FORM
    yield "many fields", repeat(b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'), FORM
    yield "a part of many headers", b"--b\r\n" + repeat(b"a:b\r\n") + b"\r\n\r\n--b--\r\n", FORM
    yield "a header without end", disposition + repeat(b";a=b"), FORM
    yield "quotes without end", disposition + repeat(b';"') + b"\r\n\r\n\r\n--b--\r\n", FORM
    yield "nearly boundaries", repeat(b"\r\n--") + b"--b--\r\n", FORM
    yield "boundaries that repeat", repeat(b"\r\n--" + b"b" * 69), "multipart/form-data; boundary=" + "b" * 70
    yield "carriage returns", form(repeat(b"\r")), FORM
    yield "no end", disposition + b'; filename="a"\r\n\r\n' + repeat(b"x"), FORM
    yield "punycode", form(repeat(b"a-0a")), FORM + "; charset=punycode"
    yield (
        "a name in punycode",
        b"--b\r\nContent-Disposition: form-data; name=files; filename*=punycode''"
        + repeat(b"a-", size=3900)
        + b"\r\n\r\nx\r\n--b--\r\n",
        FORM,
    )
    yield (
        "a lone surrogate",
        b"--b\r\nContent-Disposition: form-data; name=files; filename*=unicode_escape''%5cud800\r\n\r\nx\r\n--b--\r\n",
        FORM,
    )
    yield "no boundary", repeat(b"x"), "multipart/form-data"
    yield "a long boundary", repeat(b"x"), "multipart/form-data; boundary=" + "b" * 5000
    yield "many parameters", form(b"x"), "multipart/form-data" + "; a=b" * 10_000


def pictures() -> Iterator[tuple[str, Sequence[bytes]]]:
    """Give the files of a request by kind."""
    large = large_picture()
    yield "64 large PNG", [large] * min(64, MOST // (len(large) + 100))
    yield "one large PNG", [large]
    wide = Image.new("RGBA", (7900, 7900))
    yield "64 large WebP", [encode(wide, "WEBP", lossless=True, method=0)] * 64
    del wide
    plain = Image.new("RGB", (5000, 5000))
    yield "4 progressive JPEG", [encode(plain, "JPEG", progressive=True, subsampling=0)] * 4
    yield "8 JPEG 2000", [encode(plain, "JPEG2000")] * 8
    yield "8 TIFF", [encode(plain, "TIFF", compression="tiff_adobe_deflate")] * 8
    yield "64 middling PNG", [large_picture(side=1400)] * 64
    head = (b"IHDR", struct.pack("!IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    yield "a PNG of many chunks", [png([head, *[(b"teXt", b"")] * 1_000_000, (b"IDAT", zeros(8 * 25))])]
    text = (b"zTXt", b"a\0\0" + zeros(200_000_000))
    yield "a PNG of compressed texts", [png([head, *[text] * 40, (b"IDAT", zeros(8 * 25))])]
    yield "a PNG that promises more", [png([(b"IHDR", struct.pack("!IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))])]
    yield "a JPEG of many scans", [many_scans()]
    yield (
        "a TIFF that points to itself",
        [
            b"II*\0"
            + struct.pack("<I", 8)
            + struct.pack("<H", 1)
            + struct.pack("<HHII", 330, 4, 1, 8)
            + struct.pack("<I", 8)
        ],
    )
    yield "noise", [np.random.default_rng(0).bytes(MOST // 2)]
    yield "zero bytes", [bytes(MOST // 2)]


def many_scans() -> bytes:
    """Repeat the last scan of a progressive JPEG until the file is as long as a request may be."""
    whole = encode(Image.new("L", (1400, 1400), 77), "JPEG", progressive=True)
    at = whole.rindex(b"\xff\xda")
    scan = whole[at:-2]
    return whole[:at] + scan * ((MOST - len(whole)) // len(scan)) + whole[-2:]


def questions() -> Iterator[tuple[str, str]]:
    """Give queries by kind, to ask with 64 small pictures."""
    yield "evidence for all", "?heat=true&top=10"
    yield "evidence for more", "?heat=true&top=1000000000"
    yield "many neighbours", "?nearest=50"
    yield "a huge number", "?top=" + "9" * 5000
    yield "many parameters", "?" + "&".join(["top=5"] * 5000)


def heads() -> Iterator[tuple[str, bytes]]:
    """Give requests by kind that are wrong before their body, or around its parts."""
    start = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n".encode()
    chunked = start + b"Transfer-Encoding: chunked\r\n\r\n"
    yield "many headers", start + repeat(b"a: b\r\n")
    yield "a long header", start + b"a: " + repeat(b"b")
    yield "a long path", b"GET /" + repeat(b"a")
    yield "chunks of a byte", chunked + repeat(b"1\r\na\r\n") + b"0\r\n\r\n"
    yield "a chunk's extension without end", chunked + b"1;" + repeat(b"a")
    yield "a trailer without end", chunked + b"1\r\na\r\n0\r\n" + repeat(b"a: b\r\n")
    yield "two lengths", start + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"
    yield "a negative length", start + b"Content-Length: -1\r\n\r\n"
    yield "a length beyond all", start + b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n"
    yield "many requests at once", repeat(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", size=1 << 20)
    yield "no HTTP", repeat(b"\x16\x03\x01")


def foreign() -> Iterator[tuple[str, Sequence[str]]]:
    """Give what browsers say of a form on another site's page."""
    yield "of another site", ("Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
    yield "of another port", ("Origin: http://localhost:9", "Sec-Fetch-Site: same-site")
    yield "of an old browser", ("Origin: https://evil.example",)
    yield "of a file", ("Origin: null",)


def json_of(*contents: bytes) -> bytes:
    return json.dumps({"pictures": [{"data": base64.b64encode(content).decode()} for content in contents]}).encode()
