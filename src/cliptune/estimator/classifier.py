"""A scikit-learn classifier of photos, which trains as `cliptune train` does.

Shape suffixes: N photos, C classes.
"""

# X and y are scikit-learn's names, by which its tools call `fit` and `predict`.
# ruff: noqa: N803

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cliptune.config import Settings, load_settings
from cliptune.errors import CheckpointError, Interrupted, SettingsError, UserError
from cliptune.estimator.given import files_of, labels_in, photos_in, splits_of
from cliptune.files import user_path
from cliptune.inference.predictor import Predictor
from cliptune.model.checkpoint import new_checkpoint_folder, resolve_checkpoint
from cliptune.model.restore import saved_settings
from cliptune.training.loaders import readable_of
from cliptune.training.train import train

DEFAULTS = Settings()
LABELS = "labels.json"  # of a saved classifier whose labels are not its class names

# Parameter -> the setting it is.
SETTING_OF = {
    "model": "model.name", "prompts": "model.prompts", "head": "model.head",
    "r": "lora.r", "lora_alpha": "lora.lora_alpha", "lora_dropout": "lora.lora_dropout",
    "target_modules": "lora.target_modules", "num_epochs": "training.num_epochs",
    "learning_rate": "training.learning_rate", "batch_size": "training.batch_size",
    "weight_decay": "training.weight_decay", "min_updates": "training.min_updates",
    "val_ratio": "data.val_ratio", "augmentation": "data.augmentation.enabled",
    "num_workers": "data.num_workers", "device": "hardware.device",
}  # fmt: skip
# What `settings` cannot say, and what says it.
_SAID_BY = {key: f"the parameter '{name}'" for name, key in SETTING_OF.items()} | {
    "data.batch_size": "the parameter 'batch_size'",
    "seed": "the parameter 'random_state'",
    "data.data_dir": "the photos given to fit",
    "data.task": "the labels given to fit",
    "output.output_dir": "save(folder)",
    "output.save_total_limit": "fit, which keeps the best checkpoint",
}
# They are of the machine and of the moment, and not of what was learned.
_FOLDERS = ("output.", "data.cache_dir", "model.cache_dir")


class CliptuneClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Fine-tunes a CLIP-like model with LoRA to tell photos apart, by scikit-learn's interface.

        classifier = CliptuneClassifier(num_epochs=5).fit(paths, labels)
        classifier.predict(["a.jpg", "b.jpg"])
        classifier.save("my_model")

    Parameters are those settings of `cliptune train` that people change, under their names and
    with their defaults; `settings` has others by dotted key: `{"lora.towers": "both"}`.
    `prompts` and `target_modules` are sequences. `class_names` has names for labels that do not
    say what is seen, `{0: "beagle", 1: "boxer"}`: CLIP knows words. `num_workers` is 0 by default:
    photos are decoded in this process, which works in notebooks and under `n_jobs`.
    `random_state`, a whole number, is the run's `seed`; None draws one, as does a `RandomState`.
    `verbose` shows progress.

    `fit` takes a part of the photos of each class, `val_ratio`, as val, by which it chooses the
    best epoch and calibrates probabilities: the same part that `cliptune train` takes where there
    is no `val/`. Two fits on the same photos with the same seed are one model.

    After `fit`: `classes_`, (C,) sorted labels; `checkpoint_`, the folder of the best checkpoint,
    which all of cliptune's commands take; `history_`, the figures of each epoch. That folder is
    temporary, and deleted with the classifier: `save` keeps it. A pickle holds parameters, labels
    and the path of the saved folder, never weights; one that was fitted and not saved cannot be
    pickled.
    """

    _predictor: Predictor | None

    def __init__(
        self,
        model: str = DEFAULTS.model.name,
        *,
        class_names: Mapping[Any, str] | None = None,
        prompts: Sequence[str] = tuple(DEFAULTS.model.prompts),
        head: str = DEFAULTS.model.head,
        r: int = DEFAULTS.lora.r,
        lora_alpha: float = DEFAULTS.lora.lora_alpha,
        lora_dropout: float = DEFAULTS.lora.lora_dropout,
        target_modules: Sequence[str] = tuple(DEFAULTS.lora.target_modules),
        num_epochs: int = DEFAULTS.training.num_epochs,
        learning_rate: float = DEFAULTS.training.learning_rate,
        batch_size: int = DEFAULTS.training.batch_size,
        weight_decay: float = DEFAULTS.training.weight_decay,
        min_updates: int = DEFAULTS.training.min_updates,
        val_ratio: float = DEFAULTS.data.val_ratio,
        augmentation: bool = DEFAULTS.data.augmentation.enabled,
        num_workers: int = 0,
        device: str = DEFAULTS.hardware.device,
        settings: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = DEFAULTS.seed,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.class_names = class_names
        self.prompts = prompts
        self.head = head
        self.r = r
        self.lora_alpha = lora_alpha
        self.lora_dropout = lora_dropout
        self.target_modules = target_modules
        self.num_epochs = num_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.min_updates = min_updates
        self.val_ratio = val_ratio
        self.augmentation = augmentation
        self.num_workers = num_workers
        self.device = device
        self.settings = settings
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True  # none of scikit-learn's own: photos are no numbers
        tags.non_deterministic = self.random_state is None
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Train on photos `X`, N of them, and their labels `y` (N,): texts, whole numbers or bools.

        `X` is a list, an array or a column of paths. Photos that are no files of this machine
        (addresses, bytes, PIL images, uint8 arrays (H, W, 3)) are written as PNG for the time of
        training; files are read from where they lie.

        Raises `DataError` for other photos or labels, `ImageError` naming all files that cannot be
        read, `SettingsError` with every faulty parameter, and `KeyboardInterrupt` after Ctrl-C. The
        classifier is then as it was.
        """
        photos = photos_in(X)
        labels = labels_in(y, count=len(photos), names=self.class_names or {})
        seed = _seed(self.random_state)
        with tempfile.TemporaryDirectory(prefix="cliptune-") as name:
            work = Path(name)
            settings = self._settings(work, seed)
            files = files_of(photos, work / "given")
            splits = readable_of(
                *splits_of(files, labels, val_ratio=settings.data.val_ratio, seed=seed),
                settings.data, where="X", recipe=settings.training.recipe,
                progress=bool(self.verbose),
            )  # fmt: skip
            try:
                result = train(settings, progress=bool(self.verbose), photos=splits)
            except Interrupted:  # what it saved goes with the folder
                raise KeyboardInterrupt from None
            best = result.best or result.last
            assert best is not None
            own = Path(tempfile.mkdtemp(prefix="cliptune-classifier-"))
            shutil.move(best.path, own / "checkpoint")
        self._keep(own / "checkpoint", temporary=own)
        self.classes_, self.history_ = labels.classes_C, result.history
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """(N,) the most probable label of each of the photos `X`; they are given as to `fit`.

        Raises `ImageError` naming every photo that cannot be read.
        """
        probabilities_NC = self.predict_proba(X)
        found_N: NDArray[Any] = self.classes_[probabilities_NC.argmax(axis=1)]
        return found_N

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(N, C) calibrated probabilities, classes in the order of `classes_`."""
        check_is_fitted(self)
        photos = photos_in(X)
        if self._predictor is None:
            self._predictor = Predictor(
                self.checkpoint_, device=self.device, batch_size=self.batch_size,
                base_model=self._base_model,
            )  # fmt: skip
        names = self._predictor.class_names
        found = self._predictor.predict_batch(photos, top_k=len(names))
        rows = [{score.label: score.probability for score in each.scores} for each in found]
        return np.array([[row[name] for name in names] for row in rows], dtype=np.float64)

    def save(self, folder: str | Path) -> Path:
        """Keep the checkpoint at `folder`, which must not be there yet; the folder is returned.

        It is a checkpoint like those of `cliptune train`, for all commands. Raises `UserError`
        where something is in the way, `ResourceError` on a full disk.
        """
        check_is_fitted(self)
        folder = user_path(folder).absolute()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: something is there already. Name a new folder.")
        with new_checkpoint_folder(folder) as partial:
            leave_out = shutil.ignore_patterns("resume", LABELS)
            shutil.copytree(self.checkpoint_, partial, ignore=leave_out, dirs_exist_ok=True)
            if self.classes_.dtype.kind != "U" or self.class_names:
                text = json.dumps({"labels": self.classes_.tolist()})
                (partial / LABELS).write_text(text + "\n", encoding="utf-8", newline="\n")
        self._keep(folder, base_model=self._base_model)
        return folder

    @classmethod
    def load(cls, folder: str | Path, *, base_model: str | None = None) -> Self:
        """The classifier saved at `folder`, or any checkpoint or run folder of single labels.

        Its parameters are those it was trained with. `base_model` says where the base model lies
        now. Raises `CheckpointError` for a folder that is none.
        """
        found = resolve_checkpoint(user_path(folder))
        if found.record.task == "multilabel":
            raise CheckpointError(
                f"{found.path}: it gives photos several labels, and CliptuneClassifier gives one. "
                "Use cliptune.Predictor."
            )
        values = _by_dotted_key(saved_settings(found).to_dict())
        defaults = _by_dotted_key(DEFAULTS.to_dict())
        more = {
            key: value for key, value in values.items()
            if key not in _SAID_BY and not key.startswith(_FOLDERS) and value != defaults.get(key)
        }  # fmt: skip
        given = {name: _sequence(values[key]) for name, key in SETTING_OF.items()}
        labels_C, names = _labels_of(found.path, found.record.class_names), found.record.class_names
        own = {x: name for x, name in zip(labels_C.tolist(), names, strict=True) if str(x) != name}
        loaded = cls(
            **given, class_names=own or None, settings=more or None, random_state=values["seed"]
        )
        loaded._keep(found.path.absolute(), base_model=base_model)
        loaded.classes_, loaded.history_ = labels_C, []
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if state.get("_temporary") is not None:
            raise UserError(
                "CliptuneClassifier: it was fitted and not saved, and a pickle holds no weights, "
                "only the path of their folder. Call save(folder) first."
            )
        return state | {"_predictor": None} if "_predictor" in state else state

    def _keep(
        self, checkpoint: Path, *, temporary: Path | None = None, base_model: str | None = None
    ) -> None:
        """Answer by `checkpoint` from now on; `temporary` goes when this does."""
        if (before := getattr(self, "_temporary", None)) is not None:
            before()
        self.checkpoint_, self._base_model = checkpoint, base_model
        self._predictor = None
        self._temporary = temporary and weakref.finalize(
            self, shutil.rmtree, temporary, ignore_errors=True
        )

    def _settings(self, work: Path, seed: int) -> Settings:
        """The settings of a run in `work`. Raises `SettingsError`."""
        more = dict(self.settings or {})
        if taken := [key for key in more if key in _SAID_BY]:
            said = _SAID_BY[taken[0]]
            raise SettingsError(f"settings: found '{taken[0]}', said by {said}. Leave it out.")
        here: dict[str, Any] = {
            "data.data_dir": str(work), "data.cache_dir": str(work / "decoded"),
            "output.log_dir": str(work / "logs"), "output.trackers": [],
        }  # fmt: skip
        given = {key: _plain(getattr(self, name)) for name, key in SETTING_OF.items()}
        fixed = {"seed": seed, "output.output_dir": str(work / "run"), "output.save_total_limit": 1}
        return load_settings(overrides=here | more | given | fixed)


def _seed(random_state: Any) -> int:
    """A whole number as it is, or one drawn as scikit-learn draws."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _plain(value: Any) -> Any:
    """What searches draw, as settings have it: numbers of numpy's, sequences, paths."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple | np.ndarray) else value


def _sequence(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _by_dotted_key(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, dict) and f"{prefix}{key}" != "training.class_weights"
        found |= _by_dotted_key(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def _labels_of(folder: Path, class_names: Sequence[str]) -> NDArray[Any]:
    """(C,) the labels of a saved classifier: its class names, or what `LABELS` has for them."""
    path = folder / LABELS
    if not path.is_file():
        return np.array(class_names)
    try:
        labels = np.array(json.loads(path.read_text(encoding="utf-8"))["labels"])
        if labels.shape == (len(class_names),) and labels.dtype.kind in "Uiub":
            return labels
    except (ValueError, KeyError, TypeError):
        pass
    raise CheckpointError(
        f"{path}: not the labels of {', '.join(class_names)}. Remove it to have these as labels."
    )
