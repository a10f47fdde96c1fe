"""What one run of niwaki leaves behind: its record, and output that is either complete or
absent.
"""

from niwaki.core.provenance import hardware, versions
from niwaki.core.records.comparison import as_markdown, as_table, as_text, change, rows
from niwaki.core.records.dependency_maps import (
    DEPENDENCIES,
    DependencyMap,
    DependencyMaps,
    read_dependencies,
)
from niwaki.core.records.evaluation import Evaluation
from niwaki.core.records.files import staged_folder, write_bytes_atomic, write_text_atomic
from niwaki.core.records.outline import FixedAxis, GroupOutline, Outline, Unread, count
from niwaki.core.records.overwriting import check_file, check_output
from niwaki.core.records.reading import irregular, too_large
from niwaki.core.records.record import SCHEMA, Measurement, Record, RecordError

__all__ = [
    "DEPENDENCIES",
    "SCHEMA",
    "DependencyMap",
    "DependencyMaps",
    "Evaluation",
    "FixedAxis",
    "GroupOutline",
    "Measurement",
    "Outline",
    "Record",
    "RecordError",
    "Unread",
    "as_markdown",
    "as_table",
    "as_text",
    "change",
    "check_file",
    "check_output",
    "count",
    "hardware",
    "irregular",
    "read_dependencies",
    "rows",
    "staged_folder",
    "too_large",
    "versions",
    "write_bytes_atomic",
    "write_text_atomic",
]
