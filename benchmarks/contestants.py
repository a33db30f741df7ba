"""What is timed: each contestant in a process of its own, one repetition for each line on stdin.

`python benchmarks/contestants.py NAME WORK_DIR [KEY=VALUE ...]` builds contestant NAME, prints
"ready", then for every line read does the work once and prints `{"seconds": s, "items": n}`. At
the end of stdin it prints its peak memory. `bench.py` runs several in turns.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# One repetition; returns how many items (photos) it worked on.
Repetition = Callable[[], int]
TARGETS = ["q_proj", "v_proj"]


class Work:
    """The inputs every contestant shares. Sizes are the defaults of the benchmark."""

    def __init__(self, folder: Path, options: dict[str, str]) -> None:
        import torch

        self.folder = folder
        self.model = folder / "model"
        self.device = torch.device(options.get("device", "cpu"))
        self.batch = int(options.get("batch", 32))
        self.classes = int(options.get("classes", 10))
        self.rank = int(options.get("rank", 8))
        self.resolution = int(options.get("resolution", 224))
        self.last_layers = int(options["last_layers"]) if "last_layers" in options else None
        self.patch_dropout = float(options.get("patch_dropout", 0))
        self.photos = int(options["photos"]) if "photos" in options else None
        self.epochs = int(options.get("epochs", 10))
        self.towers = options.get("towers", "vision")
        self.precision = options.get("precision", "float32")
        self.cuda_graphs = options.get("cuda_graphs", "true") == "true"
        self.workers = int(options.get("workers", os.cpu_count() or 1))
        torch.manual_seed(0)

    @property
    def pixels(self) -> Any:
        """uint8 (B, 3, H, W) and labels (B,)."""
        import torch

        size = (self.batch, 3, self.resolution, self.resolution)
        pixels = torch.randint(0, 256, size, dtype=torch.uint8)
        return pixels.to(self.device), torch.randint(0, self.classes, (self.batch,)).to(self.device)

    @property
    def names(self) -> list[str]:
        return [f"class number {i}" for i in range(self.classes)]

    def autocast(self) -> Any:
        import torch

        dtype = getattr(torch, self.precision)
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "float32")

    def wait(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()


def ours(work: Work) -> Repetition:
    """One training step as `cliptune train` does it."""
    import torch

    from cliptune.cli import keep_freed_memory
    from cliptune.model.backbone import load_backbone
    from cliptune.model.classifier import Classifier, TextHead
    from cliptune.model.dropout import PhotoKeys
    from cliptune.model.fast.encoder import fuse
    from cliptune.model.image_tokens import drop_patches
    from cliptune.model.lora import add_adapters
    from cliptune.model.prompts import prompts_for, zero_shot_weights
    from cliptune.training.optim import make_optimizer

    keep_freed_memory()
    backbone = load_backbone(str(work.model), image_size=work.resolution)
    prompts = ["a photo of a {}."]
    head = TextHead(zero_shot_weights(backbone, work.names, prompts), backbone.model.logit_scale)
    tokens = (
        None if work.towers == "vision" else backbone.tokenize(prompts_for(work.names, prompts))
    )
    options: dict[str, Any] = {"r": work.rank, "alpha": 32, "dropout": 0.1, "towers": work.towers}
    options["last_layers"] = work.last_layers
    keys = PhotoKeys()
    model = add_adapters(backbone.model, target_modules=TARGETS, keys=keys, **options)
    if work.patch_dropout:
        drop_patches(model, work.patch_dropout, keys=keys)
    classifier = Classifier(model, head, backbone.preprocess, prompt_tokens=tokens)
    classifier = classifier.to(work.device).train()
    fuse(model)
    if work.device.type == "cuda" and work.cuda_graphs:
        from cliptune.model.fast.encoder import record  # not in checkouts of before

        record(model, keys)
    optimizer = make_optimizer(classifier, learning_rate=1e-4, weight_decay=0.01)
    pixels, labels = work.pixels
    places, views = torch.arange(work.batch), itertools.count()

    def logits() -> Any:
        view = next(views)
        with keys.drawing_for(places, view=view, update=view, device=work.device):
            return classifier(pixels)

    return _step(work, logits, labels, optimizer)


def peft_loop(work: Work) -> Repetition:
    """A plain loop over a PEFT model, as tutorials write it; prompts padded to the full length."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(work.model)
    targets = r".*\.(q_proj|v_proj)"
    if work.towers == "vision":
        targets = r"vision_model\..*\.(q_proj|v_proj)"
    config = LoraConfig(r=work.rank, lora_alpha=32, lora_dropout=0.1, target_modules=targets)
    model = get_peft_model(model, config).to(work.device).train()
    head = torch.nn.Linear(model.config.projection_dim, work.classes).to(work.device)
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    tokens = tokenizer(
        [f"a photo of a {name}." for name in work.names],
        padding="max_length", max_length=77, return_tensors="pt",
    ).to(work.device)  # fmt: skip
    trained = [p for p in [*model.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    pixels, labels = work.pixels
    pixels = pixels.float() / 255

    def logits() -> Any:
        image = model.get_image_features(pixel_values=pixels).pooler_output
        if work.towers == "vision":
            return head(image)
        inputs = {key: tokens[key] for key in ("input_ids", "attention_mask")}
        text = model.get_text_features(**inputs).pooler_output
        normalize = torch.nn.functional.normalize
        return 100 * normalize(image, dim=-1) @ normalize(text, dim=-1).T

    return _step(work, logits, labels, optimizer)


def hf_trainer(work: Work) -> Repetition:
    """Hugging Face's Trainer over a PEFT model: two steps, its own bookkeeping included."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import CLIPModel, Trainer, TrainingArguments

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = LoraConfig(
                r=work.rank, lora_alpha=32, lora_dropout=0.1,
                target_modules=r"vision_model\..*\.(q_proj|v_proj)",
            )  # fmt: skip
            self.model = get_peft_model(CLIPModel.from_pretrained(work.model), config)
            self.head = torch.nn.Linear(self.model.config.projection_dim, work.classes)

        def forward(self, pixels: Any, labels: Any) -> dict[str, Any]:
            logits = self.head(self.model.get_image_features(pixel_values=pixels).pooler_output)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    steps = 2
    pixels = torch.rand(work.batch * steps, 3, work.resolution, work.resolution)
    photos = [{"pixels": p, "labels": i % work.classes} for i, p in enumerate(pixels)]
    arguments = TrainingArguments(
        output_dir=str(work.folder / "trainer"), max_steps=steps, logging_strategy="no",
        per_device_train_batch_size=work.batch, save_strategy="no", report_to=[],
        bf16=work.precision == "bfloat16", use_cpu=work.device.type == "cpu",
        remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    net = Net()

    def repeat() -> int:
        Trainer(model=net, args=arguments, train_dataset=photos).train()
        return work.batch * steps

    return repeat


def products(work: Work) -> Repetition:
    """The matrix products of one step alone: forward, and the gradients of their inputs.

    Those of the exact step: in the last layer one token past the keys and values; nothing below
    the first adapter.
    """
    import torch
    from transformers import CLIPConfig

    config = CLIPConfig.from_pretrained(work.model).vision_config
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    patches = (work.resolution // config.patch_size) ** 2
    rows, few = work.batch * (patches + 1), work.batch
    dtype = getattr(torch, work.precision)

    def matrix(*shape: int) -> Any:
        return torch.randn(*shape, device=work.device, dtype=dtype)

    x = {size: matrix(rows, size) for size in (width, 2 * width, 3 * width, inner)}
    w = {
        (a, b): matrix(b, a)
        for a, b in ((width, 3 * width), (width, 2 * width), (width, width), (width, inner))
    } | {(inner, width): matrix(width, inner)}
    patch = matrix(work.batch * patches, 3 * config.patch_size**2)
    patch_weight = matrix(3 * config.patch_size**2, width)

    def both(count: int, size_in: int, size_out: int, *, back: bool = True) -> None:
        weight = w[size_in, size_out]
        x[size_in][:count] @ weight.t()
        if back:
            x[size_out][:count] @ weight

    @torch.no_grad()
    def repeat() -> int:
        patch @ patch_weight
        for layer in range(layers):
            last = layer == layers - 1
            count = few if last else rows
            if last:
                both(rows, width, 2 * width)
                both(few, width, width)
            else:
                both(rows, width, 3 * width, back=layer > 0)
            both(count, width, width)
            both(count, width, inner)
            both(count, inner, width)
        work.wait()
        return work.batch

    return repeat


def ceiling(work: Work) -> Repetition:
    """One large square product: the rate of products that the machine reaches at its best."""
    import torch

    size = 8192 if work.device.type == "cuda" else 2048
    dtype = getattr(torch, work.precision)
    a, b = (torch.randn(size, size, device=work.device, dtype=dtype) for _ in range(2))

    def repeat() -> int:
        a @ b
        work.wait()
        return 2 * size**3  # floating-point operations

    return repeat


def our_training(work: Work) -> Repetition:
    """`cliptune train` from its start to its last checkpoint, in a process of its own."""
    import subprocess
    import tempfile

    def repeat() -> int:
        with tempfile.TemporaryDirectory(dir=work.folder) as output:
            settings = [
                f"model.name={work.model}", f"output.log_dir={output}/logs",
                f"training.num_epochs={work.epochs}", "training.early_stopping.enabled=false",
                f"training.batch_size={work.batch}", f"hardware.device={work.device.type}",
                f"hardware.cuda_graphs={str(work.cuda_graphs).lower()}",
                f"data.num_workers={work.workers}", f"data.cache_dir={work.folder}/cache",
            ]  # fmt: skip
            if work.last_layers:
                settings += [
                    f"lora.last_layers={work.last_layers}", "data.augmentation.views=2",
                    "training.cache_activations=true",
                ]  # fmt: skip
            subprocess.run(
                [sys.executable, "-m", "cliptune", "train", "--data-dir", work.folder / "training",
                 "--output-dir", f"{output}/run", *(x for s in settings for x in ("--set", s))],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        return work.epochs * len(list((work.folder / "training" / "train").rglob("*.jpg")))

    return repeat


def our_prediction(work: Work) -> Repetition:
    """`Predictor` over a folder of photos."""
    from cliptune import Predictor
    from cliptune.cli import keep_freed_memory

    keep_freed_memory()
    predictor = Predictor(work.folder / "run", device=work.device.type, batch_size=work.batch)
    paths = sorted((work.folder / "photos").rglob("*.jpg"))
    return lambda: sum(1 for _ in predictor.stream(paths))


def decoding(work: Work) -> Repetition:
    """What `Predictor` does before its forwards, alone: decoding and resizing, in its threads."""
    from cliptune import Predictor

    predictor = Predictor(work.folder / "run", device=work.device.type, batch_size=work.batch)
    paths = sorted((work.folder / "photos").rglob("*.jpg"))
    return lambda: sum(1 for _ in predictor.reader.ahead(paths, most=2 * work.batch))


def forwards(work: Work) -> Repetition:
    """The forwards of `Predictor` over as many photos, alone."""
    from cliptune import Predictor
    from cliptune.cli import keep_freed_memory

    keep_freed_memory()
    predictor = Predictor(work.folder / "run", device=work.device.type, batch_size=work.batch)
    count = len(list((work.folder / "photos").rglob("*.jpg")))
    pixels = list(work.pixels[0].cpu().numpy())

    def repeat() -> int:
        for start in range(0, count, work.batch):
            predictor.engine.answer(pixels[: count - start])
        return count

    return repeat


def pipeline(work: Work) -> Repetition:
    """`transformers`' zero-shot image pipeline over the same folder."""
    import torch
    from transformers import pipeline as make_pipeline

    paths = [str(path) for path in sorted((work.folder / "photos").rglob("*.jpg"))]
    classify = make_pipeline(
        "zero-shot-image-classification", model=str(work.model), device=work.device,
        dtype=getattr(torch, work.precision),
    )  # fmt: skip
    return lambda: len(list(classify(paths, candidate_labels=work.names, batch_size=work.batch)))


def our_loader(work: Work) -> Repetition:
    """An epoch of training photos, decoded in an epoch before."""
    from cliptune.data.augment import Augmentation
    from cliptune.data.decoded import MIB
    from cliptune.data.loading import EpochBatches, PhotoDataset, make_loader

    samples, preprocess = _samples(work)
    data = PhotoDataset(samples, preprocess, augmentation=Augmentation())
    data.keep_decoded(work.folder / "cache", limit_bytes=8192 * MIB, progress=False)
    batches = EpochBatches(len(samples), batch_size=work.batch, seed=0)
    loader = make_loader(data, batches=batches, num_workers=work.workers)
    return lambda: sum(len(batch) for batch in loader)


def processor_loader(work: Work) -> Repetition:
    """PIL and `CLIPImageProcessor` in a DataLoader, without any augmentation."""
    from PIL import Image
    from torch.utils.data import DataLoader
    from transformers import AutoImageProcessor

    samples, _ = _samples(work)
    processor = AutoImageProcessor.from_pretrained(work.model, backend="pil")

    class Photos:
        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, index: int) -> Any:
            image = Image.open(samples[index].path).convert("RGB")
            return processor(images=image, return_tensors="pt")["pixel_values"][0], 0

    options: dict[str, Any] = {"num_workers": work.workers, "persistent_workers": work.workers > 0}
    loader: Any = DataLoader(Photos(), batch_size=work.batch, shuffle=True, **options)
    return lambda: sum(len(labels) for _, labels in loader)


def _samples(work: Work) -> Any:
    from transformers import AutoImageProcessor

    from cliptune.data.folder import Sample
    from cliptune.data.images import Preprocess

    processor = AutoImageProcessor.from_pretrained(work.model, backend="pil")
    paths = sorted((work.folder / "photos").rglob("*.jpg"))[: work.photos]
    return [Sample(path, 0) for path in paths], Preprocess.from_processor(processor)


def _step(work: Work, logits: Callable[[], Any], labels: Any, optimizer: Any) -> Repetition:
    import torch

    def repeat() -> int:
        with work.autocast():
            result = logits()
        torch.nn.functional.cross_entropy(result.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        work.wait()
        return work.batch

    return repeat


CONTESTANTS: dict[str, Callable[[Work], Repetition]] = {
    "ours": ours,
    "peft_loop": peft_loop,
    "hf_trainer": hf_trainer,
    "products": products,
    "ceiling": ceiling,
    "our_training": our_training,
    "our_prediction": our_prediction,
    "pipeline": pipeline,
    "decoding": decoding,
    "forwards": forwards,
    "our_loader": our_loader,
    "processor_loader": processor_loader,
}


def main() -> None:
    name, folder, *options = sys.argv[1:]
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    work = Work(Path(folder), dict(option.split("=", 1) for option in options))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print stays out of the answers
    repeat = CONTESTANTS[name](work)
    if name != "our_training":  # a whole run, as its user meets it
        repeat()  # warm-up
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        items = repeat()
        answer = {"seconds": time.perf_counter() - started, "items": items}
        print(json.dumps(answer), file=answers, flush=True)
    from cliptune.training.reporting import peak_memory

    print(json.dumps({"peak_bytes": peak_memory(work.device)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
