"""Why a training step of contrex is one module that holds everything, gathers with a gradient, and goes through DDP.

Each row is one way to put the same loss into DDP, FSDP2 or torch.compile, and what this torch makes of it: exact, wrong
in silence, or an error. A row that changes with a newer torch is news for `contrex.training`, no bug.
"""

import pytest

from distributed import arrangements, processes

pytestmark = pytest.mark.slow

UNUSED = "Expected to have finished reduction in the prior iteration"
NO_PATH = "appears to not have been used in the graph"

EXACT = (
    "DDP",
    "DDP, find unused",
    "DDP, zero, maps only",
    "activation returned",
    "step",
    "step, static, maps only",
    "step, find unused, maps only",
    "step, zero, maps only",
    "step, vjp, hidden",
    "step, vjp, hidden, static, maps only",
    "step, vjp, hidden, compiled",
    "FSDP2 step, vjp, hidden",
    "FSDP2 step, autograd, hidden",
    "FSDP2 step, closed form",
)
WRONG = {
    "DDP, static": False,
    "DDP, static, maps only": False,
    "bypassed": False,
    "bypassed, maps only": False,
    "detached gather": True,
}
"""By whether the processes agree, so that none of them could notice."""

RAISES = {
    "DDP, maps only": UNUSED,
    "DDP, find unused, maps only": UNUSED,
    "backward(create_graph)": "a leaf Variable that requires grad is being used in an in-place operation",
    "activation returned, static": NO_PATH,
    "activation returned, find unused": NO_PATH,
    "step, maps only": UNUSED,
    "FSDP2": "not allocated",
    "FSDP2, hidden": "out of bounds for storage of size 0",
}


@pytest.fixture(scope="module")
def found():
    return processes.results_of(2, arrangements.outcomes)


def test_there_is_a_row_for_each():
    assert sorted([*EXACT, *WRONG, *RAISES]) == sorted(arrangements.CASES)


@pytest.mark.parametrize("name", EXACT)
def test_what_is_exact(found, name):
    for own in found:
        error, agree = own[name]
        assert error < 1e-12
        assert agree


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_silence(found, name):
    for own in found:
        error, agree = own[name]
        assert error > 1e-3
        assert agree is WRONG[name]


@pytest.mark.parametrize("name", RAISES)
def test_what_raises(found, name):
    for own in found:
        assert isinstance(own[name], str), own[name]
        assert RAISES[name] in own[name]


DOUBLE = "torch.compile with aot_autograd does not currently support double backward"
COMPILED = {
    "autograd, one graph": "Unsupported: using `torch.autograd.grad`",
    "autograd": DOUBLE,
    "vjp": None,
    "closed form": None,
    "features": None,
    "head": DOUBLE,
    "features and head": "RuntimeError: This backward function was compiled with non-empty donated buffers",
    "network that returns both": NO_PATH,
}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch.compile looks at its inputs
@pytest.mark.parametrize("name", arrangements.COMPILED)
def test_what_may_be_compiled(name):
    """What is before the explained layer; the whole only where nothing is differentiated twice."""
    arrange, options = arrangements.COMPILED[name]
    outcome = arrangements.outcome_compiled(arrange, **options)
    if COMPILED[name] is None:
        assert outcome < 1e-12
    else:
        assert COMPILED[name] in outcome
