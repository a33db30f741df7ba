"""The errors cliptune raises on purpose.

Each carries one message that says where, what was found, what was expected and what to do.

    CliptuneError            exit code 1: something failed
    ├── HubError             a model or an archive could not be fetched
    ├── StorageError         what is at an address could not be read or written
    ├── TrainingError        training cannot go on (a loss that is not finite)
    ├── ResourceError        memory or disk ran out
    ├── Interrupted          a run was stopped on request and saved (exit code 75: go on later)
    ├── AlreadyTold          another process of the same run told what ended it
    └── UserError            exit code 2: the caller can mend it
        ├── SettingsError    a configuration file or an override
        ├── DataError        a folder of photos
        │   └── ImageError   one or more images that cannot be read
        ├── ModelError       a model, or the layers asked of it
        ├── CheckpointError  a checkpoint that is missing, damaged or does not fit
        ├── DeviceError      a device that is not there
        └── MissingExtra     an optional dependency that is not installed
"""

from __future__ import annotations

from collections.abc import Sequence


class CliptuneError(Exception):
    """Something failed that is not the caller's mistake."""

    exit_code = 1


class HubError(CliptuneError):
    """A model or an archive could not be fetched."""


class StorageError(CliptuneError):
    """What is at an address could not be read or written, after the attempts that were made.

    `why` is the message without the address. `missing`: nothing is there.
    """

    def __init__(self, address: str, why: str, *, missing: bool = False) -> None:
        super().__init__(f"{address}: {why}")
        self.why, self.missing = why, missing


class TrainingError(CliptuneError):
    """Training cannot go on."""


class ResourceError(CliptuneError):
    """Memory or disk space ran out."""


class Interrupted(CliptuneError):
    """A run was stopped on request; what it had reached was saved, and --resume goes on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: not an end, try again


class AlreadyTold(CliptuneError):
    """Another process of the same run told what ended all of them: `message`, with `exit_code`."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UserError(CliptuneError):
    """The caller's mistake, which the caller can mend."""

    exit_code = 2


class SettingsError(UserError):
    """Settings that are unknown, of the wrong type, out of range or contradictory."""


class DataError(UserError):
    """A folder of photos that cannot be used as it is."""


class ImageError(DataError):
    """One or more images that cannot be read."""


class ModelError(UserError):
    """A model that cannot be used, or layers it does not have."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or does not fit."""


class DeviceError(UserError):
    """A device that is not there."""


class MissingExtra(UserError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'cliptune[{extra}]'"
        )


def listing(lines: list[str], *, limit: int = 20) -> str:
    """`lines` indented under one another, cut after `limit` with a count of the rest."""
    shown = [f"  {line}" for line in lines[:limit]]
    if len(lines) > limit:
        shown.append(f"  … and {len(lines) - limit} more")
    return "\n".join(shown)


def named(names: Sequence[str], *, limit: int = 12) -> str:
    """`names` with commas between them, cut after `limit` with their number."""
    shown = ", ".join(names[:limit])
    return f"{shown}, … ({len(names)} in all)" if len(names) > limit else shown


def reason(error: BaseException, *, limit: int = 400) -> str:
    """What a foreign `error` says, in one line of whole sentences: about `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) <= limit:
        return text
    end = text.rfind(". ", 0, limit)
    return text[: end + 1] if end > 0 else f"{text[:limit]} …"


def together(where: object, faults: Sequence[str], *, limit: int = 20) -> str:
    """A single fault as it is, or all `faults` of `where` under one another."""
    if len(faults) == 1:
        return f"{faults[0]}."
    return f"{where}: {len(faults)} faults:\n{listing(list(faults), limit=limit)}"
