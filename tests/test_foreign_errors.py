"""Errors of the system in the same words wherever they are met."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cliptune.errors import CliptuneError, DataError, ResourceError
from cliptune.foreign_errors import (
    DISK,
    FULL,
    disk_errors,
    resource_errors,
    system_error_in_words,
)
from cliptune.inference.output import open_output
from cliptune.model.checkpoint import new_checkpoint_folder


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number), "a-file")


@pytest.mark.parametrize("number", FULL)
def test_every_writer_says_what_happened_in_the_words_of_the_table(
    tmp_path: Path, number: int
) -> None:
    happened, remedy = DISK[number]
    writers = (
        lambda: disk_errors(tmp_path),
        lambda: resource_errors(tmp_path),
        lambda: new_checkpoint_folder(tmp_path / "checkpoint-epoch-1"),
        lambda: open_output(tmp_path / "out.csv", top_k=1),
    )
    for writer in writers:
        with pytest.raises(ResourceError) as told, writer():
            raise error_of(number)
        assert str(told.value).startswith(str(tmp_path))
        assert happened in str(told.value)
        assert remedy in str(told.value)
    said = system_error_in_words(error_of(number))
    assert said == f"a-file: {happened}. {remedy}, then run the same command again."


def test_an_error_outside_of_those_asked_for_passes_as_it_is(tmp_path: Path) -> None:
    error = error_of(errno.ENOENT)
    with pytest.raises(FileNotFoundError) as passed, resource_errors(tmp_path, numbers=DISK):
        raise error
    assert passed.value is error
    with pytest.raises(DataError, match="a-file: No such file or directory"), disk_errors(tmp_path):
        raise error


@pytest.mark.parametrize("number", DISK)
def test_the_file_the_system_names_is_told_where_no_other_is_given(number: int) -> None:
    with (
        pytest.raises(ResourceError, match=r"^a-file: .*; all is whole\. .*, and go on\.$"),
        resource_errors(None, left="; all is whole", then=", and go on", numbers=DISK),
    ):
        raise error_of(number)


def test_a_fault_of_ours_is_not_told_as_one_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), disk_errors(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(CliptuneError, match="ours"), disk_errors(tmp_path):
        raise CliptuneError("ours")
