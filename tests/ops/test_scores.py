import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrex.errors import ArgumentError, UnknownNameError
from contrex.ops import scores
from oracles import scores as oracle

PLAIN = {
    "logit": scores.logit,
    "probability": scores.probability,
    "log_probability": scores.log_probability,
    "mean": scores.mean_contrast,
    "max": scores.max_contrast,
    "weighted": scores.weighted_contrast,
}
logit_rows = st.lists(st.floats(-8, 8), min_size=2, max_size=6, unique=True)


@pytest.mark.parametrize("name", PLAIN)
@given(row=logit_rows, data=st.data())
@settings(max_examples=20, deadline=None)
def test_gradient_is_the_papers(name, row, data):
    target = data.draw(st.integers(0, len(row) - 1))
    logits = torch.tensor([row], dtype=torch.float64, requires_grad=True)
    PLAIN[name](logits, torch.tensor([target])).sum().backward()
    expected = torch.tensor(oracle.gradient(name, row, target), dtype=torch.float64)
    torch.testing.assert_close(logits.grad[0], expected, rtol=1e-6, atol=1e-9)


def test_gradient_of_pair_contrast_is_the_papers():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    target, foil = torch.tensor([0, 1, 2]), torch.tensor([4, 0, 3])
    scores.pair_contrast(logits, target, foil).sum().backward()
    for row, t, s, got in zip(logits.tolist(), target.tolist(), foil.tolist(), logits.grad, strict=True):
        torch.testing.assert_close(got.tolist(), oracle.gradient("pair", row, t, s))


@pytest.mark.parametrize("name", ["mean", "max", "weighted"])
def test_contrasts_ignore_a_constant_added_to_all_logits(name):
    logits, target = torch.randn(16, 7, dtype=torch.float64), torch.randint(7, (16,))
    shifted = scores.score(logits + 123.0, target, name)
    torch.testing.assert_close(shifted, scores.score(logits, target, name), rtol=0, atol=1e-12)
    assert not torch.allclose(scores.logit(logits + 123.0, target), scores.logit(logits, target))


def test_two_classes_make_all_contrasts_equal():
    logits, target = torch.randn(16, 2, dtype=torch.float64), torch.randint(2, (16,))
    expected = scores.pair_contrast(logits, target, 1 - target)
    for name in scores.CONTRASTS:
        torch.testing.assert_close(scores.score(logits, target, name), expected)


def test_weighted_contrast_keeps_its_gradient_where_probability_underflows():
    logits = torch.tensor([[60.0, 0.0, -1.0]], requires_grad=True)
    target = torch.tensor([0])
    (from_probability,) = torch.autograd.grad(scores.probability(logits, target).sum(), logits)
    (from_contrast,) = torch.autograd.grad(scores.weighted_contrast(logits, target).sum(), logits)
    assert from_probability.abs().max() < 1e-20
    others = torch.tensor([0.0, -1.0]).softmax(0)
    torch.testing.assert_close(from_contrast, torch.tensor([[1.0, -others[0], -others[1]]]))


def test_weighted_contrast_is_the_log_odds():
    logits, target = torch.randn(8, 5, dtype=torch.float64), torch.randint(5, (8,))
    p = scores.probability(logits, target)
    torch.testing.assert_close(scores.weighted_contrast(logits, target), (p / (1 - p)).log())


@pytest.mark.parametrize("contrast", [None, "mean", "max", "weighted", 3])
def test_cotangent_is_the_gradient_and_stays_differentiable(contrast):
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 4])

    def squared_cotangent(y):
        return (scores.cotangent(y, target, contrast) ** 2).sum()

    (row,) = torch.autograd.grad(scores.score(logits, target, contrast).sum(), logits)
    torch.testing.assert_close(scores.cotangent(logits, target, contrast).detach(), row)
    torch.testing.assert_close(scores.cotangent(logits.detach(), target, contrast), row)
    if contrast == "weighted":
        assert torch.autograd.gradcheck(squared_cotangent, (logits,))


def test_class_indices_of_every_convenient_form():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    for value, expected in [(None, [1, 0]), (2, [2, 2]), ([2, 0], [2, 0]), (torch.tensor([0, 1]), [0, 1])]:
        found = scores.class_indices(value, logits)
        assert found.tolist() == expected
        assert found.dtype == torch.int64


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], r"`target` must be one class or one per image, \[2\]; got shape \[1\]"),
        ([0, 1, 2], r"got shape \[3\] for 2 image"),
        (3, "between 0 and 2, the model's classes; got 3"),
        (-1, "got -1"),
        (torch.tensor([0.5, 1.0]), "integers"),
        (torch.tensor([True, False]), "integers"),
        (torch.zeros(2, 2, dtype=torch.long), "one class or one per image"),
    ],
)
def test_class_indices_refuses(value, message):
    with pytest.raises(ArgumentError, match=message):
        scores.class_indices(value, torch.zeros(2, 3))


