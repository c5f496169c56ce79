"""What a device learns from: a program's own examples, in whatever form they are."""

from laconic.edge_sdk.data.arrays import Arrays, NpzFile
from laconic.edge_sdk.data.buffer import BufferStatus, ExampleBuffer
from laconic.edge_sdk.data.buffer_folder import BufferFolder
from laconic.edge_sdk.data.choosing import Examples, source_of
from laconic.edge_sdk.data.csv_file import CsvFile
from laconic.edge_sdk.data.signature import Signature
from laconic.edge_sdk.data.snapshot import Snapshot, Source, samples_of, snapshot_of
from laconic.edge_sdk.data.sqlite_table import SqliteTable
from laconic.edge_sdk.data.streams import Callback, Dataset, Samples

__all__ = [
    "Arrays",
    "BufferFolder",
    "BufferStatus",
    "Callback",
    "CsvFile",
    "Dataset",
    "ExampleBuffer",
    "Examples",
    "NpzFile",
    "Samples",
    "Signature",
    "Snapshot",
    "Source",
    "SqliteTable",
    "samples_of",
    "snapshot_of",
    "source_of",
]
