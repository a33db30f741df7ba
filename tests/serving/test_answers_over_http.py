"""Every way of sending a photo gets the answer of `Predictor`; every fault gets words."""

from __future__ import annotations

import base64
import io
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliptune import Predictor
from servers import Served, error_of

WAYS = ["raw", "curl's default", "form", "base64", "data URI", "many by form", "many by base64"]


def sent(server: Served, way: str, photo: bytes, **asked: Any) -> dict[str, Any]:
    """What is answered for `photo`, sent that way."""
    text = base64.b64encode(photo).decode()
    file = ("my photo.png", photo, "image/png")
    post, one, many = server.client.post, "/predict", "/predict/many"
    answer = {
        "raw": lambda: post(one, content=photo, headers={"Content-Type": "image/png"}, **asked),
        "curl's default": lambda: post(
            one, content=photo, headers={"Content-Type": "application/x-www-form-urlencoded"},
            **asked,
        ),
        "form": lambda: post(one, files={"image": file}, **asked),
        "base64": lambda: post(one, json={"image": text}, **asked),
        "data URI": lambda: post(one, json={"image": f"data:image/png;base64,{text}"}, **asked),
        "many by form": lambda: post(many, files=[("images", file), ("images", file)], **asked),
        "many by base64": lambda: post(many, json={"images": [text, text]}, **asked),
    }[way]()  # fmt: skip
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    if "many" in way:
        first, second = found["predictions"]
        assert first == second
        return dict(first)
    return found


@pytest.mark.parametrize("way", WAYS)
def test_each_way_in_gives_the_predictors_dictionary(
    server: Served, tiny_run: Path, photos: Path, way: str
) -> None:
    path = sorted((photos / "test").glob("*/*.png"))[3]
    expected = Predictor(tiny_run, device="cpu").predict(path, top_k=2).to_dict()
    found = sent(server, way, path.read_bytes(), params={"top_k": 2})
    assert found.pop("image") == ("my photo.png" if "form" in way else None)
    del expected["image"]
    assert found.keys() == expected.keys()
    for key in ("label", "name", "known"):
        assert found[key] == expected[key]
    assert found["known_score"] == pytest.approx(expected["known_score"], abs=1e-6)
    assert [score["label"] for score in found["scores"]] == [
        score["label"] for score in expected["scores"]
    ]
    for ours, theirs in zip(found["scores"], expected["scores"], strict=True):
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-6)


def test_a_bad_photo_among_several_is_named_and_the_others_are_answered(
    server: Served, photos: Path
) -> None:
    good = next((photos / "test").glob("*/*.png")).read_bytes()
    files = [("images", (name, content)) for name, content in
             [("a.png", good), ("b.png", good[:200]), ("c.png", good)]]  # fmt: skip
    found = server.client.post("/predict/many", files=files).json()["predictions"]
    assert [each["image"] for each in found] == ["a.png", "b.png", "c.png"]
    assert "cannot be read" in found[1]["error"]
    assert found[0]["label"] == found[2]["label"]


