"""`cliptune push`: a checkpoint put on the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from cliptune.commands.options import Debug, OneCheckpoint


def push(
    checkpoint: OneCheckpoint,
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="The model on the hub, made if need be.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make it for you alone.")] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="The branch, made if need be.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="What the commit says.")] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="ID",
            help="Yours for it, as the hub spells it, such as apache-2.0.",
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="What the base model is called on the hub, if training had it from a folder.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be pushed, and ask nothing of a hub.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Put a checkpoint on the hub, with a model card and without photos or folders of yours."""
    from cliptune.commands.screen import quiet_libraries, show_push
    from cliptune.sharing.push import push as run_push

    quiet_libraries(debug=debug)
    show_push(
        run_push(
            checkpoint, repository, private=private, revision=revision, message=message,
            licence=licence, base_model=base_model, dry_run=dry_run,
        )
    )  # fmt: skip
