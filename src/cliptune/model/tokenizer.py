"""A base model's tokenizer: loaded only where it can be the one its text tower was trained with.

Without its files `transformers` makes up a vocabulary of a few special tokens and says nothing:
every prompt then becomes the same tokens, and every figure of zero-shot CLIP is false.
Shape suffixes: P prompts, T tokens.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cliptune.errors import ModelError, named, reason
from cliptune.model.locating import LoadOptions

log = logging.getLogger(__name__)

# Any of these sets is a whole vocabulary, whichever tokenizer reads it.
VOCABULARIES: tuple[tuple[str, ...], ...] = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("spiece.model",),
    ("tokenizer.model",),
    ("sentencepiece.bpe.model",),
)
FETCH = (
    "Fetch the tokenizer's files from where the model came (tokenizer_config.json with "
    "tokenizer.json, or vocab.json and merges.txt, or vocab.txt, or spiece.model); a checkpoint "
    "trained on this model holds copies of them, too."
)
OPTIONAL = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}  # of SigLIP
# Text towers pad their vocabulary up to a round number, by a tenth at the most.
PADDING, PADDING_SHARE = 1000, 0.1


def load_tokenizer(name: str, model: Any, options: LoadOptions) -> Any:
    """The tokenizer of the model `name` (a folder or a hub name), found to fit its text tower.

    `options` are those of `from_pretrained`. Raises `ModelError` where it has no files, cannot be
    loaded, or cannot be the text tower's.
    """
    from transformers import AutoTokenizer

    _refuse_missing_files(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
    except MemoryError:
        raise
    except Exception as error:  # libraries raise nearly anything on files that are not whole
        raise ModelError(f"{name}: its tokenizer cannot be loaded: {_why(name, error)}") from error
    _refuse_other_size(name, tokenizer, model.config.text_config)
    return tokenizer


def refuse_foreign_tokens(name: str, tokenizer: Any, model: Any, ids_PT: torch.Tensor) -> None:
    """Raise `ModelError` where the text tower of `model` cannot take the tokens (P, T) as meant."""
    config = model.config.text_config
    highest = int(ids_PT.max())
    if highest >= config.vocab_size:
        raise _not_its_own(
            name,
            f"it makes the token {highest}, and the text tower knows those below "
            f"{config.vocab_size:,}",
        )
    if model.config.model_type != "clip":
        return
    # CLIP's feature is taken at the end token: its first place, or in older folders (which call
    # it 2) the place of the highest token.
    legacy = config.eos_token_id == 2
    ends = ids_PT.argmax(1) if legacy else (ids_PT == config.eos_token_id).int().argmax(1)
    found = ids_PT[torch.arange(len(ids_PT)), ends]
    expected = tokenizer.eos_token_id if legacy else config.eos_token_id
    if bool((ends == 0).any()) or bool((found != expected).any()):
        raise _not_its_own(
            name,
            "its prompts lack the end token at which the text tower takes its features"
            f" ({'the highest one' if legacy else config.eos_token_id})",
        )


def refuse_equal_tokens(
    name: str, class_names: Sequence[str], texts: Sequence[Sequence[str]], tokenizer: Any
) -> None:
    """Raise `ModelError` where classes of different names are the same, or nothing, in tokens.

    `texts` has for each class the names that stand in its prompts. Classes whose names differ in
    case, accents or punctuation alone may be the same to a tokenizer: they are warned of.
    """
    flat = [text for group in texts for text in group]
    rows = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
    ids = [tuple(tuple(next(rows)) for _ in group) for group in texts]
    unknown = _unknown(class_names, ids, tokenizer.unk_token_id)
    first_with: dict[Any, int] = {}
    for place, tokens in enumerate(ids):
        other = first_with.setdefault(tokens, place)
        if other == place:
            continue
        pair = f"'{class_names[other]}' and '{class_names[place]}'"
        if set(map(_letters, texts[other])) == set(map(_letters, texts[place])):
            log.warning(
                "the classes %s read alike in prompts ('%s'): zero-shot %s cannot tell them "
                "apart. Name them apart under 'prompts' in classes.yaml.",
                pair, texts[place][0], name,
            )  # fmt: skip
        elif {class_names[other], class_names[place]} <= set(unknown):
            raise _unreadable(name, unknown, len(class_names))
        else:
            raise _not_its_own(name, f"the classes {pair} are the same tokens to it")
    if 2 * len(unknown) > len(class_names) and len(class_names) > 1:
        raise _unreadable(name, unknown, len(class_names))
    if unknown:
        log.warning(
            "%s: its tokenizer knows little of the names of %s: their text features say little. "
            "Give other names under 'prompts' in classes.yaml.", name, named(unknown),
        )  # fmt: skip


def _unknown(class_names: Sequence[str], ids: Sequence[Any], unknown_id: int | None) -> list[str]:
    """The classes at least half of whose tokens are the one of unknown words."""
    found = []
    for class_name, rows in zip(class_names, ids, strict=True):
        tokens = [token for row in rows for token in row]
        if unknown_id is not None and 2 * tokens.count(unknown_id) >= max(1, len(tokens)):
            found.append(class_name)
    return found


def _letters(text: str) -> str:
    """`text` without case, accents, spaces and punctuation."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in plain if unicodedata.category(c)[0] in "LN")


