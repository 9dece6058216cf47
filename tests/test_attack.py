"""The committed attack on a running server met the goals that docs/serve.md states."""

import json
from pathlib import Path

RESULT = json.loads((Path(__file__).parents[1] / "benchmarks/attack.json").read_text())["result"]


def test_the_attack_found_no_defect() -> None:
    assert RESULT["defects"] == []
    assert RESULT["trials"]["soak"]["counts"]["requests"] == 20_000
    assert RESULT["trials"]["burst"]["answers"] == {"200": 1000}


def test_no_request_costs_more_than_promised() -> None:
    requests, soak = RESULT["trials"]["hostile requests"], RESULT["trials"]["soak"]
    assert requests["peak_megabytes_above"] <= 500
    assert max(requests["longest_healthz_seconds"], soak["longest_healthz_seconds"]) <= 1
    beside = {name: found for name, found in RESULT["trials"]["neighbours"].items() if name.startswith("beside ")}
    assert len(beside) > 3
    assert max(found["p99_ms"] for found in beside.values()) <= 2000
