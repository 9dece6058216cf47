"""The server that most people write: FastAPI, each picture alone, PyTorch's network as it was trained."""

import io
import socket
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from fastapi.param_functions import File
from PIL import Image

from reslab import models
from reslab.runs import read_weights


def single_image_app(path: Path) -> FastAPI:
    """Make the app: a plain function, which FastAPI calls in one of its threads, and the network in one call."""
    tensors, weights = read_weights(path)
    model = models.restore(weights.model, tensors, num_classes=10, channels=3).eval()
    scale = weights.standardize
    assert scale is not None
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (scale.mean, scale.std))
    app = FastAPI()

    @app.post("/v1/predict")
    def predict(files: Annotated[UploadFile, File()]) -> dict[str, float]:
        picture = Image.open(io.BytesIO(files.file.read())).convert("RGB").resize((32, 32))
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
        with torch.inference_mode():
            probabilities = model(((pixels - mean) / deviation)[None]).softmax(1)[0]
        return dict(zip(weights.classes, probabilities.tolist(), strict=True))

    return app


def serve_single_images(path: Path) -> None:
    """Serve it at a free port; the first line of the output is its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(single_image_app(path), log_level="error", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])
