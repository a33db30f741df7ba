"""A graph whose linear layers keep their weights in fp16, brought to float32 as it is loaded.

It computes in float32: onnxruntime's CPU has no kernels for most of a ViT in fp16, and none for
products in bf16. So the file is half as large and as fast as before, and weights are rounded, by
0.0005 of themselves at most; bf16, as large, would round them by 0.004. On the ten breeds this
moves a probability by up to 0.0009; the embeddings, a fortieth of a ViT-B, would add half as much.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cliptune.inference.export.quantise import linear_nodes


def halve(path: Path) -> None:
    """Keep the weights of the linear layers of the graph in `path` in fp16, but those beyond it."""
    import onnx
    from onnx.numpy_helper import from_array, to_array

    model = onnx.load(path)
    graph, casts = model.graph, []
    weights = {node.input[1] for node in linear_nodes(graph)[0]}
    for tensor in graph.initializer:
        if tensor.name not in weights or not _fits(values := to_array(tensor)):
            continue
        whole, half = tensor.name, f"{tensor.name}/fp16"
        casts.append(
            onnx.helper.make_node(
                "Cast", [half], [whole], name=f"{half}/cast", to=onnx.TensorProto.FLOAT
            )
        )
        tensor.CopyFrom(from_array(values.astype(np.float16), half))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    outside = path.with_name(f"{path.name}.data")
    large = outside.exists()  # beyond protobuf's 2 GB, and perhaps still so
    outside.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=large, location=outside.name if large else None)


def _fits(values: np.ndarray[Any, Any]) -> bool:
    """Whether fp16 holds `values` to a thousandth of their size as a whole."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16).astype(np.float64)
    wrong = ((rounded - values) ** 2).sum()
    return bool(np.isfinite(wrong) and wrong <= 1e-6 * (values.astype(np.float64) ** 2).sum())
