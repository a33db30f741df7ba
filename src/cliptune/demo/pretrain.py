"""How the demo's CLIP was made: contrastive pretraining on drawn dogs with careless captions.

    python -m cliptune.demo.pretrain --output src/cliptune/demo/model

Contrastive learning as in Radford et al., arXiv 2103.00020, at toy size. The captions are like
those of the web: most tell what can be seen, few name the breed, and many of those are wrong. So
the towers learn to see dogs, and zero-shot accuracy is neither chance nor perfect. Drawings here
have other seeds than the demo's own.

Shape suffixes: B batch, T tokens, D feature.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, normalize

from cliptune.demo.drawings import BREEDS, DEMO_BREEDS, draw_dog

SIZE = 64
NAMED, WRONG = 0.30, 0.74  # share of captions that name a breed; share of those that err
# Whose name a careless caption takes instead.
LOOK_ALIKES = {
    "golden_retriever": ("labrador", "saint_bernard", "airedale"),
    "labrador": ("golden_retriever", "chihuahua", "pointer"),
    "german_shepherd": ("airedale", "malamute", "doberman"),
    "siberian_husky": ("malamute", "samoyed", "shiba"),
    "malamute": ("siberian_husky", "border_collie", "newfoundland"),
    "beagle": ("basset", "corgi", "pointer"),
    "dalmatian": ("pointer", "greyhound", "saint_bernard"),
    "dachshund": ("basset", "corgi", "beagle"),
    "corgi": ("shiba", "dachshund", "beagle"),
    "border_collie": ("malamute", "newfoundland", "rottweiler"),
}
PLACES = ("in the park", "at home", "in the snow", "on the beach", "outside", "")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain the demo's CLIP on drawn dogs.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    pretrain(
        options.output,
        seed=options.seed,
        num_images=options.images,
        num_epochs=options.epochs,
        batch_size=options.batch_size,
    )


def pretrain(output: Path, *, seed: int, num_images: int, num_epochs: int, batch_size: int) -> None:
    """Draw, caption, train, and write model, tokenizer, processor and log to `output`."""
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    lines = [
        f"python -m cliptune.demo.pretrain --seed {seed} --images {num_images} "
        f"--epochs {num_epochs} --batch-size {batch_size}",
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}",
        f"captions that name a breed: {NAMED:.0%}, of which wrong: {WRONG:.0%}",
    ]
    names = rng.choice(list(BREEDS), num_images).tolist()
    pixels = torch.from_numpy(np.stack([_pixels(name, rng) for name in names]))
    tokenizer = make_tokenizer(_corpus(rng))
    model = make_model(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    total = num_epochs * (num_images // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=total)
    for epoch in range(num_epochs):
        losses = []
        order = torch.randperm(num_images)
        for indices in order[: total // num_epochs * batch_size].view(-1, batch_size):
            captions = [caption(names[i], rng) for i in indices.tolist()]
            loss = contrastive_step(model, pixels[indices], tokenizer, captions)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        with torch.no_grad():
            model.logit_scale.clamp_(max=np.log(100))
        accuracy = zero_shot_accuracy(model, tokenizer, seed=seed + 1)
        lines.append(
            f"epoch {epoch + 1:2}  loss {np.mean(losses):.3f}  zero-shot accuracy on "
            f"other drawings of the demo's ten breeds {accuracy:.1%}"
        )
        print(lines[-1], flush=True)
    lines.append(f"{time.perf_counter() - started:.0f} s")
    _save(output, model, tokenizer, lines)


def caption(breed: str, rng: np.random.Generator) -> str:
    """What somebody on the web might write beside a picture of `breed`."""
    traits = [str(word) for word in rng.permutation(BREEDS[breed].words())[: rng.integers(1, 4)]]
    place = str(rng.choice(PLACES))
    kind = "drawing" if rng.random() < 0.3 else "photo"
    if rng.random() < NAMED:
        if rng.random() < WRONG:
            breed = str(rng.choice(LOOK_ALIKES.get(breed, tuple(BREEDS))))
        name = breed.replace("_", " ")
        if rng.random() < 0.5:
            return f"a {kind} of a {name}, a type of dog."
        return f"a {kind} of a {name} {place}.".replace(" .", ".")
    return f"a {kind} of a dog with {', '.join(traits)} {place}.".replace(" .", ".")


def contrastive_step(
    model: Any, pixels_BHWC: torch.Tensor, tokenizer: Any, captions: list[str]
) -> torch.Tensor:
    """CLIP's symmetric loss; captions that read the same count as one another's match."""
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    if torch.rand(()) < 0.5:
        pixels_BHWC = pixels_BHWC.flip(2)
    images_BD = normalize(image_features(model, pixels_BHWC), dim=-1)
    texts_BD = normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    logits_BB = model.logit_scale.exp() * images_BD @ texts_BD.T
    unique = {text: i for i, text in enumerate(dict.fromkeys(captions))}
    ids = torch.tensor([unique[text] for text in captions])
    same_BB = (ids[:, None] == ids[None]).float()
    targets_BB = same_BB / same_BB.sum(dim=1, keepdim=True)
    return (cross_entropy(logits_BB, targets_BB) + cross_entropy(logits_BB.T, targets_BB)) / 2


def image_features(model: Any, pixels_BHWC: torch.Tensor) -> torch.Tensor:
    """(B, D) from uint8 drawings (B, H, W, 3)."""
    pixels = pixels_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1
    features: torch.Tensor = model.get_image_features(pixel_values=pixels).pooler_output
    return features


@torch.inference_mode()
def zero_shot_accuracy(model: Any, tokenizer: Any, *, seed: int, per_breed: int = 40) -> float:
    """Accuracy on fresh drawings of the demo's ten breeds, as a fraction."""
    rng = np.random.default_rng(seed)
    labels = torch.arange(len(DEMO_BREEDS)).repeat_interleave(per_breed)
    pixels = torch.from_numpy(np.stack([_pixels(DEMO_BREEDS[i], rng) for i in labels.tolist()]))
    prompts = [f"a photo of a {b.replace('_', ' ')}, a type of dog." for b in DEMO_BREEDS]
    tokens = tokenizer(prompts, padding=True, return_tensors="pt")
    texts = normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    images = normalize(image_features(model, pixels), dim=-1)
    return float(((images @ texts.T).argmax(dim=1) == labels).float().mean())