def test_score_refuses():
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(UnknownNameError, match=r"weighted, nearest; got 'wieghted'. Did you mean 'weighted'"):
        scores.score(logits, target, "wieghted")
    with pytest.raises(ArgumentError, match="both are class 1 for image 1"):
        scores.score(logits, target, 1)
    with pytest.raises(ArgumentError, match="needs at least two classes, the model has 1"):
        scores.score(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), "mean", "multilabel")
    with pytest.raises(ArgumentError, match="`contrast` must be between 0 and 2"):
        scores.score(logits, target, 5)


def test_several_foils_are_a_weighted_contrast_among_them():
    logits, target = torch.randn(3, 6, dtype=torch.float64), torch.tensor([0, 1, 2])
    foils = torch.tensor([[3, 5], [4, 0], [5, 1]])
    found = scores.score(logits, target, foils)
    row = scores.cotangent(logits, target, foils)
    for n in range(3):
        rivals = logits[n, foils[n]]
        assert found[n] == pytest.approx(float(logits[n, target[n]] - rivals.logsumexp(0)))
        torch.testing.assert_close(row[n, foils[n]], -rivals.softmax(0))
        assert row[n, target[n]] == 1
        assert (row[n] != 0).sum() == 3
    everything = [[s for s in range(6) if s != t] for t in target.tolist()]
    torch.testing.assert_close(
        scores.cotangent(logits, target, everything), scores.cotangent(logits, target, "weighted")
    )
    torch.testing.assert_close(
        scores.score(logits, target, [[3, 4]]), scores.score(logits, target, torch.tensor([[3, 4]] * 3))
    )
    with pytest.raises(ArgumentError, match="both are class 2 for image 2"):
        scores.score(logits, target, [[5, 2]])
    with pytest.raises(ArgumentError, match=r"one class or one per image, \[3\]; got shape \[2, 2\]"):
        scores.score(logits, target, [[3, 4], [3, 4]])


@pytest.mark.parametrize("value", ["tabby", [[0], [1, 2]], [None]])
def test_class_indices_refuses_what_is_no_number(value):
    with pytest.raises(ArgumentError, match="`target` must hold class indices"):
        scores.class_indices(value, torch.zeros(2, 3))


# --- one logit, several labels --------------------------------------------------------------------------------------

