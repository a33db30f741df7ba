"""Checkpoints on the hub: `hf:owner/name`, or `hf:owner/name@revision`, by huggingface_hub.

They are kept where that library keeps what it fetches, at one commit each. What is at `hf://…` is
read by the file system of that protocol instead (`cliptune.storage.addresses`).
"""

from __future__ import annotations

import glob
import logging
import os
import re
from pathlib import Path
from typing import NamedTuple

from cliptune.errors import CheckpointError, CliptuneError, HubError, reason
from cliptune.files import SUMS, check_sums, stays_inside, whole_file

log = logging.getLogger(__name__)

CARD = "README.md"
LOGIN = "Log in with 'hf auth login', or set HF_TOKEN to a token that may do this."
_PREFIX = re.compile(r"hf:(?!/)")
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_WANTED_S = 15  # within which the hub has to answer


class HubPlace(NamedTuple):
    """A repository on the hub, and a branch, tag or commit of it (None: its main branch)."""

    repository: str
    revision: str | None

    def __str__(self) -> str:
        return f"hf:{self.repository}{'' if self.revision is None else f'@{self.revision}'}"


def hub_place(given: Path | str) -> HubPlace | None:
    """What `given` names on the hub; None for paths and addresses, and for what is here so called.

    Raises `CheckpointError` for `hf:` with no owner/name behind it.
    """
    text = given.as_posix() if isinstance(given, Path) else given
    if not _PREFIX.match(text) or os.path.lexists(text):
        return None
    repository, at, revision = text.removeprefix("hf:").partition("@")
    check_repository(repository, f"{text}: ", like="hf:owner/name or hf:owner/name@revision")
    if at and not revision:
        raise CheckpointError(f"{text}: nothing behind the @. Expected a branch, tag or commit.")
    return HubPlace(repository, revision or None)


def check_repository(repository: str, where: str = "", *, like: str = "owner/name") -> None:
    """Raise `CheckpointError` where `repository` cannot be the owner/name of one on the hub."""
    strange = "--" in repository or ".." in repository or repository.endswith(".git")
    if strange or not _REPOSITORY.fullmatch(repository) or len(repository) > 96:
        raise CheckpointError(
            f"{where}'{repository}' is no name of a repository on the hub. Expected {like}: "
            "letters, digits, -, _ and . with one slash."
        )


def kept_from_hub(place: HubPlace) -> Path:
    """The folder here with the checkpoint at `place`, fetched where its commit is not kept yet.

    Only the files that its SHA256SUMS names and its card are fetched, and their sums checked.
    Where the hub is away, the copy that was fetched last counts. Raises `CheckpointError` where
    there is no checkpoint, and `HubError`.
    """
    from huggingface_hub import HfApi

    pinned = place.revision is not None and re.fullmatch(r"[0-9a-f]{40}", place.revision)
    if pinned and (folder := _whole(place)):
        return folder
    try:
        commit = HfApi().model_info(
            place.repository, revision=place.revision, timeout=_WANTED_S
        ).sha  # fmt: skip
    except Exception as error:
        fault = fault_in_words(error, place)
        if not isinstance(fault, HubError):
            raise fault from None
        if folder := _whole(place):
            log.info("%s: the hub cannot be reached; using the copy in %s", place, folder)
            return folder
        raise HubError(f"{fault} No copy of it is kept here.") from error
    folder = _whole(HubPlace(place.repository, commit)) or _fetch(place, commit)
    _remember(place, folder)
    return folder


def _fetch(place: HubPlace, commit: str | None) -> Path:
    """The folder with the checkpoint as it is on the hub at `commit`."""
    from huggingface_hub import snapshot_download

    damaged = _cached(HubPlace(place.repository, commit)) is not None  # or broken off: then again
    try:
        names = _names_in(_sums_at(place, commit), place)
        snapshot = snapshot_download(
            place.repository, revision=commit, force_download=damaged,
            allow_patterns=[glob.escape(name) for name in [*names, SUMS, CARD]],
        )  # fmt: skip
    except Exception as error:
        raise fault_in_words(error, place) from None
    log.info("%s: fetched at %s into %s", place, str(commit)[:12], snapshot)
    return Path(snapshot)


def _whole(place: HubPlace) -> Path | None:
    """The folder of `place` that is kept here, where all of it is there as its sums say."""
    folder = _cached(place)
    return None if folder is None or check_sums(folder, may_lack="resume") else folder


def _sums_at(place: HubPlace, commit: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(place.repository, SUMS, revision=commit))
    except EntryNotFoundError:
        raise CheckpointError(
            f"{place}: no {SUMS} there, by which a checkpoint is known to be whole. Expected a "
            "checkpoint as 'cliptune push' puts it there."
        ) from None


def _names_in(sums: Path, place: HubPlace) -> list[str]:
    """The files that `sums` names, but for what only training needs."""
    text = sums.read_text(encoding="utf-8", errors="replace")
    names = [line.partition("  ")[2] for line in text.split("\n") if line]
    if strange := [name for name in names if not stays_inside(name)]:
        raise CheckpointError(f"{place}: {SUMS} names '{strange[0]}', which is no file of a folder")
    return [name for name in names if not name.startswith("resume/")]


def _cached(place: HubPlace) -> Path | None:
    """The folder of `place` in the hub's own cache, whole or not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(place.repository, SUMS, revision=place.revision)
    return Path(found).parent if isinstance(found, str) else None


def _remember(place: HubPlace, folder: Path) -> None:
    """Let the cache know at which commit a branch or tag was, for when the hub is away."""
    name = place.revision or "main"
    if name != folder.name and stays_inside(name):
        known = folder.parents[1] / "refs" / name
        known.parent.mkdir(parents=True, exist_ok=True)
        if not known.is_file() or known.read_text(encoding="utf-8") != folder.name:
            with whole_file(known) as partial:
                partial.write_text(folder.name, encoding="utf-8", newline="\n")


def fault_in_words(error: Exception, place: HubPlace) -> CliptuneError:
    """What the hub or huggingface_hub complained of, as an error of ours to raise.

    A `HubError` where the hub may be reached another time.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, CliptuneError):
        return error
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return CheckpointError(f"{place}: it is gated. Accept its terms on the hub. {LOGIN}")
    if isinstance(error, RevisionNotFoundError):
        return CheckpointError(
            f"{place}: the hub has no branch, tag or commit '{place.revision or 'main'}' of it."
        )
    if isinstance(error, RepositoryNotFoundError):
        return CheckpointError(
            f"{place}: no such model on the hub, or it is private. Check the name. {LOGIN}"
        )
    if status in (401, 403):
        return CheckpointError(f"{place}: the hub refused ({status}). {LOGIN}")
    if status is not None and status < 500 and status != 429:
        return CheckpointError(f"{place}: the hub refused: {reason(error)}")
    return HubError(
        f"{place}: the hub at {constants.ENDPOINT} cannot be reached ({reason(error)}). Try again, "
        "or name a mirror in the environment variable HF_ENDPOINT."
    )
