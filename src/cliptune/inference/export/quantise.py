"""A graph whose linear layers compute in int8, calibrated on photos of training.

Only products with constant weights are quantised, by onnxruntime's static QDQ: weights for each
output channel in 7 bits, since of 8 processors without VNNI lose sums that overflow their 16 bits,
and the file goes on to others; inputs asymmetric in 8 bits, by their smallest and largest value.
Outputs are not rounded again (which cost 10 points on the ten breeds), and attention, norms, the
projection, head and scores stay float32.

Shape suffixes: N photos, T rows of a layer's input, I inputs, O outputs.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cliptune.errors import UserError
from cliptune.model.exported.runtime import import_onnxruntime, session_of

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

FEATURES = "features"
# Of a layer whose output int8 changes by a larger share of its energy, in the mean over rows, the
# inputs hold a few values so large that all others round to nothing ("massive activations", Sun et
# al., arXiv 2402.17762): it stays float32. On the ten breeds one layer of 72 has 0.19 and alone
# brings the features' cosine down from 0.995 to 0.945; the next one has 0.005.
TOO_COARSE = 0.02
_TAPPED = 16  # photos that tell how coarse
_BATCH = 8


@dataclass(frozen=True)
class Layer:
    """A linear layer of the graph; `error` is the share of its output's energy int8 changes."""

    node: str
    name: str
    error: float


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """What was done to the layers, the coarsest first."""

    layers: tuple[Layer, ...]  # in int8
    left: tuple[Layer, ...]  # in float32
    photos: int  # calibrated on


def quantise(
    source: Path,
    target: Path,
    crops: Sequence[NDArray[np.uint8]],
    *,
    too_coarse: float = TOO_COARSE,
) -> Quantised:
    """Write the graph in `source` to `target` with its linear layers in int8.

    `crops` are uint8 (3, H, W) of photos of training, on which it is calibrated; layers that change
    by more than `too_coarse` stay float32. Raises `UserError` where all of them would.
    """
    layers = layers_by_error(source, crops[:: max(1, len(crops) // _TAPPED)][:_TAPPED])
    chosen = tuple(layer for layer in layers if layer.error <= too_coarse)
    if not chosen:
        coarsest = f": {layers[0].name} by {layers[0].error:.2%} of its energy" if layers else ""
        raise UserError(
            f"none of the {len(layers)} linear layers of this model can be in int8: their outputs "
            f"would change by more than {too_coarse:.0%}{coarsest}. Export it with --fp16."
        )
    _static(source, target, crops, [layer.node for layer in chosen])
    left = tuple(layer for layer in layers if layer.error > too_coarse)
    return Quantised(layers=chosen, left=left, photos=len(crops))


def layers_by_error(source: Path, crops: Sequence[NDArray[np.uint8]]) -> list[Layer]:
    """The linear layers of the graph in `source`, those first that int8 changes most on `crops`."""
    import onnx
    from onnx.numpy_helper import to_array

    model = onnx.load(source)
    nodes, names = linear_nodes(model.graph)
    used = {node.input[1] for node in nodes}
    weights = {each.name: to_array(each) for each in model.graph.initializer if each.name in used}
    inputs = _tapped(model, sorted({node.input[0] for node in nodes}), source.parent, crops)
    found = [
        Layer(
            node.name, name,
            rounding_error(inputs[node.input[0]], weights[node.input[1]]),
        )
        for node, name in zip(nodes, names, strict=True)
    ]  # fmt: skip
    return sorted(found, key=lambda layer: -layer.error)


def linear_nodes(graph: GraphProto) -> tuple[list[NodeProto], list[str]]:
    """The products with constant weights that features are made of, and their layers' names.

    The last of them, the projection, is none of these: one product of a single row.
    """
    constant = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    before, pending = set[str](), [FEATURES]
    while pending:
        name = pending.pop()
        if name in made_by and name not in before:
            before.update(made_by[name].output)
            pending += made_by[name].input
    nodes = [
        node
        for node in graph.node
        if node.op_type == "MatMul" and constant.get(node.input[1]) == 2
        and node.output[0] in before - {FEATURES}
    ]  # fmt: skip
    biases = {
        node.input[side]: node.input[1 - side]
        for node in graph.node
        for side in (0, 1)
        if node.op_type == "Add" and node.input[1 - side] in constant
    }
    return nodes, [_layer_name(biases.get(node.output[0], node.name)) for node in nodes]


def _layer_name(bias: str) -> str:
    return bias.removeprefix("classifier.model.").removesuffix(".bias")


def rounding_error(rows: NDArray[np.floating[Any]], weights_IO: NDArray[np.floating[Any]]) -> float:
    """The mean over rows of |int8's product − the product|² / |the product|².

    `rows` are (..., I).
    """
    rows_TI = np.asarray(rows, np.float64).reshape(-1, len(weights_IO))
    low, high = min(float(rows_TI.min()), 0.0), max(float(rows_TI.max()), 0.0)
    step = (high - low) / 255 or 1.0
    steps_O = np.abs(weights_IO).max(axis=0) / 63
    steps_O[steps_O == 0] = 1.0
    exact_TO = rows_TI @ weights_IO
    coarse_TO = (np.round(rows_TI / step) * step) @ (np.round(weights_IO / steps_O) * steps_O)
    energy_T = (exact_TO**2).sum(axis=1)
    wrong_T = ((coarse_TO - exact_TO) ** 2).sum(axis=1)
    return float((wrong_T / np.where(energy_T > 0, energy_T, 1)).mean())


def _tapped(
    model: Any, names: Sequence[str], beside: Path, crops: Sequence[NDArray[np.uint8]]
) -> Mapping[str, NDArray[np.float32]]:
    """The values of `names` inside the graph of `model`, for `crops`."""
    import onnx

    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        path = Path(folder, "tapped.onnx")
        onnx.save(model, path, save_as_external_data=True, location="tapped.data")
        session = session_of(path)
        found = session.run(list(names), {"pixels": np.stack(crops)})
        del session  # Windows deletes no file that is open
    return dict(zip(names, found, strict=True))


def _static(
    source: Path, target: Path, crops: Sequence[NDArray[np.uint8]], nodes: list[str]
) -> None:
    """onnxruntime's own static quantisation. Of the graph's inputs only `nodes`' need a range, so
    that its pre-processing, which infers shapes, has nothing to add here."""
    import_onnxruntime()
    from onnxruntime import quantization

    class Crops(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, NDArray[np.uint8]]] = (
                {"pixels": np.stack(crops[at : at + _BATCH])} for at in range(0, len(crops), _BATCH)
            )

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            return next(self._batches, None)

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it warns on the root that none was pre-processed
    try:
        quantization.quantize_static(
            str(source), str(target), Crops(),
            quant_format=quantization.QuantFormat.QDQ, per_channel=True, reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8, nodes_to_quantize=nodes,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            use_external_data_format=source.with_name(f"{source.name}.data").exists(),
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )  # fmt: skip
    finally:
        logging.getLogger().setLevel(level)
