"""What is searched: one line for each setting, and settings from what was drawn."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cliptune.config import Settings
from cliptune.language import marked
from cliptune.training.resume import flat_settings


@dataclass(frozen=True)
class Searched:
    """A setting and the range it is drawn from, widened so that it holds the setting's default.

    Of a pair the first number is drawn. A setting whose default is a whole number stays one.
    """

    key: str
    title: str  # of a column: at most 7 wide
    low: float
    high: float
    of_default: bool = False  # `low` and `high` are multiples of the default
    log: bool = False  # drawn evenly by order of magnitude
    needs: str = ""  # a setting without which this one does nothing


_AUGMENTATION = "data.augmentation.enabled"
SPACE = (
    Searched("lora.r", marked("rank"), 2, 64, log=True),
    Searched("training.learning_rate", marked("rate"), 2e-5, 5e-3, log=True),
    Searched("training.num_epochs", marked("epochs"), 0.5, 2, of_default=True, log=True),
    Searched("training.min_updates", marked("updates"), 0.33, 3, of_default=True, log=True),
    Searched("training.weight_decay", marked("decay"), 1e-4, 1.0, log=True),
    Searched("data.augmentation.crop_scale", marked("crop"), 0.3, 1.0, needs=_AUGMENTATION),
    Searched("data.augmentation.color", marked("color"), 0.0, 0.4, needs=_AUGMENTATION),
)


@dataclass(frozen=True)
class Range:
    """What one setting is drawn from, both ends among it."""

    default: float
    low: float
    high: float
    log: bool
    whole: bool


def ranges(settings: Settings, *, fixed: Collection[str] = ()) -> dict[str, Range]:
    """The range of each setting that is searched around `settings`, by key.

    Left out are the keys of `fixed`, settings that are no number, and those that are 0 where
    orders of magnitude are searched: what is off stays off.
    """
    values: dict[str, Any] = flat_settings(settings.to_dict())
    found = {}
    for each in SPACE:
        default: Any = values.get(each.key)
        high = each.high
        if isinstance(default, list):  # a pair, whose first number may not pass its second
            default, high = default[0], min(high, default[1])
        known = isinstance(default, int | float) and not isinstance(default, bool)
        if each.key in fixed or not known or (each.needs and not values[each.needs]):
            continue
        if each.log and not default:
            continue
        times = default if each.of_default else 1
        low, high = min(each.low * times, default), max(high * times, default)
        whole = isinstance(default, int)
        if whole:
            low, high = max(1, round(low)), round(high)
        found[each.key] = Range(default, low, high, each.log, whole)
    return found


def title_of(key: str) -> str:
    """What stands above the column of the setting `key`."""
    return next(each.title for each in SPACE if each.key == key)


def drawn_settings(settings: Settings, drawn: Mapping[str, float]) -> Settings:
    """`settings` with the numbers `drawn`, of three digits; alpha keeps its ratio to the rank."""
    values: dict[str, Any] = settings.to_dict()
    for key, number in drawn.items():
        section, name = _section(values, key)
        number = number if isinstance(number, int) else float(f"{number:.3g}")
        section[name] = [number, section[name][1]] if isinstance(section[name], list) else number
    ratio = settings.lora.lora_alpha / settings.lora.r
    values["lora"]["lora_alpha"] = ratio * values["lora"]["r"]
    return Settings.model_validate(values)


def _section(values: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The section that holds the dotted `key`, and the key's name there."""
    *sections, name = key.split(".")
    for part in sections:
        values = values[part]
    return values, name
