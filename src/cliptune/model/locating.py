"""Where a base model is: a folder here, or a name on the hub at one commit, cached or fetched."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TypedDict

from cliptune.errors import HubError, ModelError, reason
from cliptune.storage import is_address, local_folder

log = logging.getLogger(__name__)


class LoadOptions(TypedDict, total=False):
    """What `from_pretrained` of `transformers` is told of where files are."""

    cache_dir: str | None
    revision: str | None  # the commit on the hub
    local_files_only: bool


def locate(name: str, *, revision: str | None, cache_dir: Path | None) -> tuple[str, LoadOptions]:
    """The name to load, and the options that make `transformers` load precisely that."""
    folder = local_folder(name) if is_address(name) else Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder}: no config.json in this folder. Expected a model in transformers "
                "format: config.json, model.safetensors, tokenizer and preprocessor_config.json."
            )
        if revision is not None:
            raise ModelError(f"{folder} is a local folder and has no revision '{revision}'.")
        return str(folder.resolve()), {"local_files_only": True}
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or folder.exists():
        raise ModelError(
            f"{name}: no such model folder. Expected a folder in transformers format, or a hub "
            "name such as openai/clip-vit-base-patch32. If it was moved, say where it is with "
            "--base-model."
        )
    cache = str(cache_dir) if cache_dir is not None else None
    commit = _resolve_revision(name, revision, cache)
    return name, {"cache_dir": cache, "revision": commit, "local_files_only": commit is None}


def weights_revision(name: str, options: LoadOptions) -> str | None:
    """Where the safetensors are: at the commit itself, or converted by the hub.

    Older models (such as OpenAI's) may hold a pickle only at their commit; transformers then takes
    the hub's own conversion, but only if asked for "main". The fingerprint tells if it changed.
    """
    from huggingface_hub import HfApi

    commit = options.get("revision")
    if commit is None:
        return None
    try:
        files = HfApi().model_info(name, revision=commit, timeout=15).siblings or []
    except Exception:  # offline: what is cached decides
        return commit
    if any(file.rfilename.endswith(".safetensors") for file in files):
        return commit
    log.info("%s: no safetensors at %s; taking the hub's converted copy", name, commit[:12])
    return "main"


def _resolve_revision(name: str, revision: str | None, cache: str | None) -> str | None:
    """The commit of `name` on the hub; None when it cannot be asked but a cached copy is there."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    try:
        return HfApi().model_info(name, revision=revision, timeout=15).sha
    except GatedRepoError:
        raise ModelError(
            f"{name}: this model is gated. Accept its terms on the hub and run 'hf auth login'."
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"{name}: the hub has no revision '{revision}' of it.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(
            f"{name}: neither a folder here nor a model on the hub. Check model.name."
        ) from None
    except Exception as error:  # whichever HTTP library, whichever way a network can fail
        if isinstance(try_to_load_from_cache(name, "config.json", cache, revision), str):
            log.info("%s: the hub cannot be reached; using the copy in %s", name, cache)
            return None
        raise HubError(unreachable(name, error)) from error


def unreachable(name: str, error: Exception) -> str:
    return (
        f"{name}: the hub cannot be reached ({reason(error)}) and no copy is cached here.\n"
        "What you can do:\n"
        "  a local folder:  set model.name to a folder with the model in transformers format\n"
        "  a mirror:        set the environment variable HF_ENDPOINT, "
        "for example https://hf-mirror.com\n"
        "  no model at all: run 'cliptune demo', which brings its own"
    )
