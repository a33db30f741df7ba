"""A check on the screen, what it writes, and what `--fix` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cliptune.commands.screen import below
from cliptune.errors import UserError
from cliptune.files import user_path
from cliptune.hints import check_choice
from cliptune.language import amount
from cliptune.language import translated as _
from cliptune.storage import (
    check_output_folder,
    folder_here,
    local_folder,
    output_folder,
)
from cliptune.text import command

if TYPE_CHECKING:
    from cliptune.checking.check import CheckResult


class SuspectsWanted(NamedTuple):
    """The options of `check` that are about labels photos contradict; no `model`: none."""

    model: str | None = None
    export: Path | None = None
    base_model: str | None = None
    device: str = "auto"

    def refuse_unfit(self) -> None:
        """Raise `UserError` for a list that cannot be written."""
        from cliptune.checking.suspects import check_suspects_file

        if self.export is not None:
            if self.model is None:
                raise UserError(
                    f"--export-suspects {self.export}: which labels are suspect a model says. Add "
                    "--model NAME_OR_CHECKPOINT."
                )
            check_suspects_file(self.export)

    def added_to(self, result: CheckResult) -> CheckResult:
        """`result` with them; the list is written."""
        from cliptune.checking.suspects import write_suspects
        from cliptune.labelling.suspects import find_suspects

        if self.model is None:
            return result
        found = find_suspects(result, self.model, base_model=self.base_model, device=self.device)
        if self.export is not None:
            write_suspects(found.photos, user_path(self.export))
        return result.with_suspects(found)


def check_to_screen(
    data_dir: Path, *, output: Path, strict: bool, fix: bool, undo: bool, line: str,
    suspects: SuspectsWanted, engine: str, ray_address: str | None, debug: bool,
) -> int:  # fmt: skip
    """Check, show and write what was found; set aside or bring back. Returns the exit code.

    `line` is the command that checks the same again, for the page.
    """
    from cliptune.checking.quarantine import QUARANTINE, finish
    from cliptune.checking.quarantine import fix as set_aside
    from cliptune.checking.quarantine import undo as bring_back
    from cliptune.checking.report import check_text, write_check
    from cliptune.data.multilabel import LABELS_FILE, is_multilabel

    if fix and undo:
        raise UserError("--fix and --undo: choose one of the two.")
    if fix or undo:
        data_dir = folder_here(data_dir, "--fix and --undo:")
    data_dir = local_folder(data_dir)
    check_output_folder(output)
    suspects.refuse_unfit()
    if fix and is_multilabel(data_dir):
        raise UserError(
            f"--fix: {data_dir} lists its photos in {LABELS_FILE}, which would go on naming what "
            "is set aside. Take the lines out of it yourself."
        )
    if undo:
        back = bring_back(data_dir)
        print(_("{folder}: {files} brought back from {quarantine}").format(
            folder=data_dir, files=amount(len(back), "file"), quarantine=data_dir / QUARANTINE
        ))  # fmt: skip
        return 0
    if fix and (moved := finish(data_dir)):
        print(_("{folder}: finished a --fix that was broken off; {files} set aside.").format(
            folder=data_dir, files=amount(len(moved), "file")
        ))  # fmt: skip
        return 0
    result = suspects.added_to(
        _checked(data_dir, engine=engine, ray_address=ray_address, debug=debug)
    )
    with output_folder(output) as folder:
        page = write_check(result, folder, line)[1]
    pictures = _("Pictures: {page}").format(page=below(output, page.name))
    print(f"{check_text(result)}\n\n{pictures}")
    if suspects.export is not None:
        print(_("To edit: {path}").format(path=suspects.export))
    if not fix:
        return result.exit_code(strict=strict)
    moved = set_aside(data_dir, result.offenders)
    print(
        "\n"
        + _("{files} set aside in {quarantine}; none was deleted.").format(
            files=amount(len(moved), "file"), quarantine=data_dir / QUARANTINE
        )
    )
    if moved:
        line = command("cliptune", "check", data_dir, "--undo")
        print(_("To bring them back: {line}").format(line=line))
    # What no file's absence mends is left: a missing folder, say.
    return 2 if any(not finding.offenders for finding in result.errors) else 0


def _checked(data_dir: Path, *, engine: str, ray_address: str | None, debug: bool) -> CheckResult:
    check_choice("--engine", engine, ("here", "ray"))
    if engine == "ray":
        from cliptune.distributed import check as check_on_cluster

        return check_on_cluster(data_dir, ray_address=ray_address, debug=debug)
    from cliptune.checking.check import check

    return check(data_dir)
