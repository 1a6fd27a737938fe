"""FEM and KPCA-CAM, which know no class, against their equations and peers."""

import pytest
import torch

from contrex.errors import ArgumentError, UnknownNameError
from contrex.explain import FEM, KPCACAM, EigenCAM
from explain.activation.test_activation_methods import by_grad_cam_package, close
from explain.networks import images, network
from oracles import activation_methods as oracles


def activations(net, x):
    return net.act(net.features(x)).detach()


@pytest.mark.parametrize("variant", ["paper", "published-code"])
@pytest.mark.parametrize("k", [0.0, 1.5])
def test_fem(k, variant):
    net, x = network("mlp"), images()
    expected = [oracles.fem(one, k, published_code=variant == "published-code") for one in activations(net, x)]
    close(FEM(net, "act", k=k, variant=variant)(x).heatmap, torch.stack(expected))


def test_fem_finds_nothing_in_a_channel_that_is_the_same_everywhere():
    flat = torch.full((1, 2, 5, 7), 0.1)
    assert not FEM(network(), k=0.0).heatmap(flat).any()
    flat[0, 1, 2, 3] = 1.0
    found = FEM(network(), k=0.0).heatmap(flat)
    assert found.count_nonzero() == 1
    close(found[0, 2, 3], flat[0, 1].mean(), rtol=1e-6)


@pytest.mark.parametrize("kernel", oracles.KERNELS)
def test_kpca_cam(kernel):
    net, x = network("mlp"), images(2)
    expected = torch.stack([oracles.kpca_cam(one, kernel) for one in activations(net, x)])
    close(KPCACAM(net, "act", kernel=kernel)(x).heatmap, expected, rtol=1e-6, atol=1e-8)


def test_kpca_cam_has_both_signs_and_its_own_gamma():
    net, x = network("mlp"), images()
    found = KPCACAM(net, "act")(x).heatmap
    close(found.sum((1, 2)), torch.zeros(3, dtype=torch.float64))
    assert ((found * activations(net, x).mean(1)).sum((1, 2)) > 0).all()
    close(KPCACAM(net, "act", gamma=1 / 6)(x).heatmap, found)
    assert not torch.allclose(KPCACAM(net, "act", gamma=1.0)(x).heatmap, found)


def test_linear_kpca_cam_is_eigen_cam_of_centred_cells():
    cells = images(2)
    centred = cells - cells.mean((2, 3), keepdim=True)
    found, expected = KPCACAM(network(), kernel="linear").heatmap(centred), EigenCAM(network()).heatmap(centred)
    close(found.abs(), expected.abs())


@pytest.mark.parametrize("kind", [FEM, KPCACAM])
def test_one_broken_image_breaks_no_other(kind):
    explainer, cells = kind(network()), images(2)
    whole = explainer.heatmap(cells)
    cells[1, 0, 0, 0] = torch.nan
    found = explainer.heatmap(cells)
    close(found[0], whole[0])
    assert found[1].isnan().all()


def test_wrong_options_are_refused():
    net, x = network(), images()
    with pytest.raises(ArgumentError, match="`k` must be a number of standard deviations, 0 or more; got -1"):
        FEM(net, k=-1)
    with pytest.raises(UnknownNameError, match="`variant` must be one of paper, published-code; got 'papers'"):
        FEM(net, variant="papers")
    with pytest.raises(UnknownNameError, match=r"`kernel` must be one of sigmoid, rbf, .*; got 'rbg'\. Did you mean"):
        KPCACAM(net, kernel="rbg")
    with pytest.raises(ArgumentError, match="`gamma` must be above 0, or None for 1 / channels; got 0"):
        KPCACAM(net, gamma=0)
    for kind in (FEM, KPCACAM):
        with pytest.raises(ArgumentError, match=f"`contrast` means nothing to {kind.__name__}"):
            kind(net)(x, contrast="max")


@pytest.mark.filterwarnings("ignore")
def test_agrees_with_pytorch_grad_cam():
    net, x = network("mlp").float(), images(2, (16, 16)).float()
    found = FEM(net, "act", variant="published-code")(x).heatmap
    close(found, by_grad_cam_package("FEM", net, x, 2).float(), rtol=1e-5, atol=1e-6)
    pytest.importorskip("sklearn")
    found, expected = KPCACAM(net, "act")(x).heatmap, by_grad_cam_package("KPCA_CAM", net, x, 2)
    close(found * (found * expected).sum((1, 2), keepdim=True).sign(), expected, rtol=1e-4, atol=1e-5)
