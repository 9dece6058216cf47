import base64
import io
import re
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import testclient
from PIL import Image

from reslab.evaluation.classify import classify
from reslab.records import Calibration
from reslab.runs import DEMO_FOLDER, GalleryImages, read_exhibit
from reslab.serving.app import Access
from reslab.serving.examples import find_examples
from reslab.serving.guard import Limits
from reslab.serving.metrics import Metrics
from reslab.serving.schema import MAX_PICTURES, Guess, RunAnswer
from reslab.serving.served import Served
from reslab.serving.service import describe_calibration

FILES = "files"
TestClient = partial(testclient.TestClient, base_url="http://localhost")  # a name that a server answers to


def post(client, *contents, headers=None, **asked):
    files = [(FILES, (f"{place}.png", content, "image/png")) for place, content in enumerate(contents)]
    return client.post("/v1/predict", files=files, params=asked, headers=headers)


def test_an_answer_is_that_of_the_command(make_app, finished, one, seven, tmp_path):
    paths = [tmp_path / "one.png", tmp_path / "seven.png"]
    for path, content in zip(paths, (one, seven), strict=True):
        path.write_bytes(content)
    expected = classify(paths, weights=finished.path, top=2, coverage=0.9)
    with TestClient(make_app()) as client:
        pictures = post(client, one, seven, top=2, coverage=0.9).json()["pictures"]
        refused = post(client, one, coverage=0.95)
        metrics = client.get("/metrics").text
    assert (refused.status_code, "ask for 0.9 or less" in refused.json()["detail"]) == (422, True)
    assert 'reslab_probability_count{run="small"} 2.0' in metrics
    counts = Counter(answer.classes[0] for answer in expected)
    for name, number in counts.items():
        assert f'reslab_answers_total{{class="{name}",run="small"}} {number}.0' in metrics
    assert [picture["name"] for picture in pictures] == ["0.png", "1.png"]
    for picture, answer in zip(pictures, expected, strict=True):
        (given,) = picture["answers"]
        assert given["run"] == "small"
        assert given["class_set"] == list(answer.class_set)
        assert [guess["name"] for guess in given["classes"]] == list(answer.classes)
        assert [guess["probability"] for guess in given["classes"]] == pytest.approx(answer.probabilities, abs=1e-5)


def test_json_with_base64_gives_the_same(make_app, one, seven):
    pictures = [{"data": base64.b64encode(content).decode(), "name": "x"} for content in (one, seven)]
    with TestClient(make_app()) as client:
        by_json = client.post("/v1/predict", json={"pictures": pictures}).json()["pictures"]
        by_form = post(client, one, seven).json()["pictures"]
    for first, second in zip(by_json, by_form, strict=True):
        (first,), (second,) = first["answers"], second["answers"]
        assert [guess["name"] for guess in first["classes"]] == [guess["name"] for guess in second["classes"]]


def test_it_says_what_its_calibration_rests_on(make_app):
    with TestClient(make_app()) as client:
        (run,) = client.get("/v1/model").json()["runs"]
    assert run["temperature"] is None
    assert run["calibration"] == "Not calibrated: too few images were held out that the network had not learned from."
    found = Calibration(temperature=1.5, num_images=300)
    assert describe_calibration(found) == "Calibrated on 300 held-out images: temperature 1.50."
    fitted = Calibration(temperature=1.5, num_images=300, out_of_folds=True)
    assert describe_calibration(fitted) == "Calibrated on 300 training images, out of folds: temperature 1.50."


@pytest.mark.parametrize("is_damaged_before", [True, False])
def test_an_evaluation_that_cannot_be_read_does_not_hide_the_run(make_app, finished, is_damaged_before):
    """The accuracy is that of the network that is served, whatever becomes of the folder."""
    accuracy = finished.evaluation.splits["test"].accuracy.value
    path = finished.path / "evaluation.json"
    if is_damaged_before:
        path.write_text("{")
    with TestClient(make_app()) as client:
        path.write_text("{")
        (run,) = client.get("/v1/model").json()["runs"]
    assert run["classes"] == ["1", "4", "7"]
    assert (run["test_accuracy"] and run["test_accuracy"]["value"]) == (None if is_damaged_before else accuracy)


def test_prometheus_counts_answers_abstentions_and_how_familiar_pictures_are():
    metrics = Metrics()
    for familiarity in (0.03, 0.5, 0.9):
        guesses = [Guess(name="7", probability=0.8)]
        answered = familiarity > 0.05
        metrics.note_answer(
            RunAnswer(run="a", classes=guesses, familiarity=familiarity, answered=answered, class_set=None, nearest=[])
        )
    text = metrics.render().decode()
    assert 'reslab_answers_total{class="7",run="a"} 2.0' in text
    assert 'reslab_abstentions_total{run="a"} 1.0' in text
    assert 'reslab_familiarity_bucket{le="0.05",run="a"} 1.0' in text
    assert 'reslab_familiarity_count{run="a"} 3.0' in text


