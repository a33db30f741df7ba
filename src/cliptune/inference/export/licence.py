"""Under which licence a base model stands: what the card beside its weights says."""

from __future__ import annotations

from pathlib import Path

import yaml

from cliptune.model.checkpoint import Checkpoint
from cliptune.model.restore import base_location

CARD = "README.md"


def base_licence(
    checkpoint: Checkpoint,
    *,
    base_model: str | None,
    cache_dir: Path | None,
    ask_hub: bool = True,
) -> str | None:
    """The licence of the base model's card, in its folder or on the hub; None where none is told.

    Nothing fails for a card that is missing or cannot be reached: the weights are what is exported.
    Without `ask_hub`, what is cached of the hub counts.
    """
    name, revision = base_location(checkpoint, base_model)
    folder = Path(name).expanduser()
    path = (
        folder / CARD
        if folder.is_dir()
        else _of_the_hub(name, revision, cache_dir, cached_only=not ask_hub)
    )
    if path is None or not path.is_file():
        return None
    return card_licence(path.read_text(encoding="utf-8", errors="replace"))


def card_licence(text: str) -> str | None:
    """The licence in the front matter of a model card; the name of one that is called "other"."""
    head, found, _ = text.removeprefix("---\n").partition("\n---")
    if not (text.startswith("---\n") and found):
        return None
    try:
        card = yaml.safe_load(head)
    except yaml.YAMLError:
        return None
    card = card if isinstance(card, dict) else {}
    told = [card.get(key) for key in ("license_name", "license")]
    names = told if card.get("license") == "other" else told[1:]
    return next((name for name in names if isinstance(name, str) and name), None)


def _of_the_hub(
    name: str, revision: str | None, cache_dir: Path | None, *, cached_only: bool
) -> Path | None:
    from huggingface_hub import hf_hub_download

    try:
        return Path(
            hf_hub_download(
                name, CARD, revision=revision, cache_dir=cache_dir, local_files_only=cached_only
            )
        )
    except Exception:  # offline, or a repository without a card
        return None