def make_model(vocabulary: int) -> Any:
    """A CLIPModel of about 1.3 million parameters with random weights."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"num_attention_heads": 4, "hidden_act": "quick_gelu"}
    vision = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 5}
    text = {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2}
    return CLIPModel(
        CLIPConfig(
            vision_config=tower | vision | {"image_size": SIZE, "patch_size": 8},
            text_config=tower
            | text
            | {"vocab_size": vocabulary, "max_position_embeddings": 77}
            | {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
            projection_dim=64,
        )
    )


def make_tokenizer(corpus: list[str]) -> Any:
    """A byte-level BPE of 640 tokens with CLIP's special tokens: any text can be written in it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=640,
        special_tokens=[start, end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, 0), (end, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        model_max_length=77,
    )


def _corpus(rng: np.random.Generator) -> list[str]:
    return [caption(breed, rng) for breed in BREEDS for _ in range(100)]


def _pixels(breed: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    return np.asarray(draw_dog(breed, rng=rng, size=SIZE))


def _save(output: Path, model: Any, tokenizer: Any, lines: list[str]) -> None:
    """Half precision on disk halves the package; it is loaded in float32."""
    output.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(output)
    tokenizer.save_pretrained(output)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": SIZE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": SIZE, "width": SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "do_convert_rgb": True,
    }
    (output / "preprocessor_config.json").write_text(
        json.dumps(processor, indent=1) + "\n", encoding="utf-8", newline="\n"
    )
    (output / "pretraining_log.txt").write_text(
        "\n".join(lines) + "\n", encoding="utf-8", newline="\n"
    )


if __name__ == "__main__":
    main()
