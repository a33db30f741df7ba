"""Tables of every setting, from the types that check it and its commented file.

The type, what is allowed and the default come from `cliptune.config.Settings`; what a setting
means, in English, from the comment beside it in `code/02-fine-tuning/lora/config.yaml`, which users
read; in Chinese from `settings.zh-CN.yaml`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from cliptune.config import Settings

ROOT = Path(__file__).parents[2]
COMMENTED = ROOT / "code/02-fine-tuning/lora/config.yaml"
CHINESE = Path(__file__).parent / "settings.zh-CN.yaml"

WORDS = {
    "en": {
        "key": "key", "type": "type", "default": "default", "meaning": "meaning",
        "integer": "whole number", "number": "number", "string": "text",
        "boolean": "`true`, `false`", "array": "list of {}", "object": "mapping to {}",
        "null": "`null`", "path": "path or address", "or": " or ", "pair": "two numbers",
    },
    "zh": {
        "key": "键", "type": "类型", "default": "默认值", "meaning": "含义",
        "integer": "整数", "number": "数", "string": "文本",
        "boolean": "`true`、`false`", "array": "{}的列表", "object": "到{}的映射", "null": "`null`",
        "path": "路径或地址", "or": " 或 ", "pair": "两个数",
    },
}  # fmt: skip


def comments(text: str) -> dict[str, str]:
    """The comment beside each dotted key of a commented YAML file, continued lines joined."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    at = ""
    for line in text.splitlines():
        key = re.match(r"( *)(# )?(\w+):", line)
        if key:
            indent = len(key[1])
            path = [each for each in path if each[0] < indent] + [(indent, key[3])]
            at = ".".join(name for _, name in path)
            body = line[key.end() :]
        else:
            body = line
        comment = re.search(r"(?:^|\s)# ?(.*)$", body)
        own_line = not key and line.lstrip().startswith("#") and len(line) - len(line.lstrip()) < 20
        if comment and at and not own_line:
            found[at] = f"{found.get(at, '')} {comment[1].strip()}".strip()
    return found


def leaves(schema: dict[str, Any], values: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Each setting's dotted key, its JSON schema and its default, in the order of the file."""
    definitions = schema["$defs"]
    found = []

    def walk(part: dict[str, Any], defaults: Any, prefix: str) -> None:
        for name, each in part["properties"].items():
            reference = each.get("$ref") or each.get("allOf", [{}])[0].get("$ref")
            default = getattr(defaults, name)
            if reference:
                walk(definitions[reference.rsplit("/", 1)[1]], default, f"{prefix}{name}.")
            else:
                found.append((f"{prefix}{name}", each, default))

    walk(schema, values, prefix)
    return found


def allowed(schema: dict[str, Any], words: dict[str, str]) -> str:
    """What a JSON schema allows, in words."""
    if "anyOf" in schema:
        return words["or"].join(allowed(each, words) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "string")
    if schema.get("format") == "path":
        return words["path"]
    text = words[kind]
    if "prefixItems" in schema:
        text = words["pair"]
    elif kind == "array":
        text = text.format(allowed(schema["items"], words))
    elif kind == "object":
        text = text.format(allowed(schema["additionalProperties"], words))
    bounds = [
        f"{sign} {schema[name]}"
        for name, sign in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")
        )
        if name in schema
    ]  # fmt: skip
    return ", ".join([text, *bounds])


def as_written(value: Any) -> str:
    """A default as YAML has it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        return value
    return json.dumps(value)


def rows(language: str) -> list[tuple[str, str, str, str]]:
    """Key, type, default and meaning of every setting."""
    words = WORDS[language]
    if language == "zh":
        meaning = yaml.safe_load(CHINESE.read_text(encoding="utf-8"))
    else:
        meaning = comments(COMMENTED.read_text(encoding="utf-8"))
    schema = Settings.model_json_schema()
    return [
        (key, allowed(part, words), as_written(default), meaning[key])
        for key, part, default in leaves(schema, Settings())
    ]


def as_markdown(language: str) -> str:
    """A heading and a table for each section."""
    words = WORDS[language]
    lines: list[str] = []
    section = None
    for key, kind, default, meaning in rows(language):
        top = key.split(".")[0]
        if top != section:
            section = top
            lines += ["", f"## `{top}`", ""]
            lines += [
                f"| {words['key']} | {words['type']} | {words['default']} | {words['meaning']} |"
            ]
            lines += ["|---|---|---|---|"]
        cells = (f"`{key}`", kind, f"`{default}`", meaning.replace("|", r"\|").replace("{", r"\{"))
        lines += ["| " + " | ".join(cells) + " |"]
    return "\n".join(lines)
