"""A graph whose weights are kept in fp16 and brought to float32 as it is loaded.

It computes in float32: onnxruntime's CPU has no kernels for most of a ViT in fp16, and none for
products in bf16. So the file is half as large and as fast as in float32, and only weights are
rounded, by 0.0005 of themselves at most; those of bf16, as large, would be by 0.004.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

LEAST = 1024  # values of a tensor that is worth it: norms, biases and scales stay as they are


def halve(path: Path) -> None:
    """Keep the large weights of the graph in `path` in fp16, but those beyond its range."""
    import onnx
    from onnx.numpy_helper import from_array, to_array

    model = onnx.load(path)
    graph, casts = model.graph, []
    for tensor in list(graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < LEAST:
            continue
        values = to_array(tensor)
        if not _fits(values):
            continue
        name = f"{tensor.name}/fp16"
        casts.append(
            onnx.helper.make_node(
                "Cast", [name], [tensor.name], name=f"{name}/cast", to=onnx.TensorProto.FLOAT
            )
        )
        tensor.CopyFrom(from_array(values.astype(np.float16), name))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    (path.parent / f"{path.name}.data").unlink(missing_ok=True)
    save(model, path)


def save(model: Any, path: Path) -> None:
    """Write `model`, its weights in a file beside it where protobuf's 2 GB would not hold them."""
    import onnx

    large = model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF
    onnx.save(
        model, path, save_as_external_data=large, location=f"{path.name}.data" if large else None
    )


def _fits(values: np.ndarray[Any, Any]) -> bool:
    """Whether fp16 holds `values` to a thousandth of their size as a whole."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16).astype(np.float64)
    exact = values.astype(np.float64)
    return bool(
        np.isfinite(rounded).all() and ((rounded - exact) ** 2).sum() <= 1e-6 * (exact**2).sum()
    )
