"""What strangers may send: photos that are none, bombs, names that are paths, no HTTP at all."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from load import as_form
from PIL import Image

# Method, path, and what else httpx is to send.
Request = tuple[str, str, dict[str, Any]]
PATHS = ("/predict", "/predict", "/predict/many", "/predict/many", "/look")
JSON = {"Content-Type": "application/json"}

NAMES = [
    "/etc/passwd", "../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/x.png", "\\\\x\\y",
    "C:\\x.png", "|id", "$(id)", "a\0b.png", "a" * 5000, "\u202egnp.exe", "<script>1</script>.png",
    "\ud800", "=cmd|' /C calc'!A0", "%2e%2e%2fpasswd", "con.png", "", " ", "\r\nX-Header: 1",
]  # fmt: skip
KINDS = [
    "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x",
    "multipart/form-data; boundary=" + "y" * 300, "image/svg+xml", ";", 'a/b; charset="',
    "application/json; charset=utf-7", "image/jpeg; name=/etc/passwd",
]  # fmt: skip
DEEP = [
    b"[" * 10**5, b'{"image":' * 10**4, b'{"images":[' + b'"",' * 10**5 + b'""]}',
    b'{"image":' + b"9" * 10**5 + b"}", b'{"image":"\\ud800"}', b"\xff\xfe{}", b"null", b'""',
    b'{"image":null}', b'{"images":{}}',
]  # fmt: skip
QUERIES = [
    "top_k=0", "top_k=-1", "top_k=1e9", "top_k=1&top_k=x", "label=" + "z" * 4000, "label=%00",
    "label=../../x", "top_k=" + "9" * 400, "image=/etc/passwd",
]  # fmt: skip
ADDRESSES = [
    "/%2e%2e/%2e%2e/etc/passwd", "/static/../../x", "//etc/passwd", "/predict/", "/predict/many/x",
    "/docs", "/%ff%fe", "/" + "a" * 9000,
]  # fmt: skip
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "HEAD", "BREW"]

RAW = [
    b"", b"\0" * 100, b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\nx",
    b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nhello",
    b"POST /predict HTTP/1.1\r\nContent-Length: 50\r\n\r\nshort",
    b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n",
    b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhello\r\n",
    b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"
    b"3\r\nabc\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(5000)) + b"\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST http://127.0.0.1:9/predict HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]  # fmt: skip


def picture(width: int, height: int, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    sum_ = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", sum_)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose comment grows to 100 MB."""
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    comment = chunk(b"zTXt", b"x\0\0" + zlib.compress(b"a" * 100_000_000, 9))
    data = chunk(b"IDAT", zlib.compress(b"\0" * 8 * 25))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + comment + data + chunk(b"IEND", b"")


def many_frames() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), (i % 256, i // 2, 9)) for i in range(500)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def forms_of(photo: bytes) -> list[bytes]:
    """A photo in other formats, whose decoders are met by what is changed."""
    with Image.open(io.BytesIO(photo)) as image:
        rgb, found = image.convert("RGB").resize((96, 96)), [photo]
    for kind in (
        "PNG",
        "GIF",
        "WEBP",
        "BMP",
        "TIFF",
        "PPM",
        "ICO",
        "TGA",
        "JPEG2000",
        "PCX",
        "SGI",
    ):
        file = io.BytesIO()
        rgb.save(file, kind)
        found.append(file.getvalue())
    return found


def changed(photo: bytes, other: bytes, rng: random.Random) -> bytes:
    """`photo` with bytes changed, cut, doubled, or its end taken from `other`."""
    content = bytearray(photo)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        at = (
            rng.randrange(len(content))
            if rng.random() < 0.5
            else rng.randrange(min(600, len(content)))
        )
        content[at] = rng.choice((0, 255, rng.randrange(256)))
    kind = rng.random()
    if kind < 0.2:
        del content[rng.randrange(len(content)) :]
    elif kind < 0.3:
        at = rng.randrange(min(len(photo), len(other)))
        content[at:] = other[at:]
    elif kind < 0.4:
        at = rng.randrange(len(content))
        content[at:at] = content[max(0, at - 200) : at]
    return bytes(content)


def fuzzed(photos: Sequence[bytes], rng: random.Random) -> Iterator[Request]:
    """Changed photos, without an end."""
    pool = [form for photo in photos for form in forms_of(photo)]
    while True:
        content, path = changed(rng.choice(pool), rng.choice(pool), rng), rng.choice(PATHS)
        if path == "/predict/many":
            files = [("images", ("a.png", content, "image/png"))] * rng.choice((1, 3))
            yield "POST", path, {"files": files}
        else:
            yield "POST", path, {"content": content}


def by_hand(photo: bytes, rng: random.Random) -> Iterator[Request]:
    """One of each way in turns, without an end."""
    text, bombs = base64.b64encode(photo).decode(), made_bombs()
    while True:
        path, name = rng.choice(PATHS), rng.choice(NAMES)
        field = "images" if path == "/predict/many" else "image"
        yield "POST", path, {"files": [(field, ("b.png", rng.choice(bombs)))]}
        yield "POST", path, {"content": rng.choice(DEEP), "headers": JSON}
        content = rng.choice((photo, as_form(photo), b"--x\r\n", b""))
        yield "POST", path, {"content": content, "headers": {"Content-Type": rng.choice(KINDS)}}
        body = json.dumps({rng.choice(("image", "path", "url")): name})
        yield "POST", path, {"content": body, "headers": JSON}
        yield "POST", path, form_named(name, field, photo)
        yield "POST", f"{path}?{rng.choice(QUERIES)}", {"content": photo}
        yield rng.choice(METHODS), rng.choice(ADDRESSES), {}
        body = json.dumps({"images": [text, name, "data:image/png;base64,", "data:,x"]})
        yield "POST", "/predict/many", {"content": body, "headers": JSON}
        zipped = {"Content-Encoding": rng.choice(("gzip", "br", "identity, gzip"))}
        yield rng.choice(METHODS), path, {"content": photo, "headers": zipped}


def made_bombs() -> list[bytes]:
    """Small files that ask for much."""
    return [
        bomb(60_000, 60_000), bomb(2**31 - 1, 2**31 - 1), bomb(7_900, 8_000), text_bomb(),
        many_frames(), picture(20_000, 1), picture(1, 20_000), picture(7_999, 8_000, "GIF"),
    ]  # fmt: skip


def form_named(name: str, field: str, photo: bytes) -> dict[str, Any]:
    """A form whose file has that name, byte for byte."""
    head = f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    body = head.encode("utf-8", "surrogatepass") + photo + b"\r\n--x--\r\n"
    return {"content": body, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