NAMES = ("logit", "probability", "log_probability")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [[[0.7], [-2.0], [0.0]], [[5.0], [-6.0]], [[0.5, -1.0, 2.0], [3.0, -3.0, 0.1]]])
def test_gradients_of_sigmoids_are_those_of_plain_words(name, rows):
    """One logit by its own, and labels: by autograd of the score, and written out as a cotangent."""
    task = "multilabel" if len(rows[0]) > 1 else "binary"
    num_classes = max(2, len(rows[0]))
    for target in range(num_classes):
        logits = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
        classes = torch.full((len(rows),), target)
        PLAIN[name](logits, classes, task).sum().backward()
        expected = [oracle.gradient_of_sigmoids(name, row, target) for row in rows]
        torch.testing.assert_close(logits.grad.tolist(), expected, rtol=1e-6, atol=1e-9)
        weights = scores.class_weights(logits.detach(), classes, None, task)
        question = scores.Question(weights[:, None], name, task)
        torch.testing.assert_close(question.cotangents(logits.detach())[:, 0].tolist(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("contrast", [None, "mean", "max", "weighted", "pair"])
def test_probabilities_of_one_logit_are_those_of_its_softmax_twin(name, contrast):
    y = torch.tensor([[0.3], [-4.0], [12.0], [0.0]], dtype=torch.float64)
    twin = torch.cat([torch.zeros_like(y), y], 1)
    for target in (0, 1):
        classes = torch.full((4,), target)
        foil = 1 - target if contrast == "pair" else contrast
        one, two = (scores.class_weights(logits, classes, foil, score=name)[:, None] for logits in (y, twin))
        one, two = scores.Question(one, name), scores.Question(two, name)
        torch.testing.assert_close(one.values(y), two.values(twin))
        torch.testing.assert_close(one.cotangents(y), two.cotangents(twin)[..., 1:])
    torch.testing.assert_close(scores.probabilities(y), twin.softmax(1))


@pytest.mark.parametrize("contrast", ["mean", "max", "weighted", "pair"])
def test_a_contrast_of_one_logit_means_its_other_side(contrast):
    y = torch.tensor([[0.3], [-4.0], [12.0]], dtype=torch.float64, requires_grad=True)
    for target in (0, 1):
        classes = torch.full((3,), target)
        foil = 1 - target if contrast == "pair" else contrast
        found = scores.score(y, classes, foil)
        expected = [oracle.contrast_of_softmax(value, target, contrast) for (value,) in y.tolist()]
        torch.testing.assert_close(found.tolist(), expected)
        (row,) = torch.autograd.grad(found.sum(), y)
        torch.testing.assert_close(scores.cotangent(y.detach(), classes, foil), row)


def test_labels_do_not_compete_in_the_weighted_contrast_alone():
    y, target = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    own = y.gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(scores.score(y, target, "weighted", "multilabel"), own)
    p = own.sigmoid()
    torch.testing.assert_close(own, (p / (1 - p)).log())  # the log-odds, as of the softmax
    for contrast in ("mean", "max", (target + 1) % 4, [[(t + 1) % 4, (t + 2) % 4] for t in target.tolist()]):
        expected = scores.score(y, target, contrast)
        torch.testing.assert_close(scores.score(y, target, contrast, "multilabel"), expected)
        row = scores.cotangent(y, target, contrast, "multilabel")
        torch.testing.assert_close(row, scores.cotangent(y, target, contrast))
    one_label = torch.tensor([[2.0]])
    assert scores.score(one_label, torch.tensor([0]), "weighted", "multilabel").tolist() == [2.0]


def test_logarithms_of_sigmoids_stay_finite():
    y = torch.tensor([[200.0], [-200.0]])
    torch.testing.assert_close(scores.log_probabilities(y), torch.tensor([[-200.0, 0.0], [0.0, -200.0]]))
    question = scores.Question(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), "log_probability")
    torch.testing.assert_close(question.cotangents(y)[:, 0, 0], torch.tensor([-1.0, 1.0]))


def test_the_class_of_one_logit_is_its_sign():
    y = torch.tensor([[1.5], [-0.5], [0.0]])
    assert scores.predicted(y).tolist() == [1, 0, 0]
    assert scores.class_indices(None, y).tolist() == [1, 0, 0]
    assert scores.many_classes(None, y, None).tolist() == [[1, 0], [0, 1], [0, 1]]
    assert scores.many_classes(None, y, 1).tolist() == [[1], [0], [0]]
    assert scores.predicted(y, "multilabel").tolist() == [0, 0, 0]


def test_labels_above_a_threshold():
    y = torch.tensor([[1.0, -1.0, 2.0], [-3.0, -2.0, -9.0]])
    assert scores.many_classes(None, y, None, "multilabel").tolist() == [[2, 0], [1, 0]]
    assert scores.many_classes(None, y, None, "multilabel", 0.8).tolist() == [[2], [1]]
    assert scores.many_classes(None, y, None, "multilabel", 0.0).tolist() == [[2, 0, 1], [1, 0, 2]]
    assert scores.many_classes(None, y[1:], None, "multilabel", 0.9).tolist() == [[1]]


@pytest.mark.parametrize(
    ("num", "task", "message"),
    [
        (1, "multiclass", "`task` 'multiclass' needs at least two logits, the model has 1, whose softmax is always 1"),
        (3, "binary", "`task` 'binary' needs one logit, the model has 3: pass task='multiclass'"),
        (2, "binary", "`task` 'binary' needs one logit, the model has 2"),
        (3, "multi_label", "`task` must be one of multiclass, binary, multilabel; got 'multi_label'. Did you mean"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(num, task, message):
    with pytest.raises(ArgumentError, match=message):
        scores.task_of(torch.zeros(2, num), task)


def test_one_logit_refuses():
    y, target = torch.zeros(2, 1), torch.tensor([0, 1])
    for call, message in (
        (lambda: scores.class_indices(2, y), "`target` must be between 0 and 1, the model's classes; got 2"),
        (lambda: scores.class_indices(1, y, "multilabel"), "`target` must be between 0 and 0"),
        (lambda: scores.many_classes(None, y, 3), "`k` must be between 1 and 2, the model's classes; got 3"),
        (lambda: scores.score(y, target, 1), "`contrast` must differ from `target`, both are class 1 for image 1"),
        (lambda: scores.score(y, target, 2), "`contrast` must be between 0 and 1"),
        (lambda: scores.score(y, target, "mena"), "`contrast` must be one of"),
        (lambda: scores.mean_contrast(y, target), "at least two classes, the model has 1"),
        (lambda: scores.weighted_contrast(y, target), "at least two classes, the model has 1"),
        (lambda: scores.pair_contrast(y, target, target), "at least two classes, the model has 1"),
        (lambda: scores.many_classes(None, y, None, None, 0.5), "`threshold` says which labels .* task is 'binary'"),
        (lambda: scores.many_classes(None, y, None, "multilabel", 1.0), "`threshold` must be a probability in 0..1"),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()
