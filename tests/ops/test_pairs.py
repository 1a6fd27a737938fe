import pytest
import torch

from contrex.errors import ArgumentError
from contrex.ops.pairs import contrasted_pairs, positive_pairs
from oracles import supcon as oracle


@pytest.mark.parametrize("labels", [[0], [3, 3], [2, 0, 2, 1], [7, -1, -1, 7, 7]])
@pytest.mark.parametrize("num_views", [1, 2, 3])
@pytest.mark.parametrize("num_background", [0, 2])
def test_masks_are_those_of_the_loops(labels, num_views, num_background):
    positive, contrasted = oracle.positive_and_contrasted(labels, num_views, num_background)
    found = positive_pairs(torch.tensor(labels), num_views, num_background=num_background)
    assert torch.equal(found, positive)
    assert torch.equal(contrasted_pairs(len(labels), num_views, num_background=num_background), contrasted)


def test_rows_are_sample_major():
    """View v of image i is row i V + v, as in `features.flatten(0, 1)`."""
    positive = positive_pairs(torch.tensor([0, 1]), 2)
    assert positive.nonzero().tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]


def test_no_images():
    assert positive_pairs(torch.zeros(0, dtype=torch.long), 2, num_background=1).shape == (0, 2)


def test_errors():
    labels = torch.tensor([0, 1])
    with pytest.raises(ArgumentError, match=r"`labels` must be integers \[n\], got torch.float32 \[2\]"):
        positive_pairs(labels.float(), 2)
    with pytest.raises(ArgumentError, match=r"got torch.int64 \[1, 2\]"):
        positive_pairs(labels[None], 2)
    with pytest.raises(ArgumentError, match="`num_views` must be at least 1, got 0"):
        positive_pairs(labels, 0)
    with pytest.raises(ArgumentError, match="`num_background` must be at least 0, got -1"):
        contrasted_pairs(2, 2, num_background=-1)