def photo(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


JSON = {"Content-Type": "application/json"}
REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "nothing": ({"content": b""}, 400, "empty"),
    "no photo": ({"content": b"hello"}, 422, "not an image"),
    "a text": ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "text/plain"),
    "zipped": ({"content": b"x", "headers": {"Content-Encoding": "gzip"}}, 415, "gzip"),
    "no JSON": ({"content": b"{", "headers": JSON}, 400, "JSON"),
    "deep JSON": ({"content": b"[" * 100_000, "headers": JSON}, 400, "JSON"),
    "another key": ({"json": {"path": "/etc/passwd"}}, 400, "image"),
    "a path": ({"json": {"image": "/etc/passwd"}}, 400, "paths"),
    "an address": ({"json": {"image": "http://localhost/x.png"}}, 400, "addresses"),
    "a list": ({"json": {"image": ["aGFsbG8="]}}, 400, "string"),
    "another field": ({"files": {"photo": b"x"}}, 400, "found photo; expected files in the field"),
    "no file in a form": ({"files": {"image": (None, "/etc/passwd")}}, 400, "expected files"),
    "no boundary": (
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "form",
    ),
    "half a form": (
        {"content": b"--b\r\nContent-Disposition: form-data; name=", "headers":
         {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "form",
    ),
    "two photos": ({"files": [("image", b"x"), ("image", b"x")]}, 400, "/predict/many"),
    "too many bytes": ({"content": b"x" * 200_001}, 413, "200,000 bytes"),
    "too many pixels": ({"content": photo(5000, 2001)}, 413, "10,000,000 pixels"),
    "no class": ({"content": photo(9, 9), "params": {"top_k": 0}}, 422, "top_k"),
    "no number": ({"content": photo(9, 9), "params": {"top_k": "x"}}, 422, "top_k"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_answered_is_refused_in_words(server: Served, what: str) -> None:
    request, status, words = REFUSED[what]
    answer = server.client.post("/predict", **request)
    assert (answer.status_code, words in error_of(answer)) == (status, True), answer.text


def test_several_photos_have_refusals_of_their_own(server: Served) -> None:
    post, text = server.client.post, base64.b64encode(photo(9, 9)).decode()
    too_many = post("/predict/many", files=[("images", photo(9, 9))] * 4)
    assert (too_many.status_code, "3 photos" in error_of(too_many)) == (413, True)
    too_many = post("/predict/many", json={"images": [text] * 4})
    assert (too_many.status_code, "3 photos" in error_of(too_many)) == (413, True)
    assert post("/predict/many", json={"images": []}).status_code == 400
    raw = post("/predict/many", content=photo(9, 9))
    assert (raw.status_code, "multipart" in error_of(raw)) == (415, True)
    odd = post("/predict/many", json={"images": [text, "no base64"]})
    assert (odd.status_code, "images[1]" in error_of(odd)) == (400, True)


def test_other_addresses_and_methods_are_told_where_to_look(server: Served) -> None:
    missing, wrong = server.client.get("/../etc/passwd"), server.client.get("/predict")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert "/openapi.json" in error_of(missing)
    assert "/openapi.json" in error_of(wrong)


def test_a_body_that_does_not_arrive_is_given_up(server: Served) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        slow.settimeout(20)
        started, answer = time.monotonic(), b""
        while chunk := slow.recv(4096):
            answer += chunk
    assert b" 408 " in answer
    assert b"did not arrive within 4 seconds" in answer
    assert time.monotonic() - started < 15


def test_a_body_that_is_cut_off_harms_nobody(server: Served, photos: Path) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    for sent_first in (
        b"",
        b"GET",
        b"POST /predict HTTP/1.1\r\nContent-Length: 9\r\n\r\nab",
        b"\0\xff",
    ):
        with socket.create_connection((host, int(port))) as cut:
            cut.sendall(sent_first)
    path = next((photos / "test").glob("*/*.png"))
    assert server.client.post("/predict", content=path.read_bytes()).status_code == 200
    assert not any("Traceback" in line for line in server.told)


def test_where_it_looked_is_the_predictors_picture(
    server: Served, tiny_run: Path, photos: Path
) -> None:
    path = next((photos / "test").glob("*/*.png"))
    answer = server.client.post("/look", params={"label": "blue"}, content=path.read_bytes())
    assert answer.headers["content-type"] == "image/jpeg"
    found = Image.open(io.BytesIO(answer.content))
    expected = Predictor(tiny_run, device="cpu").look(path, "blue")
    assert found.size == expected.size
    apart = np.abs(np.asarray(found, float) - np.asarray(expected, float))
    assert apart.mean() < 4  # of 255: it came as a JPEG
    odd = server.client.post("/look", params={"label": "red"}, content=path.read_bytes())
    assert (odd.status_code, "none of the classes" in error_of(odd)) == (422, True)


def test_pictures_do_not_crowd_out_answers(server: Served, photos: Path) -> None:
    content = next((photos / "test").glob("*/*.png")).read_bytes()
    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(server.client.post, "/look", content=content) for _ in range(12)]
        found = [each.result() for each in asked]
    statuses = {answer.status_code for answer in found}
    assert statuses == {200, 429}, statuses
    refused = next(answer for answer in found if answer.status_code == 429)
    assert "pictures are being made already" in error_of(refused)


def test_the_description_fits_what_is_answered(server: Served, photos: Path) -> None:
    """OpenAPI's own keys and types against an answer; all paths are there."""
    described = server.client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/", "/about", "/health", "/ready", "/metrics", "/predict", "/predict/many", "/look"
    }  # fmt: skip
    content = next((photos / "test").glob("*/*.png")).read_bytes()
    found = server.client.post("/predict", content=content).json()
    prediction = described["components"]["schemas"]["PredictionOut"]
    assert set(prediction["required"]) == set(found)
    score = described["components"]["schemas"]["Score"]
    assert set(score["required"]) == set(found["scores"][0])


def photos_answered(counts: dict[str, float]) -> float:
    """Whether a class of them was seen on them or not."""
    kinds = ("known", "unknown")
    return sum(counts.get(f'cliptune_photos_total{{answer="{kind}"}}', 0) for kind in kinds)


def test_requests_are_counted_and_told_without_what_was_in_them(
    server: Served, photos: Path
) -> None:
    path = next((photos / "test").glob("*/*.png"))
    name = 'cliptune_requests_total{path="/predict",status="200"}'
    counted = server.counts()
    before = counted.get(name, 0)
    with path.open("rb") as file:
        server.client.post("/predict", files={"image": ("secret name.png", file)})
    found = server.counts()
    assert found[name] == before + 1
    assert photos_answered(found) == photos_answered(counted) + 1
    server.client.get("/nowhere/secret")
    assert server.counts()['cliptune_requests_total{path="other",status="404"}'] >= 1
    lines = [json.loads(line) for line in server.told if line.startswith("{")]
    assert {"time", "client", "method", "path", "status", "seconds", "photos", "bytes"} == set(
        lines[-1]
    )
    assert any(line["photos"] == 1 and line["bytes"] > 100 for line in lines)
    assert not any("secret" in line for line in server.told)


def test_the_open_paths_tell_what_is_there(server: Served) -> None:
    about = server.client.get("/about").json()
    assert [each["label"] for each in about["classes"]] == ["amber", "blue", "cyan"]
    assert (about["max_photos"], about["needs_key"]) == (3, False)
    assert server.client.get("/health").json() == {"status": "ok"}
    assert server.client.get("/ready").json() == {"status": "ready"}
    answer = server.client.get("/", headers={"Origin": "http://elsewhere"})
    assert "access-control-allow-origin" not in answer.headers
    assert "default-src 'none'" in answer.headers["content-security-policy"]
