"""Cross-entropy on labelled images, consistency on unlabelled ones: against the equations, and what may not matter."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from contrex.methods import METHODS, training_step
from contrex.settings import CGC, CGCNoNegatives
from methods.test_steps import by_hand, make_batch, make_classifier
from sampling import crossed


def two_batches(num=3, beside=5, *, seed=0):
    """Labelled images with others beside them, whose labels nobody has."""
    others = make_batch(beside, seed=seed + 10)
    return replace(make_batch(num, seed=seed), unlabelled=replace(others, labels=torch.full((beside,), -1)))


def consistency(network, batch, **options):
    """Of the equations' loss, the term of the heatmaps alone."""
    labels = torch.zeros(len(batch), dtype=torch.long)
    one, none = (by_hand(network, replace(batch, labels=labels), weight=w, **options) for w in (1.0, 0.0))
    return one - none


@pytest.mark.parametrize(
    ("negatives", "variant", "contrast"),
    crossed([True, False], ["paper", "published-code"], [None, "weighted"], one_in=2),
)
def test_the_loss_is_the_cross_entropy_of_one_and_the_consistency_of_the_other(negatives, variant, contrast):
    """By loops over heatmaps from autograd; batch norm in train mode, each part with its own statistics."""
    settings = (CGC if negatives else CGCNoNegatives)(
        weight=0.7, variant=variant, contrast=contrast, resolution=16, views="transformed"
    )
    batch, classifier = two_batches(), make_classifier()
    batch = replace(batch, unlabelled=replace(batch.unlabelled, views=batch.unlabelled.views * 2))  # for by_hand
    step = training_step(classifier, settings).train()
    step(batch)  # the first call verifies the closed form
    reference = make_classifier().network.train()
    reference.load_state_dict(classifier.network.state_dict())
    output = step(batch)
    options = {"variant": variant, "contrast": contrast, "negatives": negatives}
    expected = F.cross_entropy(reference(batch.views[0].pixels * 4 - 2), batch.labels)
    expected = expected + 0.7 * consistency(reference, batch.unlabelled, **options)
    torch.testing.assert_close(output.loss, expected, rtol=1e-8, atol=1e-10)
    output.loss.backward()
    gradients = torch.autograd.grad(expected, list(reference.parameters()))
    for parameter, gradient in zip(classifier.network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("views", ["both", "plain", "transformed"])
def test_the_cross_entropy_is_that_of_the_baseline(views):
    batch = two_batches()
    step = training_step(make_classifier(), CGC(views=views, resolution=16)).train()
    baseline = training_step(make_classifier(), METHODS["cross_entropy"](views=views)).train()
    found, expected = step(batch).logs, baseline(batch).logs
    assert found["cross_entropy"] == expected["loss"]
    assert found["accuracy"] == expected["accuracy"]


def test_what_is_unlabelled_has_no_label_and_nothing_else_has_a_heatmap():
    batch = two_batches()
    step = training_step(make_classifier(), CGC(resolution=16, queue=20)).train()
    logs = step(batch).logs
    assert len(step.queue) == 5
    for labels in (torch.full((5,), 2), torch.arange(5) % 3):
        changed = replace(batch, unlabelled=replace(batch.unlabelled, labels=labels))
        other = training_step(make_classifier(), CGC(resolution=16, queue=20)).train()(changed).logs
        assert {name: float(value) for name, value in other.items()} == {n: float(v) for n, v in logs.items()}
    other = training_step(make_classifier(), CGC(resolution=16, queue=20)).train()
    changed = replace(two_batches(seed=3), unlabelled=batch.unlabelled)
    assert other(changed).logs["consistency"] == logs["consistency"]
    assert other(changed).logs["cross_entropy"] != logs["cross_entropy"]


def test_only_consistency_takes_images_without_labels():
    """The reason of the others is in their refusal (tests/training)."""
    taking = {name for name, make in METHODS.items() if training_step(make_classifier(), make()).wants.unlabelled_views}
    assert taking == {"cgc", "cgc_no_negatives", "retrofit"}


def test_a_share_of_the_views_of_images_without_labels_and_of_what_is_classified():
    batch = two_batches()
    whole, fewer = (CGC(resolution=16, views="plain", views_share=share) for share in (1.0, 0.5))
    num = (len(batch.unlabelled) + 1) // 2
    cut = replace(batch, unlabelled=batch.unlabelled.part(slice(num)))
    found, expected = (training_step(make_classifier(), one).eval()(b) for one, b in ((fewer, batch), (whole, cut)))
    for name in ("cross_entropy", "consistency"):
        torch.testing.assert_close(found.logs[name], expected.logs[name])
    step = training_step(make_classifier(), replace(fewer, views="transformed")).eval()
    logits = make_classifier().network.eval()(make_batch(8).views[0].pixels[:4] * 4 - 2)
    expected = F.cross_entropy(logits, make_batch(8).labels[:4])
    torch.testing.assert_close(step(make_batch(8)).logs["cross_entropy"], expected)
