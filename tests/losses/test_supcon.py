import math

import pytest
import torch
import torch.nn.functional as F

from contrex.errors import ArgumentError
from contrex.losses import supcon_loss
from oracles import supcon as oracle
from sampling import sampled

LABELS = [2, 0, 2, 1, 0]


def embeddings(num=5, views=2, *, width=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(num, views, width, generator=generator, dtype=torch.float64), dim=-1).to(dtype)


@sampled(one_in=3)
@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("background", [0, 2])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_loss_and_gradient_are_those_of_the_loops(views, background, temperature):
    """The gradient is the appendix's formula, for the anchor and for what it is contrasted with."""
    features = embeddings(len(LABELS) + background, views).requires_grad_()
    loss = supcon_loss(features, torch.tensor(LABELS), temperature=temperature, num_background=background)
    torch.testing.assert_close(loss, oracle.loss(features, LABELS, temperature), rtol=1e-11, atol=1e-12)
    (gradient,) = torch.autograd.grad(loss, features)
    expected = oracle.gradient(features.detach(), LABELS, temperature)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["exconb", "supcon", "simclr"])
def test_golden_values_and_gradients(golden, name):
    """The file holds the temperatures in float32 and the rest in float64."""
    g = golden("exconb_a")
    background = int(g["n_background"])
    features = torch.from_numpy(g["features"])
    features = (features if name == "exconb" else features[:-background]).requires_grad_()
    loss = supcon_loss(
        features,
        None if name == "simclr" else torch.from_numpy(g["labels"]),
        temperature=round(float(g["tau"]), 6),
        base_temperature=round(float(g["base_temperature"]), 6),
        num_background=background if name == "exconb" else 0,
    )
    assert loss.item() == pytest.approx(float(g[name]), rel=1e-12)
    if name != "simclr":
        (gradient,) = torch.autograd.grad(loss, features)
        wanted = torch.from_numpy(g[f"grad_{name}"])
        assert wanted[len(features) :].abs().sum() == 0
        torch.testing.assert_close(gradient, wanted[: len(features)], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("background", [0, 1, 3])
def test_by_hand(background):
    """Two classes at right angles, background at right angles to both: the positive is 1, everything else 0."""
    axes = torch.eye(5)[:, None].expand(-1, 2, -1)[: 2 + background]
    loss = supcon_loss(axes, torch.tensor([4, 7]), temperature=1, num_background=background)
    assert loss.item() == pytest.approx(math.log(1 + (2 + 2 * background) / math.e), rel=1e-6)


def test_background_is_only_contrasted_with():
    """It raises the loss, gets a gradient, and its views are no positives of each other."""
    features = embeddings(7).requires_grad_()
    labels = torch.tensor(LABELS)
    with_it = supcon_loss(features, labels, num_background=2)
    assert with_it > supcon_loss(features[:5], labels)
    together = features.detach().clone()
    together[5:] = together[5:, :1]
    as_class = supcon_loss(together, torch.tensor([*LABELS, 9, 9]))
    assert supcon_loss(together, labels, num_background=2) > as_class + 0.1
    (gradient,) = torch.autograd.grad(with_it, features)
    assert (gradient[5:].abs().sum(2) > 0).all()


def test_without_labels_it_is_simclr():
    features = embeddings(6)
    expected = oracle.nt_xent(features[:, 0], features[:, 1], 0.2)
    torch.testing.assert_close(supcon_loss(features, None, temperature=0.2), expected, rtol=1e-12, atol=0)
    unique = supcon_loss(features, torch.tensor([5, 3, 9, 0, 1, 2]), temperature=0.2)
    torch.testing.assert_close(unique, expected, rtol=1e-12, atol=0)


def test_order_and_names_of_classes_change_nothing():
    features, labels = embeddings(7), torch.tensor(LABELS)
    loss = supcon_loss(features, labels, num_background=2)
    order = torch.tensor([3, 1, 4, 0, 2])
    moved = torch.cat([features[order], features[[6, 5]]]).flip(1)
    same = supcon_loss(moved, 10 - 3 * labels[order], num_background=2)
    torch.testing.assert_close(same, loss, rtol=1e-12, atol=0)


def test_anchors_without_a_positive_are_left_out():
    """One view: label 1 is unique. It is no anchor, but stands in the others' denominators."""
    features = embeddings(5, 1)
    loss = supcon_loss(features, torch.tensor(LABELS))
    losses = oracle.anchor_losses(features, LABELS, 0.1)
    assert len(losses) == 4
    torch.testing.assert_close(loss, sum(losses) / 4)
    assert loss > supcon_loss(features[[0, 1, 2, 4]], torch.tensor([2, 0, 2, 0]))


def test_base_temperature_is_a_factor():
    features, labels = embeddings(), torch.tensor(LABELS)
    scaled = supcon_loss(features, labels, temperature=0.2, base_temperature=0.07)
    torch.testing.assert_close(scaled, supcon_loss(features, labels, temperature=0.2) * 0.2 / 0.07)


def test_low_precision_at_a_low_temperature():
    """bfloat16 would round similarities of 100 to half a unit; they are computed in float32."""
    features = embeddings(16, 2, width=32, dtype=torch.bfloat16).requires_grad_()
    labels = torch.arange(16) % 4
    loss = supcon_loss(features, labels, temperature=0.01)
    assert loss.dtype == torch.float32
    exact = supcon_loss(features.detach().double(), labels, temperature=0.01)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, features)
    assert gradient.isfinite().all()