def test_prometheus_finds_every_count_from_the_start(make_app):
    """A count that appeared with its first picture would leave an alert on its rate without an answer."""
    with TestClient(make_app(twice=True)) as client:
        text = client.get("/metrics").text
    for run in ("small", "again"):
        assert f'reslab_abstentions_total{{run="{run}"}} 0.0' in text
        assert f'reslab_familiarity_count{{run="{run}"}} 0.0' in text
        assert f'reslab_probability_count{{run="{run}"}} 0.0' in text
        for name in ("1", "4", "7"):
            assert f'reslab_answers_total{{class="{name}",run="{run}"}} 0.0' in text


def test_two_runs_answer_side_by_side_with_evidence_and_neighbours(make_app, seven):
    with TestClient(make_app(twice=True, neighbours=30)) as client:
        deadline = time.monotonic() + 20
        while not all(run["has_neighbours"] for run in client.get("/v1/model").json()["runs"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (picture,) = post(client, seven, heat=True, nearest=2, top=2).json()["pictures"]
    assert [answer["run"] for answer in picture["answers"]] == ["small", "again"]
    for answer in picture["answers"]:
        assert [np.shape(guess["evidence"]) for guess in answer["classes"]] == [(2, 2), (2, 2)]
        assert len(answer["nearest"]) == 2
        assert answer["nearest"][0]["similarity"] >= answer["nearest"][1]["similarity"] > 0
        assert base64.b64decode(answer["nearest"][0]["image"].removeprefix("data:image/png;base64,"))[1:4] == b"PNG"


def test_what_is_wrong_is_said_in_a_sentence(make_app, seven):
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"files": [(FILES, ("no.png", b"nothing"))]}, 422, "no.png cannot be read as a picture"),
        (
            {"files": [("other", ("a.png", seven))]},
            422,
            f"Send 1 to {MAX_PICTURES} pictures in the form field 'files', not 0",
        ),
        (
            {"files": [(FILES, ("a.png", seven))] * (MAX_PICTURES + 1)},
            422,
            "Send 1 to 64 pictures in the form field 'files', not 65",
        ),
        ({"files": [(FILES, ("a.png", seven))] * 200}, 422, "The form has more than 128 parts"),
        ({"json": {"pictures": []}}, 422, "pictures: List should have at least 1 item"),
        ({"json": {"pictures": [{"data": "?"}]}}, 422, "pictures.0.data: Data should be valid base64"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "the body: Invalid JSON"),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 422, "not as text/plain"),
        (
            {"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
            422,
            "does not end with its boundary",
        ),
        ({"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data"}}, 422, "names no boundary"),
        (
            {"files": [(FILES, ("a.png", seven))], "params": {"top": 0}},
            422,
            "top should be greater than or equal to 1, not '0'",
        ),
        (
            {"files": [(FILES, ("a.png", seven))], "params": {"coverage": "x"}},
            422,
            "coverage should be a number, not 'x'",
        ),
        ({"files": [(FILES, ("a.png", seven))], "params": {"top": 11, "heat": True}}, 422, "at most 10 classes"),
        ({"files": [(FILES, ("a.png", seven))] * 7, "params": {"nearest": 50}}, 422, "at most 320 training images"),
    ]
    with TestClient(make_app()) as client:
        for request, status, sentence in cases:
            answer = client.post("/v1/predict", **request)
            assert answer.status_code == status, answer.text
            assert sentence in str(answer.json()["detail"])
        assert post(client, seven).status_code == 200


def test_a_body_is_bounded_whether_it_is_announced_or_not(make_app, seven):
    access = Access(limits=Limits(body_bytes=2**20))
    with TestClient(make_app(access=access)) as client:
        announced = post(client, bytes(2**20))
        parts = (bytes(2**16) for _ in range(17))
        headers = {"Content-Type": "application/json"}
        unannounced = client.post("/v1/predict", content=parts, headers=headers)
        assert post(client, seven).status_code == 200
    for answer in (announced, unannounced):
        assert answer.status_code == 413
        assert answer.headers["connection"] == "close"
        assert "1 MB" in answer.json()["detail"]


def test_all_bodies_together_are_bounded_and_forgotten_when_answered(make_app, seven):
    access = Access(limits=Limits(all_bodies_bytes=2 * len(seven)))
    with TestClient(make_app(access=access)) as client:
        assert post(client, seven * 3).status_code == 503
        for _ in range(4):
            assert post(client, seven).status_code == 200


