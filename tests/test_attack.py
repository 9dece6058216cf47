"""What docs/serve.md says of the attacks is what was found."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_what_is_said_of_the_attacks_is_what_was_found() -> None:
    result = json.loads((ROOT / "benchmarks/attack.json").read_text())["result"]
    page = " ".join((ROOT / "docs/serve.md").read_text(encoding="utf-8").split())
    requests, neighbours = result["trials"]["hostile requests"], result["trials"]["neighbours"]
    p99 = {name: figures["p99_ms"] / 1000 for name, figures in neighbours.items() if name.startswith("beside ")}
    slowest = max(p99, key=lambda name: p99[name])
    assert result["defects"] == []
    assert slowest == "beside JPEGs of many scans"
    for words in (
        f"a load average of {result['load_average_before']}",
        f"at most {requests['peak_megabytes_above']} MB",
        f"for {requests['longest_healthz_seconds']:.2f} s",
        f"within {p99['beside 64 large pictures']:.2f} s beside requests of 64 large pictures",
        f"within {p99[slowest]:.2f} s beside the slowest",
    ):
        assert words in page
