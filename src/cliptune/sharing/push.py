"""A checkpoint put on the hub in one commit, without what was not meant for others."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cliptune.errors import UserError
from cliptune.files import SUMS, user_path
from cliptune.inference.export.licence import base_licence
from cliptune.model.checkpoint import Checkpoint, resolve_checkpoint
from cliptune.model.restore import saved_settings
from cliptune.sharing.card import Told, public_card
from cliptune.sharing.public import CARD, Replaced, copy_public, finish_public, public_base
from cliptune.storage import HubPlace
from cliptune.storage.hub import check_repository, fault_in_words

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Push:
    """What was pushed, or would be: files with their sizes in bytes, and what was replaced in them.

    `url` is where it is on the hub, and `commit` its commit; None where nothing was pushed.
    `needs_base`: who uses it has to say where the base model lies.
    """

    source: Path
    place: HubPlace
    files: tuple[tuple[str, int], ...]
    replaced: tuple[Replaced, ...]
    base_model: str
    needs_base: bool
    url: str | None = None
    commit: str | None = None


def push(
    checkpoint: Path | str,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    licence: str | None = None,
    base_model: str | None = None,
    dry_run: bool = False,
) -> Push:
    """Put `checkpoint`, or the best one of a run, into the model `repository` ("owner/name").

    The repository is made where there is none (`private` counts then alone), and the branch
    `revision`, too. Files of an earlier checkpoint there that this one lacks are taken away in the
    same commit; others stay. `licence` is yours for the checkpoint, and `base_model` what the base
    model is called on the hub, where training had it from a folder. With `dry_run`, nothing is
    asked of the hub.

    Raises `CheckpointError` for a name that is none, for what the hub refuses, and as
    `resolve_checkpoint` does; `UserError` for a file that names a folder of this machine; and
    `HubError` where the hub cannot be reached.
    """
    check_repository(repository)
    if base_model is not None:
        check_repository(base_model, "--base-model: ")
    place = HubPlace(repository, revision)
    found = resolve_checkpoint(user_path(checkpoint))
    made = _made_public(found, place, licence, base_model, ask_hub=not dry_run)
    with made as (folder, told, replaced):
        files = tuple((name, (folder / name).stat().st_size) for name in told.files)
        done = Push(
            source=found.path, place=place, files=files, replaced=tuple(replaced),
            base_model=told.base.name, needs_base=not (told.base.on_hub or told.exported),
        )  # fmt: skip
        if dry_run:
            return done
        words = message or f"Checkpoint {found.path.name} by cliptune"
        url, commit = _upload(folder, told.files, place, private=private, message=words)
    return Push(**done.__dict__ | {"url": url, "commit": commit})


@contextmanager
def _made_public(
    found: Checkpoint,
    place: HubPlace,
    licence: str | None,
    base_model: str | None,
    *,
    ask_hub: bool,
) -> Iterator[tuple[Path, Told, list[Replaced]]]:
    """The folder to upload, open as long as it is needed."""
    base = public_base(found.record.base_model.name, base_model)
    cache = saved_settings(found).model.cache_dir
    with tempfile.TemporaryDirectory(prefix="cliptune-") as temporary:
        folder = Path(temporary)
        replaced = copy_public(found, folder, base)
        files = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        }
        told = Told(
            place=place, base=base, licence=licence, exported=found.exported,
            base_licence=base_licence(
                found, base_model=None, cache_dir=cache, ask_hub=ask_hub
            ),
            files=tuple(sorted(files | {CARD, SUMS})),
        )  # fmt: skip
        card = folder / CARD
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        card.write_text(public_card(text, found.record, told), encoding="utf-8", newline="\n")
        if found.record.base_model.name in text and base.name != found.record.base_model.name:
            replaced.append(Replaced(CARD, "base model", found.record.base_model.name, base.name))
        finish_public(found, folder)
        yield folder, told, replaced


def _upload(
    folder: Path, files: tuple[str, ...], place: HubPlace, *, private: bool, message: str
) -> tuple[str, str]:
    """Commit `files` of `folder` to `place`; where it is on the hub, and the commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    hub = HfApi()
    try:
        url = hub.create_repo(place.repository, private=private, exist_ok=True)
        if place.revision is not None:
            hub.create_branch(place.repository, branch=place.revision, exist_ok=True)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, folder / name) for name in files
        ]
        operations += [CommitOperationDelete(name) for name in _outdated(place, files)]
        done = hub.create_commit(
            place.repository, operations, commit_message=message, revision=place.revision
        )
    except Exception as error:
        raise fault_in_words(error, place) from None
    branch = "" if place.revision is None else f"/tree/{place.revision}"
    return f"{str(url).rstrip('/')}{branch}", done.oid


def _outdated(place: HubPlace, files: tuple[str, ...]) -> list[str]:
    """What the checkpoint that is there now has, and the new one has not."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    there = set(HfApi().list_repo_files(place.repository, revision=place.revision))
    if SUMS not in there:
        return []
    try:
        sums = Path(hf_hub_download(place.repository, SUMS, revision=place.revision))
    except EntryNotFoundError as error:
        raise UserError(f"{place}: {SUMS} went away meanwhile. Push again.") from error
    lines = sums.read_text(encoding="utf-8", errors="replace").split("\n")
    return sorted(({line.partition("  ")[2] for line in lines} & there) - set(files))