def test_perfect_and_opposite_embeddings_stay_finite():
    ends = torch.tensor([1.0, 0.0]).expand(4, 2, 2) * torch.tensor([1.0, 1.0, -1.0, -1.0])[:, None, None]
    for labels in ([0, 0, 1, 1], [0, 1, 0, 1]):
        features = ends.clone().requires_grad_()
        loss = supcon_loss(features, torch.tensor(labels), temperature=0.01)
        (gradient,) = torch.autograd.grad(loss, features)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_autocast_changes_nothing():
    features = embeddings(dtype=torch.float32).requires_grad_()
    outside = supcon_loss(features, torch.tensor(LABELS), temperature=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = supcon_loss(features, torch.tensor(LABELS), temperature=0.01)
    assert torch.equal(inside, outside)
    assert torch.equal(*(torch.autograd.grad(loss, features)[0] for loss in (inside, outside)))


@pytest.mark.parametrize("labels", [LABELS, None])
def test_the_first_images_alone_may_be_anchors(labels):
    """The mean over the anchors of two parts, each part put first in its turn, is the loss of all."""
    features, others = embeddings(7), torch.tensor(LABELS)
    found = []
    for order in ([0, 1, 2, 3, 4], [3, 4, 0, 1, 2]):
        num, own = (3 if order[0] == 0 else 2), None if labels is None else others[order]
        rows = features[[*order, 5, 6]]
        found.append(num / 5 * supcon_loss(rows, own, num_background=2, num_anchors=num))
    whole = supcon_loss(features, None if labels is None else others, num_background=2)
    torch.testing.assert_close(sum(found), whole, rtol=1e-12, atol=1e-12)
    with pytest.raises(ArgumentError, match=r"`num_anchors` must be from 1 to the number of images, 5; got 6"):
        supcon_loss(features, others, num_background=2, num_anchors=6)


def test_gradcheck():
    features = embeddings(4, width=3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda e: supcon_loss(e, torch.tensor([0, 1, 0]), temperature=0.5, num_background=1), features
    )


@pytest.mark.parametrize("row", [0, 4, 6])
def test_nan_is_not_swallowed(row):
    """Of anchors, of one that has no positive, and of background."""
    features = embeddings(7, 1)
    features[row, 0, 0] = math.nan
    with pytest.raises(ArgumentError, match=rf"`features` must be finite, those of image {row}, view 0 are NaN"):
        supcon_loss(features, torch.tensor([0, 0, 1, 1, 2]), num_background=2)


def test_refuses():
    features, labels = embeddings(), torch.tensor(LABELS)
    with pytest.raises(ArgumentError, match="`temperature` must be positive, got 0"):
        supcon_loss(features, labels, temperature=0)
    with pytest.raises(ArgumentError, match="`base_temperature` must be positive, got nan"):
        supcon_loss(features, labels, base_temperature=math.nan)
    with pytest.raises(ArgumentError, match=r"floating point \[n,V,D\], none of them 0, got torch.float64 \[5, 6\]"):
        supcon_loss(features[:, 0], labels)
    with pytest.raises(ArgumentError, match=r"torch.int64 \[5, 2, 6\]"):
        supcon_loss(features.long(), labels)
    with pytest.raises(ArgumentError, match=r"none of them 0, got .* \[0, 2, 6\]"):
        supcon_loss(features[:0], labels[:0])
    with pytest.raises(ArgumentError, match="`num_background` must leave an image of the 5 as anchor, got 5"):
        supcon_loss(features, labels[:0], num_background=5)
    with pytest.raises(ArgumentError, match="got -1"):
        supcon_loss(features, labels, num_background=-1)
    with pytest.raises(ArgumentError, match=r"`labels` must be one per image that is no background, 3; got \[5\]"):
        supcon_loss(features, labels, num_background=2)
    with pytest.raises(ArgumentError, match="`labels` must be integers"):
        supcon_loss(features, labels.double())
    with pytest.raises(ArgumentError, match="no anchor has a positive: pass `features` of two views or more"):
        supcon_loss(features[:, :1], torch.arange(5))
    with pytest.raises(ArgumentError, match="no anchor has a positive"):
        supcon_loss(features[:, :1], None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rows_must_be_of_unit_length(dtype):
    """To what bfloat16 can hold."""
    features = embeddings(40, width=128).to(dtype)
    supcon_loss(features, None)
    features[3, 1] *= 1.03
    with pytest.raises(ArgumentError, match=r"that of image 3, view 1 is 1\.03: normalise them with"):
        supcon_loss(features, None)