def _refuse_missing_files(name: str) -> None:
    folder = Path(name)
    if not folder.is_dir() or any(
        all((folder / file).is_file() for file in files) for files in VOCABULARIES
    ):
        return
    # The fullest of the half sets: vocab.json alone cuts every word into its letters.
    half = [files for files in VOCABULARIES if any((folder / file).is_file() for file in files)]
    lacking = [file for files in half for file in files if not (folder / file).is_file()]
    what = f"{', '.join(lacking)} is missing beside {half[0][0]}" if half else "no tokenizer in it"
    raise ModelError(
        f"{folder}: {what}. Found: {named(sorted(p.name for p in folder.iterdir()))}. {FETCH}"
    )


def _refuse_other_size(name: str, tokenizer: Any, config: Any) -> None:
    size, expected = len(tokenizer), int(config.vocab_size)
    words = size - len(set(tokenizer.all_special_ids))
    if words > 1 and expected - size <= max(PADDING, PADDING_SHARE * expected):
        return
    raise _not_its_own(
        name, f"it knows {size:,} tokens, and the text tower was made for {expected:,}"
    )


def _not_its_own(name: str, found: str) -> ModelError:
    return ModelError(
        f"{name}: its tokenizer is not the one its text tower was trained with: {found}. "
        f"Prompts would mean nothing, and zero-shot figures would be false.\n{FETCH}"
    )


def _unreadable(name: str, unknown: Sequence[str], count: int) -> ModelError:
    return ModelError(
        f"{name}: its tokenizer does not know the words of {len(unknown)} of {count} class names: "
        f"{named(unknown)}. Expected names in a language the model was trained on. Give such "
        "names under 'prompts' in classes.yaml of the data folder, or choose another base model."
        f"\nIf they are in its language, the tokenizer's files are not its own. {FETCH}"
    )


def _why(name: str, error: Exception) -> str:
    """The reason in whole sentences, and what to do."""
    if broken := broken_files(Path(name)):
        return f"{'; '.join(broken)}. {FETCH}"
    lacking = [package for package, module in OPTIONAL.items() if _is_missing(module)]
    unregistered = "Unrecognized configuration class" in str(error)  # so where a package lacks
    if lacking and (isinstance(error, ImportError) or unregistered):
        verb = "are" if len(lacking) > 1 else "is"
        return (
            f"it needs {' and '.join(lacking)}, which {verb} not installed. "
            f"Install with: pip install {' '.join(lacking)}"
        )
    return f"{reason(error)}\n{FETCH}"


def _is_missing(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:  # of the package around it
        return True


def broken_files(folder: Path) -> list[str]:
    """What is wrong with model files in `folder`: pointers in a file's place, JSON cut short."""
    found = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.suffix not in (".json", ".model", ".safetensors", ".txt") or not path.is_file():
            continue
        with path.open("rb") as file:
            start = file.read(64)
        if start.startswith(b"version https://git-lfs"):
            found.append(f"{path.name} is only a pointer to the file ('git lfs pull' fetches it)")
        elif path.suffix == ".json":
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                found.append(f"{path.name} is no whole JSON ({error})")
    return found
