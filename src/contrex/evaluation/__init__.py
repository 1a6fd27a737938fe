"""Running explainers and metrics over a data set: `evaluate(subject, options)` returns a record.

`PROTOCOLS` has what `evaluation.metrics` may name. Each protocol shows groups of images to metrics of
`contrex.metrics`. What several protocols need (squares, logits, heatmaps, whole images) is computed once, by a `Group`.
A new protocol is a subclass of `Protocol` in one of the package's files, or in a file of your own, which
`evaluation.metrics` names as `FILE.py:NAME`. A metric without a protocol can be named in the same way
(`bare_metric.py`).

Which class is explained depends on the metric. Localisation explains the label. Consistency, and everything that
changes pixels, explains the predicted class and scores it too (the published CGC code explains the label there).
"""

from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.evaluation.protocols import PROTOCOLS, check_names, protocol_named
from contrex.evaluation.run import evaluate, evaluate_each
from contrex.evaluation.subject import Subject, command_line, configuration_of, weights_sha256
from contrex.evaluation.validation import Validation, validate, validation_groups

__all__ = [
    "PROTOCOLS",
    "Bench",
    "Group",
    "Protocol",
    "Subject",
    "Validation",
    "check_names",
    "command_line",
    "configuration_of",
    "evaluate",
    "evaluate_each",
    "protocol_named",
    "validate",
    "validation_groups",
    "weights_sha256",
]
