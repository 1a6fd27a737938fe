"""Running explainers and metrics over a data set: `evaluate(subject, options)` returns a record.

`PROTOCOLS` has what `evaluation.metrics` may name. Each protocol shows groups of images to metrics of
`contrex.metrics`; what several need (squares, logits, heatmaps, whole images) a `Group` computes once. A new one is a
subclass of `Protocol` in one of the package's files, or in one of your own, which `evaluation.metrics` names as
`FILE.py:NAME`; a metric without a protocol may be named so too (`bare_metric.py`).

Which class is explained: the label's for localisation; the predicted one for consistency and for everything that
changes pixels, where it is also the one scored (the published CGC code explains the label's class there).
"""

from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.evaluation.protocols import PROTOCOLS, check_names, protocol_named
from contrex.evaluation.run import Validation, evaluate, evaluate_each, validate, validation_groups
from contrex.evaluation.subject import Subject, command_line, configuration_of, weights_sha256

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
