"""Objects at addresses (`s3://bucket/photo.jpg`, `sftp://`, `https://`, …), by fsspec.

Read with retries and a deadline, written whole. Nothing here is imported by who gives paths alone:
fsspec and the package of a protocol are loaded when an address of it is first used.
"""

from cliptune.storage.addresses import (
    address_of,
    file_system,
    is_address,
    joined,
    lists,
    path_in,
    protocol_of,
)
from cliptune.storage.hub import HubPlace, hub_place, kept_from_hub
from cliptune.storage.kept import (
    check_output_folder,
    folder_here,
    kept_checkpoint,
    kept_file,
    kept_folder,
    local_file,
    local_folder,
    output_folder,
)
from cliptune.storage.listing import listed, subfolders
from cliptune.storage.objects import (
    Entry,
    check_writable,
    entry,
    exists,
    fetch,
    opened,
    read_bytes,
    whole_object,
    write_whole,
)

__all__ = [
    "Entry",
    "HubPlace",
    "address_of",
    "check_output_folder",
    "check_writable",
    "entry",
    "exists",
    "fetch",
    "file_system",
    "folder_here",
    "hub_place",
    "is_address",
    "joined",
    "kept_checkpoint",
    "kept_file",
    "kept_folder",
    "kept_from_hub",
    "listed",
    "lists",
    "local_file",
    "local_folder",
    "opened",
    "output_folder",
    "path_in",
    "protocol_of",
    "read_bytes",
    "subfolders",
    "whole_object",
    "write_whole",
]
