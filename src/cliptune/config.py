"""The settings of a training run: typed, strict, and documented by `config.yaml`.

Each key is honoured or refused. All faults of a file and its overrides are found together,
before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from cliptune.config_source import SettingsSource, describe_faults, read_source
from cliptune.errors import SettingsError, listing
from cliptune.files import user_path
from cliptune.storage import address_of

Share = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
Folder = Annotated[
    Path,
    Field(strict=False),
    AfterValidator(user_path),
    PlainSerializer(lambda path: address_of(path) or str(path), return_type=str),
]
Precision = Literal["auto", "float32", "bf16", "fp16"]
Range = Annotated[tuple[float, float], Field(strict=False)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ModelSettings(Section):
    name: Text = "openai/clip-vit-base-patch32"
    revision: Text | None = None
    cache_dir: Folder = Path("models/")
    head: Literal["text", "linear"] = "text"
    image_size: Annotated[int, Field(ge=16, le=2048)] | None = None
    patch_dropout: Share = 0.0
    prompts: Annotated[list[Text], Field(min_length=1)] = ["a photo of a {}."]

    @model_validator(mode="after")
    def _prompts_have_a_place_for_the_name(self) -> Self:
        for prompt in self.prompts:
            if prompt.count("{}") != 1 or "{" in prompt.replace("{}", ""):
                raise ValueError(
                    f"model.prompts: found {prompt!r}; each prompt needs exactly one {{}}, "
                    "where the class name goes, and no other braces"
                )
        return self


class LoraSettings(Section):
    r: Annotated[int, Field(ge=1, le=1024)] = 8
    lora_alpha: Annotated[float, Field(gt=0)] = 32
    target_modules: Annotated[list[Text], Field(min_length=1)] = ["q_proj", "v_proj"]
    lora_dropout: Share = 0.1
    bias: Literal["none", "all", "lora_only"] = "none"
    towers: Literal["vision", "text", "both"] = "vision"
    last_layers: Annotated[int, Field(ge=1)] | None = None
    use_dora: bool = False
    use_rslora: bool = False


class AugmentationSettings(Section):
    enabled: bool = True
    crop_scale: Range = (0.6, 1.0)
    crop_ratio: Range = (0.75, 1.3333)
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    color: Annotated[float, Field(ge=0, lt=1)] = 0.1
    views: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"data.augmentation.crop_scale: found [{low}, {high}]; expected two shares of the "
                "image area, the lower first, above 0 and at most 1"
            )
        low, high = self.crop_ratio
        if not 0 < low <= high:
            raise ValueError(
                f"data.augmentation.crop_ratio: found [{low}, {high}]; expected two ratios of "
                "width to height above 0, the lower first"
            )
        return self


class DataSettings(Section):
    data_dir: Folder = Path("data/dogs")
    task: Literal["auto", "single", "multilabel"] = "auto"
    batch_size: Annotated[int, Field(ge=1)] = 32
    num_workers: Annotated[int, Field(ge=0)] = 4
    read_timeout: Annotated[int, Field(ge=0)] = 300
    pin_memory: bool = True
    val_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.1
    on_bad_image: Literal["error", "skip"] = "error"
    cache: bool = True
    cache_dir: Folder | None = None
    cache_limit: Annotated[int, Field(ge=1)] = 4096
    augmentation: AugmentationSettings = AugmentationSettings()


class SchedulerSettings(Section):
    type: Literal["cosine", "linear", "constant"] = "cosine"
    num_cycles: Annotated[float, Field(gt=0)] = 0.5

    @model_validator(mode="after")
    def _only_cosine_has_cycles(self) -> Self:
        if self.type != "cosine" and self.num_cycles != 0.5:
            raise ValueError(
                f"training.lr_scheduler.num_cycles: found {self.num_cycles} beside type "
                f"'{self.type}', which has no cycles; remove it or choose type 'cosine'"
            )
        return self


class EarlyStoppingSettings(Section):
    enabled: bool = True
    patience: Annotated[int, Field(ge=1)] = 3
    min_delta: Annotated[float, Field(ge=0, lt=1)] = 0.001


def _known_weights(given: Any) -> Any:
    """`given` for `training.class_weights`; refused in one sentence, not once for each kind."""
    kinds = ("none", "balanced")
    if isinstance(given, dict):
        bad = {
            name: weight
            for name, weight in given.items()
            if not isinstance(name, str) or not is_positive(weight)
        }
        if not bad:
            return given
        name, weight = next(iter(bad.items()))
        found = f"{name!r}: {weight!r}"
    elif isinstance(given, str) and given in kinds:
        return given
    else:
        found = repr(given)[:120]
    raise ValueError(
        f"training.class_weights: found {found}; expected none, balanced, or weights above 0 by "
        "class name, such as {collie: 2.5} (a name that looks like a number in quotes)"
    )


def is_positive(value: object) -> bool:
    """Whether it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isfinite(value) and value > 0


