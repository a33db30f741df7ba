"""Where the model looked: evidence maps and the picture of them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from cliptune.config import load_settings
from cliptune.data.folder import load_split
from cliptune.data.reading import read_image
from cliptune.errors import ModelError
from cliptune.model.attention import evidence_maps, has_class_token
from cliptune.model.backbone import load_backbone
from cliptune.model.checkpoint import resolve_checkpoint
from cliptune.model.classifier import Classifier, TextHead
from cliptune.model.fast.encoder import fuse
from cliptune.model.heat import overlay
from cliptune.model.prompts import zero_shot_weights
from cliptune.model.restore import load_classifier
from cliptune.training.train import train
from conftest import make_model

NAMES = ("amber", "blue", "cyan")


def zero_shot(folder: Path, names: tuple[str, ...] = NAMES) -> Classifier:
    backbone = load_backbone(str(folder))
    weights = zero_shot_weights(backbone, names, ["a photo of a {}."])
    head = TextHead(weights, backbone.model.logit_scale)
    return Classifier(backbone.model, head, backbone.preprocess).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["clip", "chinese_clip"])
def with_token(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Classifier:
    """Its class weights are random: those of random text towers are nearly the same."""
    folder = make_model(tmp_path_factory.mktemp("look") / request.param, request.param)
    classifier = zero_shot(folder)
    random = torch.randn(3, 24, generator=torch.Generator().manual_seed(5))
    classifier.head = TextHead(normalize(random, dim=-1), classifier.head.logit_scale)
    return classifier.eval().requires_grad_(False)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(
        0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(4)
    )


CLASSES = torch.tensor([0, 1, 2, 1, 0])


def plain_rollout(classifier: Classifier, image_CHW: torch.Tensor, label: int) -> np.ndarray:
    """The paper's update of all of R, layer by layer, in float64, one number at a time."""
    model = copy.deepcopy(classifier.model).double()
    model.set_attn_implementation("eager")
    model.requires_grad_(True)
    pixel_values = classifier.preprocess.normalize(image_CHW[None]).double()
    output = model.vision_model(pixel_values=pixel_values, output_attentions=True)
    feature_D = model.visual_projection(output.pooler_output)[0]
    text_D = classifier.head.features[label].double()
    scale = classifier.head.logit_scale.double().exp()
    logit = scale * (feature_D @ text_D) / (feature_D.norm() * text_D.norm())
    gradients = torch.autograd.grad(logit, output.attentions)
    tokens = output.attentions[0].shape[-1]
    relevance = np.eye(tokens)
    for attention, gradient in zip(output.attentions, gradients, strict=True):
        mean = np.zeros((tokens, tokens))
        num_heads = attention.shape[1]
        for head in range(num_heads):
            product = (attention[0, head] * gradient[0, head]).detach().numpy()
            for i in range(tokens):
                for j in range(tokens):
                    mean[i, j] += max(0.0, product[i, j]) / num_heads
        relevance = relevance + mean @ relevance
    row = relevance[0, 1:].reshape(4, 4)
    return row / row.max()


def test_maps_are_those_of_a_plain_rollout_in_float64(
    with_token: Classifier, pixels: torch.Tensor
) -> None:
    found = evidence_maps(with_token, pixels, CLASSES)
    assert found.dtype == np.float32
    assert found.shape == (5, 4, 4)
    for image, label, map_hw in zip(pixels, CLASSES, found, strict=True):
        expected = plain_rollout(with_token, image, int(label))
        np.testing.assert_allclose(map_hw, expected, rtol=1e-3, atol=1e-4)


def test_a_batch_gives_what_its_photos_give_one_by_one(
    with_token: Classifier, pixels: torch.Tensor
) -> None:
    together = evidence_maps(with_token, pixels, CLASSES)
    for i in range(len(pixels)):
        alone = evidence_maps(with_token, pixels[i : i + 1], CLASSES[i : i + 1])
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-3, atol=1e-4)


def test_another_class_gives_another_map(with_token: Classifier, pixels: torch.Tensor) -> None:
    one = evidence_maps(with_token, pixels, CLASSES)
    other = evidence_maps(with_token, pixels, (CLASSES + 1) % 3)
    assert (np.abs(one - other).reshape(5, -1).max(axis=1) > 0.05).all()


def test_every_map_reaches_from_nothing_to_one(
    with_token: Classifier, pixels: torch.Tensor
) -> None:
    maps = evidence_maps(with_token, pixels, CLASSES)
    assert maps.min() >= 0
    np.testing.assert_array_equal(maps.reshape(5, -1).max(axis=1), 1)


def test_patches_that_reach_no_class_token_show_no_evidence(
    clip_folder: Path, pixels: torch.Tensor
) -> None:
    """With values of zero, attention carries nothing: the logit is the class token's own."""
    classifier = zero_shot(clip_folder)
    for layer in classifier.model.vision_model.encoder.layers:
        torch.nn.init.zeros_(layer.self_attn.v_proj.weight)
        torch.nn.init.zeros_(layer.self_attn.v_proj.bias)
    np.testing.assert_array_equal(evidence_maps(classifier, pixels, CLASSES), np.zeros((5, 4, 4)))


