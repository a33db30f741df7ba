"""Other classes on the image tower of an exported folder: its graph is cut at the features, and
another head put there.

Shape suffixes: B batch, C classes, D feature.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.data.images import Preprocess
from cliptune.data.parents import Parents
from cliptune.errors import CheckpointError
from cliptune.model.classifier import Head
from cliptune.model.exported.about import EXPORTED, classes_told
from cliptune.model.exported.classifier import GRAPH, ExportedClassifier
from cliptune.model.exported.graph import AnswerHead, LabelAnswerHead, answer_head, to_onnx
from cliptune.model.label_answers import AnyAnswers

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

FEATURES = "features"
HEAD_PREFIX = "head/"  # of what the new head's graph calls its values: the tower's are other ones


def write_with_head(
    source: Path,
    folder: Path,
    head: Head,
    *,
    tree: Parents,
    names: Mapping[str, str],
    answers: AnyAnswers | None,
    means_CD: NDArray[np.floating[Any]] | None,
) -> None:
    """Write the graph of the exported folder `source` with `head` on it, and its export.json.

    `tree` has the classes in the order of the head, `names` those to show; `answers` and
    `means_CD` as of `answered`. Raises `CheckpointError` where the new graph answers otherwise
    than `head` does.
    """
    import onnx

    about = json.loads((source / EXPORTED).read_text(encoding="utf-8"))
    about.pop("parents", None)
    about |= classes_told(tree, names, answers)
    about |= {key: None for key in ("verified", "int8") if key in about}  # of other classes
    model = onnx.load(source / GRAPH, load_external_data=False)
    put_on(model, answer_head(head, answers, means_CD))
    (told,) = [each for each in model.metadata_props if each.key == "cliptune"]
    told.value = json.dumps(about, ensure_ascii=False)
    onnx.save(model, folder / GRAPH)
    text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    (folder / EXPORTED).write_text(text, encoding="utf-8", newline="\n")
    _prove(folder, head, Preprocess.from_dict(about["preprocess"]))


def put_on(model: ModelProto, head: AnswerHead | LabelAnswerHead) -> None:
    """Let `head` stand in `model` in the place of all that is made of its features."""
    from onnx.compose import add_prefix

    graph, dim = model.graph, head.get_buffer("weights_CD").shape[1]
    (opset,) = [each.version for each in model.opset_import if each.domain == ""]
    program = to_onnx(head, torch.zeros(2, dim), FEATURES, head.outputs, opset_version=opset)
    added = add_prefix(program.model_proto, HEAD_PREFIX, rename_inputs=False, rename_outputs=False)
    if added.functions or [each for each in added.opset_import if each.domain]:
        raise CheckpointError("this version of torch writes heads that cannot be put on a graph")
    _cut(graph)
    graph.node.extend(added.graph.node)
    graph.initializer.extend(added.graph.initializer)
    graph.output.extend(added.graph.output)


def _cut(graph: GraphProto) -> None:
    """Leave of `graph` what its features are made of."""
    needed = {FEATURES}
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    _keep(graph.node, lambda node: bool(needed.intersection(node.output)))
    _keep(graph.initializer, lambda tensor: tensor.name in needed)
    _keep(graph.value_info, lambda value: value.name in needed)
    _keep(graph.output, lambda value: value.name == FEATURES)


def _keep(entries: Any, wanted: Callable[[Any], bool]) -> None:
    for place in reversed(range(len(entries))):
        if not wanted(entries[place]):
            del entries[place]


@torch.inference_mode()
def _prove(folder: Path, head: Head, preprocess: Preprocess) -> None:
    """Raise `CheckpointError` unless the graph in `folder` answers by `head`."""
    classifier = ExportedClassifier(folder, head, preprocess)
    generator = torch.Generator().manual_seed(0)
    size = (2, 3, *preprocess.image_size)
    pixels_BCHW = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    said_BC, features_BD = classifier.answer(pixels_BCHW)
    expected_BC = head(features_BD, head.weights())
    if not torch.allclose(said_BC, expected_BC, rtol=1e-4, atol=1e-3):
        apart = float((said_BC - expected_BC).abs().max())
        raise CheckpointError(
            f"the changed graph answers otherwise than its classes should, by {apart:.2g} of a "
            "logit, and nothing was written. Please report it with the versions of torch and onnx."
        )
