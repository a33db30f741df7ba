"""`cliptune prepare`: labelled photos of any form to train/, val/ and test/."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import Debug


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
    shots: Annotated[
        int | None, typer.Option(help="Keep so many photos of each class in train; all elsewhere.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="A .tar archive; a folder: one folder of photos for each class, photos named by "
            "class (pug_1.jpg), train/CLASS/, or Oxford-IIIT Pet's; a list of path,label[,split] "
            "(.csv, .tsv, .jsonl); .parquet; or hf:OWNER/NAME on the Hugging Face hub. "
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
    result = run_preparation(
        output_dir,
        num_classes=num_classes,
        classes=_names(classes),
        exclude=_names(exclude),
        min_photos=min_photos,
        shots=shots,
        source=source,
        layout=layout,
        splits=splits,
        root=root,
        image_column=image_column,
        label_column=label_column,
        leave_out=[name.strip() for name in leave_out.split(",")] if leave_out else None,
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