@pytest.mark.parametrize("training", [False, True])
def test_looking_changes_nothing_about_the_classifier(
    clip_folder: Path, pixels: torch.Tensor, training: bool
) -> None:
    classifier = zero_shot(clip_folder)
    classifier.requires_grad_(training)
    classifier.model.vision_model.train(training)  # but not the rest
    vision = classifier.model.vision_model

    def state() -> tuple[object, ...]:
        return (
            vision.config._attn_implementation,
            classifier.model.text_model.config._attn_implementation,
            [module.training for module in classifier.modules()],
            [(parameter.requires_grad, parameter.grad) for parameter in classifier.parameters()],
            [len(module._forward_hooks) for module in classifier.modules()],
        )

    before = state()
    with torch.no_grad():
        logits = classifier(pixels)
    evidence_maps(classifier, pixels, CLASSES)
    assert state() == before
    with torch.no_grad():
        assert torch.equal(classifier(pixels), logits)
    with pytest.raises(RuntimeError, match="out of bounds"):  # nor does a failure
        evidence_maps(classifier, pixels, CLASSES + 3)
    assert state() == before


def test_maps_do_not_depend_on_where_gradients_are_switched_off(
    with_token: Classifier, pixels: torch.Tensor
) -> None:
    expected = evidence_maps(with_token, pixels, CLASSES)
    with torch.inference_mode():
        np.testing.assert_array_equal(evidence_maps(with_token, pixels.clone(), CLASSES), expected)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(evidence_maps(with_token, pixels, CLASSES), expected)


def test_a_tower_without_class_token_is_refused(any_model_folder: Path) -> None:
    classifier = zero_shot(any_model_folder)
    siglip = classifier.model.config.model_type == "siglip"
    assert has_class_token(classifier.model) is not siglip
    if siglip:
        pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
        with pytest.raises(ModelError, match="no class token"):
            evidence_maps(classifier, pixels, torch.tensor([0]))


def test_a_fused_tower_is_refused_with_the_remedy(clip_folder: Path, pixels: torch.Tensor) -> None:
    classifier = zero_shot(clip_folder)
    fuse(classifier.model)
    assert has_class_token(classifier.model)
    with pytest.raises(ModelError, match=r"load_classifier\(checkpoint, fast=False\)"):
        evidence_maps(classifier, pixels, CLASSES)


def test_a_trained_checkpoint_can_be_looked_into(
    overrides: dict[str, object], pixels: torch.Tensor
) -> None:
    run_dir = train(load_settings(overrides=overrides), progress=False).output_dir
    classifier = load_classifier(resolve_checkpoint(run_dir), fast=False)
    maps = evidence_maps(classifier, pixels, CLASSES)
    assert maps.shape == (5, 4, 4)
    assert np.isfinite(maps).all()
    assert maps.max() == 1


@pytest.mark.slow
def test_hiding_what_the_map_points_to_costs_most(small_clip: Path, dogs10: Path) -> None:
    """Patches in the photo's mean colour: those with most evidence lower the logit, the others do
    not. A map of chance would tell neither apart."""
    names = sorted(folder.name for folder in (dogs10 / "test").iterdir())
    samples = load_split(dogs10, "test", class_names=names).samples[::10]
    classifier = zero_shot(small_clip, tuple(names))
    views = [classifier.preprocess.pixels(read_image(sample.path)) for sample in samples]
    pixels_BCHW = torch.from_numpy(np.stack(views))
    labels_B = torch.tensor([sample.label for sample in samples])
    maps_Bhw = evidence_maps(classifier, pixels_BCHW, labels_B)
    order_BP = np.argsort(maps_Bhw.reshape(len(samples), -1), axis=1)

    def fall(hidden_BP: np.ndarray) -> float:
        masked = pixels_BCHW.clone()
        for image, hidden in zip(masked, hidden_BP, strict=True):
            mean = image.float().mean(dim=(1, 2), keepdim=True).to(torch.uint8)
            for row, column in zip(*np.unravel_index(hidden, maps_Bhw.shape[1:]), strict=True):
                image[:, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = mean
        with torch.no_grad():
            lost = classifier(pixels_BCHW) - classifier(masked)
        return float(lost.gather(1, labels_B[:, None]).mean())

    most, least = fall(order_BP[:, -20:]), fall(order_BP[:, :20])
    assert most > 1
    assert abs(least) < most / 4


def test_the_overlay_colours_a_photo_where_there_is_evidence_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    view = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    map_hw = np.zeros((6, 8), dtype=np.float32)
    map_hw[1, 5] = 1  # rows 10 to 19, columns 50 to 59; half a patch more by interpolation
    drawn = overlay(view, map_hw)
    assert (drawn.size, drawn.mode) == (view.size, "RGB")
    changed_HW = (np.asarray(drawn) != np.asarray(view)).any(axis=-1)
    assert changed_HW[10:20, 50:60].all()
    changed_HW[5:25, 45:65] = False
    assert not changed_HW.any()
    assert overlay(view, np.zeros((6, 8), dtype=np.float32)).tobytes() == view.tobytes()


def test_more_evidence_is_lighter_in_grey_on_any_plain_ground() -> None:
    """Lightness, not hue, carries the amount; seen on black, as everything shines through there."""
    ground = Image.new("RGB", (256, 1))
    drawn = overlay(ground, np.linspace(0, 1, 256, dtype=np.float32)[None])
    lightness = np.asarray(drawn.convert("L"), dtype=int)[0]
    assert (np.diff(lightness) >= -1).all()  # rounding
    assert lightness[-1] - lightness[0] > 100
