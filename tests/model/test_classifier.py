from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from cliptune.errors import ModelError
from cliptune.model.backbone import fingerprint, load_backbone
from cliptune.model.classifier import Classifier, TextHead
from cliptune.model.prompts import prompts_for, zero_shot_weights
from conftest import make_model

NAMES = ("amber", "blue", "cyan")


def test_update_zero_is_zero_shot_clip_of_transformers(any_model_folder: Path) -> None:
    """Our logits are those of `logits_per_image`, but for SigLIP's constant bias."""
    from transformers import AutoImageProcessor, AutoModel

    backbone = load_backbone(str(any_model_folder))
    weights = zero_shot_weights(backbone, NAMES, ["a photo of a {}."])
    head = TextHead(weights, backbone.model.logit_scale)
    classifier = Classifier(backbone.model, head, backbone.preprocess).eval()
    torch.manual_seed(1)
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        ours = classifier(pixels)

    reference = AutoModel.from_pretrained(any_model_folder).eval()
    processor = AutoImageProcessor.from_pretrained(any_model_folder, backend="pil")
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    inputs = processor(images=images, return_tensors="pt")
    tokens = backbone.tokenize([f"a photo of a {name}." for name in NAMES])
    with torch.no_grad():
        theirs = reference(**inputs, **tokens).logits_per_image
    torch.testing.assert_close(ours.softmax(-1), theirs.softmax(-1), rtol=1e-4, atol=1e-6)


def test_several_prompts_are_averaged_as_directions(clip_folder: Path) -> None:
    backbone = load_backbone(str(clip_folder))
    templates = ["a photo of a {}.", "a drawing of a {}."]
    both = zero_shot_weights(backbone, NAMES, templates)
    each = [zero_shot_weights(backbone, NAMES, [template]) for template in templates]
    expected = torch.nn.functional.normalize(each[0] + each[1], dim=-1)
    torch.testing.assert_close(both, expected)


def test_class_weights_do_not_depend_on_how_many_are_encoded_at_once(clip_folder: Path) -> None:
    backbone = load_backbone(str(clip_folder))
    names = ("amber", "type of photo dog", "blue")  # of different lengths, hence padding
    whole = zero_shot_weights(backbone, names, ["a photo of a {}."])
    single = zero_shot_weights(backbone, names, ["a photo of a {}."], batch=1)
    torch.testing.assert_close(whole, single, rtol=1e-5, atol=1e-6)


def test_every_template_is_filled_with_the_readable_name() -> None:
    assert prompts_for(["a_b"], ["{}!", "{}?"]) == ["a b!", "a b?"]


def test_a_prompt_too_long_for_the_tower_is_refused(clip_folder: Path) -> None:
    backbone = load_backbone(str(clip_folder))
    with pytest.raises(ModelError, match="is 42 tokens long"):
        backbone.tokenize(["a " * 40])


def test_a_folder_without_a_dual_encoder_is_explained(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    with pytest.raises(ModelError, match="no such model folder"):
        load_backbone(str(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_backbone(str(tmp_path))
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(ViTConfig(**size, intermediate_size=16, image_size=32)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no dual encoder"):
        load_backbone(str(tmp_path))


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    tensors = load_backbone(str(folder)).model.state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_backbone(str(folder))


def test_an_unreachable_hub_is_answered_with_three_ways_out(tmp_path: Path) -> None:
    from cliptune.errors import HubError

    with pytest.raises(HubError) as caught:
        load_backbone("openai/clip-vit-base-patch32", cache_dir=tmp_path)
    for words in ("local folder", "HF_ENDPOINT", "cliptune demo"):
        assert words in str(caught.value)


def test_fingerprint_tells_weights_apart(tmp_path: Path, clip_folder: Path) -> None:
    same = load_backbone(str(clip_folder))
    other = load_backbone(str(make_model(tmp_path, seed=1)))
    assert same.source.fingerprint == load_backbone(str(clip_folder)).source.fingerprint
    assert same.source.fingerprint != other.source.fingerprint
    with torch.no_grad():
        same.model.logit_scale += 0.1
    assert fingerprint(same.model) != same.source.fingerprint
