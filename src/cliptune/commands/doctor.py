"""`cliptune doctor`: what this machine offers."""

from __future__ import annotations

from typing import Annotated

import typer

from cliptune.commands.options import Debug


def doctor(
    json: Annotated[bool, typer.Option("--json", help="For programs, and for issues.")] = False,
    network: Annotated[bool, typer.Option(help="Ask whether the hub can be reached.")] = True,
    debug: Debug = False,
) -> None:
    """Look at this machine: versions, devices, speed, memory, disks, the hub, and what to do."""
    from cliptune.commands.screen import quiet_libraries, show_examination
    from cliptune.doctor import as_dict, examine

    quiet_libraries(debug=debug)
    findings = examine(network=network)
    if json:
        import json as writer

        print(writer.dumps(as_dict(findings), indent=2, ensure_ascii=False))
    else:
        show_examination(findings)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)
