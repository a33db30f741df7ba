"""Where settings come from: a YAML file with line numbers, overrides on top; faults in words."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cliptune.errors import SettingsError, UserError
from cliptune.hints import nearest, not_there

# Names other tools use for our keys, which spelling alone would not bring together.
SYNONYMS = {
    "rank": "r",
    "lora_r": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "epochs": "num_epochs",
    "lr": "learning_rate",
    "scheduler": "lr_scheduler",
    "grad_clip": "max_grad_norm",
    "accumulation": "gradient_accumulation_steps",
    "workers": "num_workers",
    "fp16": "precision",
    "bf16": "precision",
    "dtype": "precision",
    "amp": "mixed_precision",
    "templates": "prompts",
}


class Loader(yaml.SafeLoader):
    """The safe loader, with floats as people write them and repeated keys refused."""


# YAML 1.1 takes 1e-4 for text, since it has no dot; everybody means a number.
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
# No setting is a date: 2024-11-05 is the name of a folder, and 2024-99-99 no mistake.
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}


MOST_KEYS = 1_000  # in a file; there are some 60 settings
MOST_BYTES = 4 * 2**20  # of any YAML file of ours; to read as much takes a minute
_SHORT = reprlib.Repr()  # what was found may be a list of a million
_SHORT.maxstring = _SHORT.maxother = 120


@dataclass
class SettingsSource:
    """Raw values under their sections, and where each key came from."""

    name: str
    values: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)
    overridden: dict[str, str] = field(default_factory=dict)  # dotted key -> its origin in words

    def has(self, key: str) -> bool:
        return self._section(key, make=False).get(key.rsplit(".", 1)[-1], None) is not None

    def get(self, key: str) -> Any:
        return self._section(key, make=False)[key.rsplit(".", 1)[-1]]

    def put(self, key: str, value: Any, *, origin: str) -> None:
        self.change(key, value)
        self.overridden.setdefault(key, origin)

    def change(self, key: str, value: Any) -> None:
        """Put `value` where it was written otherwise, or not at all."""
        self._section(key, make=True)[key.rsplit(".", 1)[-1]] = value

    def origin(self, key: str) -> str:
        """Where `key`, or the nearest thing around it, was written."""
        if key in self.overridden:
            return self.overridden[key]
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.name}:{self.lines[key]}" if key else self.name

    def _section(self, key: str, *, make: bool) -> dict[str, Any]:
        section = self.values
        for part in key.split(".")[:-1]:
            inner = section.get(part)
            if not isinstance(inner, dict):
                if not make:
                    return {}
                inner = section[part] = {}
            section = inner
        return section


def read_source(
    config: Path | None, overrides: dict[str, Any], *, as_written: Collection[str] = ()
) -> SettingsSource:
    """The values of the YAML file `config`, if any, with `overrides` (dotted keys) put on top.

    The values of keys `as_written` are taken for text as it stands in the file: 001, no, 1e5.
    """
    source = SettingsSource("settings", {}) if config is None else _read_yaml(config, as_written)
    for key, value in overrides.items():
        source.put(key, value, origin="settings given on the command line or by the caller")
    return source


def parse_override(text: str, *, as_written: Collection[str] = ()) -> tuple[str, Any]:
    """("training.learning_rate", 0.0001) from "training.learning_rate=1e-4".

    The values of keys `as_written` are text: "model.revision=001" gives "001".
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise SettingsError(
            f"--set {text}: expected KEY=VALUE, for example --set training.learning_rate=1e-4"
        )
    try:
        return key, yaml.load(value, TextLoader if key in as_written else Loader)
    except yaml.YAMLError:
        raise SettingsError(f"--set {text}: the value is not valid YAML") from None


class TextLoader(Loader):
    """Takes every value for text as it is written; only nothing at all, null and ~ are None."""


TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}


def _read_yaml(path: Path, as_written: Iterable[str]) -> SettingsSource:
    options: dict[str, Any] = {
        "refusal": SettingsError,
        "what": "configuration file",
        "expected": "sections such as 'model:' and 'training:'",
        "most_keys": MOST_KEYS,
    }
    values, lines, repeated = read_mapping(path, **options)
    if repeated:
        raise SettingsError(f"{path}: written twice: {', '.join(repeated)}. Keep one of each")
    # A section with nothing under it is a section of defaults.
    source = SettingsSource(
        str(path), {k: v if v is not None else {} for k, v in values.items()}, lines
    )
    written = SettingsSource(str(path), read_mapping(path, loader=TextLoader, **options)[0])
    for key in as_written:
        if source.has(key):
            source.change(key, written.get(key))
    return source


