"""The search for gamma finds the more faithful of planted ones, and what it gives is a setting of LRP."""

import pytest
import torch
from torch import nn

import contrex
from contrex.errors import ArgumentError, UnknownNameError
from contrex.explain.named import build_explainer
from contrex.gamma_search import layer_groups, search_gamma
from contrex.metrics import area_under_curve, deletion_curve
from explain.networks import images, network


def cancelling():
    """One score in which pixels speak for and against the class: what is left of the negatives under a large gamma is
    nearly nothing, so that their order is lost; gamma 0 is the exact effect of each pixel."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2, bias=False)).double().eval()
    net[1].weight.data[0] = 0.0
    return net


@pytest.mark.parametrize("planted", [(0.0, 100.0), (100.0, 0.0)])
def test_the_better_of_planted_gammas_is_found(planted):
    net, x = cancelling(), torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    found = search_gamma(net, x, target=1, gammas=planted, num_steps=16)
    assert found.by_group == {"head": 0.0}
    maps = contrex.LRP(net, gamma=(("1", 0.0),))(x, target=1).heatmap
    least, most = (
        area_under_curve(deletion_curve(net, x, m, target=torch.tensor([1, 1]), step=1)) for m in (-maps, maps)
    )
    assert found.faithfulness == pytest.approx(float((least - most).mean()))
    assert found.faithfulness > min(score for _, score in found.trials)


def test_each_group_has_its_own_and_the_same_call_finds_the_same():
    net, x = network("mlp"), images(2)
    arguments = {"gammas": (0.0, 0.5), "num_steps": 4, "rules": "epsilon"}
    found = search_gamma(net, x, **arguments)
    assert found == search_gamma(net, x, **arguments)
    assert list(found.groups) == ["early convolutions", "late convolutions", "dense", "head"]
    assert len(found.trials) <= 2 + 4
    assert found.faithfulness == max(score for _, score in found.trials)
    assert found.faithfulness >= max(score for one, score in found.trials if len(set(one.values())) == 1)
    by_text = build_explainer(net, found.explainer)(x)
    assert torch.equal(by_text.heatmap, contrex.LRP(net, rules="epsilon", gamma=found.gamma)(x).heatmap)
    assert by_text.options["gamma"] == found.gamma


def test_groups_of_a_transformer():
    timm = pytest.importorskip("timm")
    net = timm.models.VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, num_classes=4)
    assert layer_groups(net) == {
        "early convolutions": "patch_embed.proj",
        "attention": "blocks.0.attn.qkv blocks.0.attn.proj",
        "dense": "blocks.0.mlp.fc1 blocks.0.mlp.fc2",
        "head": "head",
    }


def test_wrong_arguments():
    net, x = network(), images(1)
    for options in ({"rounds": 0}, {"num_steps": 0}):
        with pytest.raises(ArgumentError, match="must be at least 1"):
            search_gamma(net, x, **options)
    with pytest.raises(ArgumentError, match="must not be empty"):
        search_gamma(net, x, gammas=())
    with pytest.raises(ArgumentError, match="`gamma` must not be negative"):
        search_gamma(net, x, gammas=(-1.0,))
    with pytest.raises(UnknownNameError, match="a layer in `gamma`"):
        search_gamma(net, x, groups={"all": "layer9"})
