"""What might help the fitted head: other views, more prompts, a folder's photos together.

    python benchmarks/head_levers.py --model MODEL --data dogs10 "a photo of a {}, a type of dog."

By seed, K photos of each class of train/ fit the head, and up to --left others of train/ and val/
tell what each change gives, in pairs: test/ stays shut. Means over seeds; ± is half of Student's
95 % interval of the difference.

Shape suffixes: N photos, C classes, D feature, V views.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accuracy import mean_and_half_width
from unused import parts

from cliptune.data.augment import Augmentation
from cliptune.data.folder import Sample
from cliptune.data.reading import read_image
from cliptune.model.backbone import Backbone, image_features, load_backbone
from cliptune.model.prompts import zero_shot_weights
from cliptune.training.head.fitting import HeadFit, fit_head
from cliptune.training.head.logistic import Floats, Labels, directions
from cliptune.training.head.mixture import accuracy, log_loss

KINDS = ("{}", "small {}", "large {}")
FORMS = ("a photo of a {}", "a close-up photo of a {}", "a blurry photo of a {}")
AUGMENTED = 4


@torch.no_grad()
def views(backbone: Backbone, samples: Sequence[Sample], *, augmented: int) -> Floats:
    """(V, N, D) features of each photo as it is, mirrored, and in as many random views."""
    augmentation, rows = Augmentation(), []
    for i, sample in enumerate(samples):
        image = read_image(sample.path)
        plain = backbone.preprocess.pixels(image)
        others = [
            augmentation.pixels(
                np.array(image), backbone.preprocess, np.random.default_rng([view, i])
            )
            for view in range(augmented)
        ]
        pixels = torch.from_numpy(np.stack([plain, plain[:, :, ::-1], *others]))
        rows.append(image_features(backbone.model, backbone.preprocess.normalize(pixels)).numpy())
    return np.stack(rows, axis=1).astype(np.float64)


def together(
    logits_NC: Floats, new_ND: Floats, known_ND: Floats, labels_N: Labels, *, trust: float
) -> Floats:
    """Log-probabilities once the photos' own clusters count, too.

    Ten rounds of expectation and maximisation (Dempster et al. 1977): a Gaussian for each class,
    its variances common to all, of known photos and of new ones as far as they are thought to
    belong to it. The Gaussians count `trust`/√D.
    """
    known, new = directions(known_ND), directions(new_ND)
    both = np.concatenate([new, known])
    sure_NC = np.eye(logits_NC.shape[1])[labels_N]
    shares_NC = softmax(logits_NC)
    for _ in range(10):
        weights = np.concatenate([shares_NC, sure_NC])
        means_CD = weights.T @ both / weights.sum(axis=0)[:, None]
        gaps_CND = both[None] - means_CD[:, None]
        variances_D = np.einsum("nc,cnd->d", weights, gaps_CND**2) / weights.sum()
        variances_D += 1e-3 * variances_D.mean()
        near_NC = -0.5 * (gaps_CND[:, : len(new)] ** 2 / variances_D).sum(axis=2).T
        shares_NC = softmax(logits_NC + trust / np.sqrt(new.shape[1]) * near_NC)
    result_NC: Floats = np.log(shares_NC + 1e-12)
    return result_NC


def softmax(logits_NC: Floats) -> Floats:
    chances_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    shares_NC: Floats = chances_NC / chances_NC.sum(axis=1, keepdims=True)
    return shares_NC


def tried(
    backbone: Backbone, folder: Path, prompt: str, *, shots: int, left: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Change -> (top-1 in percent, log loss in nats) on the photos left."""
    some, _, unused = parts(folder, shots=shots, left=left, seed=seed)
    fit_VND = views(backbone, some.samples, augmented=AUGMENTED)
    new_VND = views(backbone, unused.samples, augmented=0)
    fit_N, new_N = (np.array([s.label for s in split.samples]) for split in (some, unused))
    scale = backbone.model.logit_scale.exp().item()
    tail = prompt.partition("{}")[2]
    prompts = [form.format(kind) + tail for form in FORMS for kind in KINDS]

    def head(features_ND: Floats, templates: Sequence[str] = (prompt,)) -> HeadFit:
        text_CD = zero_shot_weights(backbone, some.class_names, list(templates))
        projection_DH = backbone.model.visual_projection.weight.detach().numpy()
        return fit_head(
            features_ND, fit_N, text_CD.double().numpy(), scale, seed=seed,
            projection_DH=projection_DH,
        )  # fmt: skip

    plain = head(fit_VND[0])
    said_NC = plain.logits(new_VND[0])
    answers = {
        "as it is": said_NC,
        "mirror image, too": (said_NC + plain.logits(new_VND[1])) / 2,
        "mirror image in the fit, too": head(fit_VND[:2].mean(axis=0)).logits(new_VND.mean(axis=0)),
        f"{AUGMENTED} random views in the fit": head(fit_VND[2:].mean(axis=0)).logits(new_VND[0]),
        f"{len(prompts)} prompts": head(fit_VND[0], prompts).logits(new_VND[0]),
        "together, trust 1/4": together(said_NC, new_VND[0], fit_VND[0], fit_N, trust=0.25),
        "together, trust 1": together(said_NC, new_VND[0], fit_VND[0], fit_N, trust=1.0),
    }
    return {
        name: (100 * accuracy(logits_NC, new_N), log_loss(logits_NC, new_N))
        for name, logits_NC in answers.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a CLIP: folder, or name on the hub")
    parser.add_argument(
        "--data", nargs=2, action="append", required=True, metavar=("FOLDER", "PROMPT")
    )
    parser.add_argument("--shots", nargs="*", type=int, default=[4, 16])
    parser.add_argument("--left", type=int, default=40, help="of each class, to measure on")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3])
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    backbone = load_backbone(given.model)
    backbone.model.eval()
    print("| folder, shots | change | top-1, % | difference | log loss | difference |")
    print("|---|---|---|---|---|---|")
    for folder, prompt in given.data:
        for shots in given.shots:
            found = [
                tried(backbone, Path(folder), prompt, shots=shots, left=given.left, seed=seed)
                for seed in given.seeds
            ]
            start = np.array([each["as it is"] for each in found])
            for name in found[0]:
                values = np.array([each[name] for each in found])
                top1, loss = (mean_and_half_width(column) for column in (values - start).T)
                print(
                    f"| {Path(folder).name} {shots} | {name} | {values[:, 0].mean():.1f} "
                    f"| {top1[0]:+.1f} ± {top1[1]:.1f} | {values[:, 1].mean():.3f} "
                    f"| {loss[0]:+.3f} ± {loss[1]:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