def read_mapping(
    path: Path,
    *,
    refusal: type[UserError],
    what: str,
    expected: str,
    most_keys: int,
    loader: type[Loader] = Loader,
) -> tuple[dict[Any, Any], dict[str, int], list[str]]:
    """The mapping in the YAML file `path`, the line of each dotted key, and keys written twice.

    Keys written twice are told in words, with their lines; it is for the caller to refuse them.
    Raises `refusal` where there is no file, no UTF-8, no YAML, no mapping, or more than
    `MOST_BYTES` or `most_keys` (aliases may stand for endlessly many).
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise refusal(f"{path}: larger than {MOST_BYTES // 2**20} MiB, no {what}.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise refusal(f"{path}: {not_there(path, f'no such {what}')}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise refusal(f"{path}: cannot be read: {error}") from None
    try:
        root = yaml.compose(text, loader)
        values = yaml.load(text, loader) if root is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise refusal(f"{where}: not valid YAML: {problem}") from None
    except (ValueError, RecursionError) as error:  # 2024-99-99 reads as a date that is none
        raise refusal(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise refusal(f"{path}: expected {expected}")
    lines: dict[str, int] = {}
    repeated: list[str] = []
    try:
        if root is not None:
            _walk(root, "", lines, repeated, most_keys)
    except (ValueError, RecursionError):
        raise refusal(
            f"{path}: its aliases ('*name') stand for too many keys, or for themselves. "
            "Write them out."
        ) from None
    return values, lines, repeated


def _walk(
    node: yaml.Node, prefix: str, lines: dict[str, int], repeated: list[str], most_keys: int
) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    if len(lines) > most_keys:  # aliases: a few lines may stand for endlessly many
        raise ValueError(f"it stands for more than {most_keys} keys, or for itself")
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        if key in lines:
            repeated.append(f"'{key}' (lines {lines[key]} and {key_node.start_mark.line + 1})")
        lines[key] = key_node.start_mark.line + 1
        _walk(value_node, f"{key}.", lines, repeated, most_keys)


def describe_faults(
    error: ValidationError, source: SettingsSource, root: type[BaseModel]
) -> list[str]:
    """Each fault in one message: where, which key, what was found, what is allowed."""
    faults = []
    for fault in error.errors(include_url=False):
        keys = [part for part in fault["loc"] if isinstance(part, str)]
        key = ".".join(keys)
        where = source.origin(key)
        if fault["type"] == "value_error":  # a rule of ours, whose words begin with the key
            words = str(fault["ctx"]["error"])
            faults.append(f"{source.origin(words.partition(':')[0])}: {words}")
        elif fault["type"] == "extra_forbidden":
            faults.append(f"{where}: {_unknown_key(keys, root)}")
        else:
            faults.append(f"{where}: {key}: found {_SHORT.repr(fault['input'])}; {_allowed(fault)}")
    return faults


def _unknown_key(keys: list[str], root: type[BaseModel]) -> str:
    key, last = ".".join(keys), keys[-1]
    section = root
    for part in keys[:-1]:
        section = _sections(section)[part]
    siblings = list(section.model_fields)
    everywhere = _all_keys(root)
    near = difflib.get_close_matches(last, siblings, n=1, cutoff=0.6)
    prefix = ".".join(keys[:-1])
    hint = f"{prefix}.{near[0]}" if near and prefix else (near[0] if near else None)
    if hint is None:
        wanted = SYNONYMS.get(last, last)
        places = [name for name in everywhere if name.rsplit(".", 1)[-1] == wanted]
        hint = min(places, key=lambda name: not name.startswith(prefix), default=None)
    if hint is None:
        close = difflib.get_close_matches(key, everywhere, n=1, cutoff=0.7)
        hint = close[0] if close else None
    suggestion = f" Did you mean '{hint}'?" if hint else ""
    place = f"Keys of '{prefix}'" if prefix else "Sections"
    return f"unknown key '{key}'.{suggestion} {place}: {', '.join(siblings)}."


def _allowed(fault: Any) -> str:
    """What a value of pydantic's error type `fault['type']` should have been."""
    context: dict[str, Any] = fault.get("ctx", {})
    phrases = {
        "int_type": "expected a whole number",
        "int_from_float": "expected a whole number",
        "float_type": "expected a number",
        "finite_number": "expected a finite number",
        "bool_type": "expected true or false",
        "string_type": "expected text",
        "string_too_short": "expected text that is not empty",
        "list_type": "expected a list, such as [a, b]",
        "tuple_type": "expected a list of two numbers",
        "path_type": "expected a path",
        "model_type": "expected keys with values under this section",
        "too_short": "expected at least {min_length} entries",
        "too_long": "expected at most {max_length} entries",
        "missing": "expected two numbers",
        "greater_than": "expected more than {gt:g}",
        "greater_than_equal": "expected {ge:g} or more",
        "less_than": "expected less than {lt:g}",
        "less_than_equal": "expected {le:g} or less",
        "literal_error": "expected one of: {expected}",
    }
    phrase = phrases.get(fault["type"])
    if phrase is None:
        return str(fault["msg"])
    found = fault["input"]
    if fault["type"] in ("string_type", "path_type") and isinstance(found, int | float | date):
        return f"{phrase}: put it in quotes"
    if fault["type"] == "literal_error" and isinstance(found, str):
        near = nearest(found, re.findall(r"'([^']*)'", context["expected"]))
        phrase += f"; did you mean '{near}'?" if near else ""
    return phrase.format(**context)


def _sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The fields of `model` that are sections themselves."""
    found = {}
    for name, info in model.model_fields.items():
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found[name] = kind
    return found


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name in model.model_fields:
        keys.append(f"{prefix}{name}")
        if section := _sections(model).get(name):
            keys += _all_keys(section, f"{prefix}{name}.")
    return keys