ClassWeights = Annotated[
    Literal["none", "balanced"] | dict[Text, float], BeforeValidator(_known_weights)
]


class TrainingSettings(Section):
    # batch_size is that of all processes together: their number changes no update.
    recipe: Literal["head_first", "plain"] = "head_first"
    min_updates: Annotated[int, Field(ge=0)] = 100
    val_in_head: Literal["few_photos", "never"] = "few_photos"
    num_epochs: Annotated[int, Field(ge=1)] = 10
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5.0e-4
    batch_size: Annotated[int, Field(ge=1)] = 32
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_ratio: Share = 0.1
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 1
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    cache_activations: bool = False
    on_nonfinite: Literal["stop", "skip"] = "stop"
    nonfinite_limit: Annotated[int, Field(ge=1)] = 10
    class_weights: ClassWeights = "none"
    sampling: Literal["uniform", "balanced"] = "uniform"
    logit_adjustment: Annotated[float, Field(ge=0, le=10)] = 0.0
    lr_scheduler: SchedulerSettings = SchedulerSettings()
    early_stopping: EarlyStoppingSettings = EarlyStoppingSettings()


class EvaluationSettings(Section):
    eval_steps: Annotated[int, Field(ge=1)] = 100
    save_steps: Annotated[int, Field(ge=1)] = 200
    logging_steps: Annotated[int, Field(ge=1)] = 50
    known_share: Annotated[float, Field(gt=0, le=1)] = 0.95
    coverage: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_serializer(mode="wrap")
    def _without_what_was_not_asked_for(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """Without sets, the settings of a run are written as they were before there were any."""
        values: dict[str, Any] = handler(self)
        return {key: x for key, x in values.items() if key != "coverage" or x is not None}


class OutputSettings(Section):
    output_dir: Folder = Path("outputs/lora_finetuning")
    save_total_limit: Annotated[int, Field(ge=1)] = 3
    log_dir: Folder = Path("logs/lora_finetuning")
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = ["tensorboard"]


class HardwareSettings(Section):
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Precision = "auto"
    mixed_precision: bool = True
    fast: bool = True
    cuda_graphs: bool = True

    @property
    def asked_precision(self) -> Precision:
        """`precision`; without `mixed_precision` that is float32."""
        return self.precision if self.mixed_precision else "float32"


class Settings(Section):
    """Every setting of a training run, with its default. The sections are those of the YAML."""

    model: ModelSettings = ModelSettings()
    lora: LoraSettings = LoraSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    output: OutputSettings = OutputSettings()
    hardware: HardwareSettings = HardwareSettings()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if faults := _contradictions(self.to_dict()):
            raise ValueError("; ".join(faults))
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the YAML's keys."""
        return self.model_dump(mode="json")

    def without_folders(self) -> dict[str, Any]:
        """The same without the folders of the machine they were written on."""
        folders = {
            "model": {"cache_dir"}, "data": {"data_dir", "cache_dir"},
            "output": {"output_dir", "log_dir"},
        }  # fmt: skip
        return self.model_dump(mode="json", exclude=folders)


def _text_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted keys whose value is one text or path."""
    keys = []
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += _text_keys(kind, f"{prefix}{name}.")
        for each in get_args(kind) if get_origin(kind) is Union else [kind]:
            if (get_args(each) or [each])[0] in (str, Path):
                keys.append(f"{prefix}{name}")
    return keys


# In YAML 001 is a number; as a revision or a folder it is what is written.
TEXT_KEYS = frozenset(_text_keys(Settings))


def load_settings(
    config: Path | str | None = None, *, overrides: dict[str, Any] | None = None
) -> Settings:
    """Settings from the YAML file `config` (defaults where None), with `overrides` on top.

    `overrides` maps dotted keys to values: `{"training.learning_rate": 1e-4}`.

    Raises `SettingsError` with every fault found: where it is, what was found, what is allowed.
    """
    path = None if config is None else user_path(config)
    source = read_source(path, overrides or {}, as_written=TEXT_KEYS)
    _share_batch_size(source)
    try:
        return Settings.model_validate(source.values)
    except ValidationError as error:
        faults = describe_faults(error, source, Settings)
        if any(fault["loc"] for fault in error.errors()):
            # The rule between sections did not run: it waits for sections without faults.
            faults += [f"{source.name}: {fault}" for fault in _contradictions(source.values)]
    if len(faults) == 1:
        raise SettingsError(faults[0])
    raise SettingsError(f"{source.name}: {len(faults)} faults:\n{listing(faults, limit=50)}")


# Folders that are at no address.
HERE = (
    ("output", "output_dir"), ("output", "log_dir"), ("data", "cache_dir"), ("model", "cache_dir"),
)  # fmt: skip


def _contradictions(values: dict[str, Any]) -> list[str]:
    """What the sections say against each other. `values` may be raw: sections may be missing."""

    def value(section: str, key: str) -> Any:
        given = values.get(section)
        return given.get(key) if isinstance(given, dict) else None

    faults = [
        f"{section}.{key}: found {address}, an address. What is written there is renamed, locked "
        "and read again and again, which takes a folder of this machine; copy it when it is done "
        "(docs/storage.md)"
        for section, key in HERE
        if isinstance(given := value(section, key), str | Path) and (address := address_of(given))
    ]
    sizes = value("data", "batch_size"), value("training", "batch_size")
    if None not in sizes and sizes[0] != sizes[1]:
        faults.append(
            "batch_size stands in two places with two values: "
            f"data.batch_size is {sizes[0]}, training.batch_size is {sizes[1]}; "
            "make them equal or remove one"
        )
    towers = value("lora", "towers")
    if value("model", "head") == "linear" and towers in ("text", "both"):
        faults.append(
            f"lora.towers: found '{towers}' beside model.head 'linear', which does not use the "
            "text tower; choose towers 'vision' or head 'text'"
        )
    precision = value("hardware", "precision")
    if value("hardware", "mixed_precision") is False and precision in ("bf16", "fp16"):
        faults.append(
            f"hardware.precision: found '{precision}' beside hardware.mixed_precision false, which "
            "is float32; remove one of them"
        )
    if value("training", "cache_activations") is True:
        faults += _not_cacheable(value)
    evening_out = {
        "training.class_weights 'balanced'": value("training", "class_weights") == "balanced",
        "training.sampling 'balanced'": value("training", "sampling") == "balanced",
        "training.logit_adjustment": is_positive(value("training", "logit_adjustment")),
    }
    if len(both := [what for what, applies in evening_out.items() if applies]) > 1:
        faults.append(
            f"{' beside '.join(both)}: each makes up for uneven classes, and together they favour "
            "the rare ones; keep one of them"
        )
    return faults


def _not_cacheable(value: Callable[[str, str], Any]) -> list[str]:
    """Settings under which the frozen layers' activations are not the same in every epoch."""
    augmentation = value("data", "augmentation")
    augmentation = augmentation if isinstance(augmentation, dict) else {}
    endless = augmentation.get("enabled", True) is True and augmentation.get("views") is None
    reasons = {
        "set lora.last_layers, so that layers below the adapters are frozen":
            value("lora", "last_layers") is None,
        "set data.augmentation.views, or turn augmentation off, so that views repeat": endless,
        "set lora.bias to none or lora_only": value("lora", "bias") == "all",
        "set lora.towers to vision or both": value("lora", "towers") == "text",
        "set model.patch_dropout to 0": bool(value("model", "patch_dropout")),
        "set hardware.fast to true": value("hardware", "fast") is False,
    }  # fmt: skip
    return [
        f"training.cache_activations: {remedy}" for remedy, applies in reasons.items() if applies
    ]


def _share_batch_size(source: SettingsSource) -> None:
    """Where only one of the two batch sizes is given, it counts for both.

    An override speaks for both too, unless both are overridden: the file may repeat the old value.
    """
    places = ("data.batch_size", "training.batch_size")
    given = [key for key in places if key in source.overridden] or [
        key for key in places if source.has(key)
    ]
    if len(given) == 1:
        for key in places:
            source.put(key, source.get(given[0]), origin=source.origin(given[0]))
