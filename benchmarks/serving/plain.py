"""What people write in an afternoon: FastAPI around `transformers`' pipeline.

python benchmarks/serving/plain.py MODEL LABELS.json
"""

from __future__ import annotations

import io
import json
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import uvicorn
from fastapi import FastAPI, File
from PIL import Image
from transformers import pipeline


def build(model: str, labels: list[str], dtype: str) -> FastAPI:
    app = FastAPI()
    classify = pipeline(
        "zero-shot-image-classification", model=model, dtype=getattr(torch, dtype), device="cpu"
    )

    @app.post("/predict")
    def predict(image: Annotated[bytes, File()]) -> Any:
        return classify(Image.open(io.BytesIO(image)).convert("RGB"), candidate_labels=labels)

    return app


def main() -> None:
    model, labels, dtype = sys.argv[1:]
    app = build(model, json.loads(Path(labels).read_text(encoding="utf-8")), dtype)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
