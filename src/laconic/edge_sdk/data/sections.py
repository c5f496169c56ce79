"""`data` in a device's configuration: a path, or a table whose `kind` says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from laconic.config import Section
from laconic.edge_sdk.data.arrays import NpzFile
from laconic.edge_sdk.data.buffer import Keep
from laconic.edge_sdk.data.buffer_folder import BufferFolder
from laconic.edge_sdk.data.checks import OnBadRow
from laconic.edge_sdk.data.choosing import Examples


class NpzSection(Section, frozen=True, tag_field="kind", tag="npz"):
    """`kind = "npz"`: a file with arrays `x` and `y`, read again when it has changed."""

    path: str
    on_bad_row: OnBadRow = "raise"
    max_bytes: int = 2**28


class BufferSection(Section, frozen=True, tag_field="kind", tag="buffer"):
    """`kind = "buffer"`: the folder of an `ExampleBuffer` that another program fills."""

    path: str
    keep: Keep = "newest"
    max_bytes: int = 2**26
    max_examples: int | None = None


DataSection: TypeAlias = NpzSection | BufferSection
KINDS: dict[str, type[DataSection]] = {"npz": NpzSection, "buffer": BufferSection}
"""What `kind` may be."""


def examples_of(data: str | DataSection, folder: Path) -> Examples:
    """What a configuration describes; its paths are relative to `folder`."""
    match data:
        case str():
            return folder / data
        case NpzSection():
            return NpzFile(folder / data.path, data.on_bad_row, data.max_bytes)
        case BufferSection():
            return BufferFolder(folder / data.path, data.keep, data.max_bytes, data.max_examples)
