"""How every benchmark writes its result: the figures, and what they were obtained with."""

import json
from pathlib import Path
from typing import Any

import torch

from reslab.runs import write_json
from reslab.training.environment import describe_environment


def write_record(path: Path, result: dict[str, Any], *, device: str = "cpu") -> None:
    """Write `result` with command, versions, processor or GPU and date, and print it."""
    environment = describe_environment(device=torch.device(device), seed=0, data=())
    write_json(path, {"result": result, "environment": environment.model_dump(mode="json", exclude={"data"})})
    print(json.dumps(result, indent=1))
