"""`cliptune prepare`: labelled photos of any form to train/, val/ and test/."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import Debug
from cliptune.errors import UserError


def prepare(
    output_dir: Annotated[Path, typer.Option(help="Where the splits go.")] = Path("data/dogs"),
    num_classes: Annotated[
        int | None, typer.Option(help="How many breeds, up to 120. [default: 10 for dogs]")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Classes to take, with commas between them.")
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(help='Classes to leave out, with commas between them: pug,"Poodle, toy".'),
    ] = None,
    min_photos: Annotated[
        int | None,
        typer.Option(
            help="Leave out classes with fewer photos than this (for train, where --source has "
            "splits); each is named and stands in dataset.json. 3 is enough to split a class."
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(help="Another name for a class: old=new. May be given again for others."),
    ] = None,
    merge: Annotated[
        list[str] | None,
        typer.Option(help="Several classes as one: collie,sheltie=collies. May be given again."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Keep so many photos of each class in train; all elsewhere.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="A .tar archive; a folder: one folder of photos for each class, photos named by "
            "class (pug_1.jpg), train/CLASS/, or Oxford-IIIT Pet's; a list of path,label[,split] "
            "(.csv, .tsv, .jsonl); Label Studio's .json; FiftyOne's labels.json and data/; "
            ".parquet; or hf:OWNER/NAME on the Hugging Face hub. "
            "Files and folders may be addresses, such as s3://bucket/photos."
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="How --source names classes. folders: one for each class, or train/CLASS/, told "
            "by what they hold; classes: each folder is a class, even one called train; splits: "
            "folders called train, val or test hold the classes, others are left out; names: "
            "pug_1.jpg; pets: Oxford-IIIT Pet's; auto: names if all photos lie in one folder, "
            "else folders."
        ),
    ] = "auto",
    splits: Annotated[
        str,
        typer.Option(
            help="source: its own splits, such as Stanford Dogs' official lists; random: deal "
            "anew; auto: its own where it brings them along."
        ),
    ] = "auto",
    root: Annotated[
        Path | None, typer.Option(help="Where the paths of a list start. [default: beside it]")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of a list's paths. [default: found by its name]")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of a list's labels. [default: found by its name]")
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(
            help="Splits of a list or a dataset not to take, with commas between them. Those "
            "without any label are left out by themselves."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Keep photos of one patient, animal, camera or video in one split: a column of "
            "a list, or a regular expression whose first group, or whole match, in a photo's path "
            r"names it, such as 'patient(\d+)'. --shots then counts groups."
        ),
    ] = None,
    multilabel: Annotated[
        bool,
        typer.Option(
            "--multilabel",
            help="Any number of labels to a photo: a list with beagle|boxer, a JSON list or a "
            "column of 0 and 1 for each class; COCO's or Label Studio's .json; the "
            "folder of FiftyOne or of VOC.",
        ),
    ] = False,
    relabel: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Change labels of --source as this list says, which 'check --export-suspects' "
            "wrote and you edited: action keep, relabel or drop.",
        ),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Link to the photos, copy none.")] = False,
    resize: Annotated[
        int | None, typer.Option(help="Make copies with a shorter edge of so many pixels.")
    ] = None,
    download: Annotated[bool, typer.Option(help="Fetch Stanford Dogs if nothing is there.")] = True,
    train_ratio: Annotated[float, typer.Option(help="Share of each class for train.")] = 0.7,
    val_ratio: Annotated[
        float | None, typer.Option(help="Share for val. [default: half of what train leaves]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses which photo goes where.")] = 42,
    validate: Annotated[
        bool, typer.Option("--validate", help="Only check the data in --output-dir.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Make train/, val/ and test/ from labelled photos of any form, and dataset.json."""
    from cliptune.preparing.prepare import prepare as run_preparation

    if validate:
        from cliptune.checking.check import check as run_check
        from cliptune.checking.report import check_text

        checked = run_check(output_dir)
        print(check_text(checked))
        raise typer.Exit(checked.exit_code())
    if multilabel:
        from cliptune.preparing.multilabel import prepare_multilabel

        beside = {
            "num-classes": num_classes, "classes": classes, "exclude": exclude,
            "min-photos": min_photos, "shots": shots, "leave-out": leave_out,
            "rename": rename, "merge": merge, "relabel": relabel,
            "layout": layout if layout != "auto" else None,
            "splits": splits if splits != "auto" else None,
        }  # fmt: skip
        if found := [f"--{name}" for name, value in beside.items() if value is not None]:
            raise UserError(f"{', '.join(found)}: not known beside --multilabel. Leave it out.")
        if source is None:
            raise UserError("--multilabel: name the list, .json or folder with --source.")
        prepared = prepare_multilabel(
            output_dir, source, root=root, image_column=image_column, label_column=label_column,
            group=group, train_ratio=train_ratio, val_ratio=val_ratio, link=link, resize=resize,
            seed=seed,
        )  # fmt: skip
        print(prepared.summary())
        return
    result = run_preparation(
        output_dir,
        num_classes=num_classes,
        classes=_names(classes),
        exclude=_names(exclude),
        min_photos=min_photos,
        rename=_renamed(rename),
        merge=_merged(merge),
        shots=shots,
        source=source,
        layout=layout,
        splits=splits,
        root=root,
        image_column=image_column,
        label_column=label_column,
        leave_out=[name.strip() for name in leave_out.split(",")] if leave_out else None,
        group=group,
        relabel=relabel,
        link=link,
        resize=resize,
        download=download,
        train_ratio=train_ratio,
        val_ratio=val_ratio,
        seed=seed,
    )
    print(result.summary())


def _names(text: str | None) -> list[str] | None:
    """The names in `text` between its commas; those that hold a comma stand in quotation marks."""
    if not text:
        return None
    cells = next(csv.reader([text], skipinitialspace=True))
    return [name for cell in cells if (name := cell.strip())]


def _renamed(texts: Sequence[str] | None) -> dict[str, str] | None:
    """Old name -> new one, of texts such as old=new."""
    if not texts:
        return None
    pairs = [_sides(text, "--rename", "old=new") for text in texts]
    if twice := [old for old, count in Counter(old for old, _ in pairs).items() if count > 1]:
        raise UserError(f"--rename: {twice[0]} gets two names. Give it one.")
    return dict(pairs)


def _merged(texts: Sequence[str] | None) -> dict[str, list[str]] | None:
    """New name -> the classes that become it, of texts such as a,b=c."""
    if not texts:
        return None
    merged: dict[str, list[str]] = {}
    for text in texts:
        olds, new = _sides(text, "--merge", "a,b=c")
        merged.setdefault(new, []).extend(_names(olds) or [])
    return merged


def _sides(text: str, option: str, form: str) -> tuple[str, str]:
    """What stands before and after the last "="."""
    before, _, after = (side.strip() for side in text.rpartition("="))
    if not before or not after:
        raise UserError(f"{option} {text}: expected {form}, the new name last.")
    return before, after
