"""The record of an evaluation, as dataclasses that go to JSON and back.

One evaluated classifier is one folder:

    record.json   a `Record`: configuration, versions, seeds, metrics with intervals and meaning, training curves
    sheets/*.png  pictures of what the run was trained on
    samples.npz   `Samples`: path, label, prediction, probability of each image, and its value of each metric
    samples.csv   the same numbers rounded, for people
    gallery.npz   the pictures and heatmaps that a report shows

`contrex.report` reads nothing else, so a report can be made again anywhere.

    record.py     the dataclasses          folder.py     writing and reading the folder
    plain.py      dataclasses <-> JSON     version1.py   records of the first version, completed
    scopes.py     which settings differ, and which of them matter for what
"""

from contrex.records.folder import read_run, write_run
from contrex.records.plain import from_plain, kind_name, to_plain, write_atomically, write_json
from contrex.records.record import (
    SCHEMA_VERSION,
    Dims,
    Gallery,
    MetricFamily,
    MetricRecord,
    PerImage,
    Profile,
    Record,
    RunRecord,
    Samples,
    Scatter,
)

__all__ = [
    "SCHEMA_VERSION",
    "Dims",
    "Gallery",
    "MetricFamily",
    "MetricRecord",
    "PerImage",
    "Profile",
    "Record",
    "RunRecord",
    "Samples",
    "Scatter",
    "from_plain",
    "kind_name",
    "read_run",
    "to_plain",
    "write_atomically",
    "write_json",
    "write_run",
]