def test_without_the_token_only_pages_open(make_app, seven):
    with TestClient(make_app(access=Access(token="a secret of length"))) as client:
        for path in ("/", "/docs", "/openapi.json", "/healthz"):
            assert client.get(path).status_code == 200
        for path in ("/metrics", "/v1/model"):
            assert client.get(path).status_code == 401
        for given in ("", "Bearer", "Bearer a secret of lengt", "a secret of length", "Bearer a secret of length "):
            assert post(client, seven, headers={"Authorization": given}).status_code == 401
        right = {"Authorization": "Bearer a secret of length"}
        assert post(client, seven, headers=right).status_code == 200
        assert client.get("/v1/model", headers=right).status_code == 200


def test_without_a_token_only_this_machines_names_are_answered(make_app):
    with TestClient(make_app()) as client:
        assert client.get("/v1/model", headers={"Host": "localhost:8000"}).status_code == 200
        for other in ("evil.example", "testserver"):  # the second is what tests of an app call it
            assert client.get("/v1/model", headers={"Host": other}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:9"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost:9"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy.example"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({}, 200),
    ],
)
def test_only_a_page_of_this_server_makes_it_compute(make_app, seven, headers, status):
    with TestClient(make_app()) as client:
        assert post(client, seven, headers=headers).status_code == status
        assert client.get("/v1/model", headers=headers).status_code == status
        assert client.get("/", headers=headers).status_code == 200  # a link may lead here


def test_a_token_is_asked_for_whatever_page_it_is(make_app, seven):
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    with TestClient(make_app(access=Access(token="a secret of length"))) as client:
        assert post(client, seven, headers=foreign).status_code == 401
        assert post(client, seven, headers={**foreign, "Authorization": "Bearer a secret of length"}).status_code == 200


def test_prometheus_reads_requests_and_batches(make_app, seven):
    with TestClient(make_app()) as client:
        post(client, seven, seven)
        unknown, wrong = client.get("/v1/nonsense"), client.get("/v1/predict")
        assert (unknown.status_code, wrong.status_code, wrong.headers["allow"]) == (404, 405, "POST")
        assert unknown.json() == {"detail": "GET /v1/nonsense is not a route of this server: see /docs"}
        assert wrong.json() == {"detail": "GET /v1/predict is not a route of this server: see /docs"}
        text = client.get("/metrics").text
    assert 'reslab_requests_total{path="/v1/predict",status="200"} 1.0' in text
    assert 'reslab_requests_total{path="other",status="404"} 1.0' in text
    assert "reslab_batch_pictures_sum 2.0" in text
    assert "reslab_waiting_pictures 0.0" in text


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_loads_nothing_and_runs_only_its_own_script(make_app, path):
    with TestClient(make_app()) as client:
        page = client.get(path)
    assert not re.search(r"https?://|@import|url\(|<script src|<link rel=.stylesheet", page.text)
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert len(re.findall("<script", page.text)) == 1
    assert 'onclick="' not in page.text


def test_openapi_knows_both_bodies_and_every_reference(make_app):
    with TestClient(make_app()) as client:
        api = client.get("/openapi.json").json()
    body = api["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
    references = set(re.findall(r"#/components/schemas/(\w+)", str(api)))
    assert references <= set(api["components"]["schemas"])


def test_openapi_suits_a_generated_client(make_app):
    """Base64 has its type, functions have names that a person would choose, and a token is a security scheme."""
    with TestClient(make_app()) as client:
        open_api = client.get("/openapi.json").json()
    with TestClient(make_app(access=Access(token="a-token-of-sixteen"))) as client:
        api = client.get("/openapi.json").json()
    upload = api["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert upload["properties"]["pictures"]["items"]["properties"]["data"]["format"] == "byte"
    assert [
        api["paths"][f"/v1/{name}"][method]["operationId"] for name, method in (("predict", "post"), ("model", "get"))
    ] == [
        "predict",
        "model",
    ]
    assert api["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert api["paths"]["/v1/predict"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "securitySchemes" not in open_api["components"]


def test_the_demo_shows_the_pictures_that_come_with_it():
    for path in (Path("demo"), DEMO_FOLDER):
        examples = find_examples(Served(path, name="demo"))
        assert len(examples) == 8
        for example in examples:
            shipped = (DEMO_FOLDER / "pictures" / f"{example.name}.png").read_bytes()
            assert base64.b64decode(example.image.partition(",")[2]) == shipped


def test_examples_are_test_images_of_the_run_one_of_each_class(make_app, finished):
    with TestClient(make_app()) as client:
        examples = client.get("/v1/examples").json()
    kept, labels = read_exhibit(finished.path, "test", GalleryImages), finished.read_predictions("test").labels
    classes = finished.evaluation.classes
    assert [example["name"] for example in examples] == list(classes)
    for label, example in enumerate(examples):
        with Image.open(io.BytesIO(base64.b64decode(example["image"].partition(",")[2]))) as picture:
            pixels = np.asarray(picture)
        of_class = [image[0] for index, image in zip(*kept, strict=True) if labels[index] == label]
        assert any(np.array_equal(pixels, image) for image in of_class)
