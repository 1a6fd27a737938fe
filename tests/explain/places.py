"""Whether an explanation at a layer is right, judged by hooks and perturbed pixels alone."""

from __future__ import annotations

import torch

from oracles import cams


def outputs_of(net, layer, x):
    """What the layer gives, without a graph."""
    seen = []
    handle = net.get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    try:
        net(x.clone())
    finally:
        handle.remove()
    return seen[0].clone()


def share_past(net, layer, x):
    """The share of the gradient at the pixels that is left when the layer's output is detached."""
    norms = []
    for detaches in (False, True):
        handle = net.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, detaches=detaches: output.detach() if detaches else None
        )
        leaf = x.clone().requires_grad_()
        try:
            score = net(leaf.clone())[:, 1].sum()
        finally:
            handle.remove()
        gradient = torch.autograd.grad(score, leaf, allow_unused=True)[0] if score.requires_grad else None
        norms.append(0.0 if gradient is None else float(gradient.norm()))
    return norms[1] / norms[0]


def grad_cam(net, layer, x, maps):
    """Grad-CAM of class 1 at the layer, `maps` reads its output."""
    seen = []

    def keep(module, inputs, output):
        seen.append(output.detach().requires_grad_())
        return seen[0].clone()

    handle = net.get_submodule(layer).register_forward_hook(keep)
    try:
        score = net(x.clone())[:, 1].sum()
    finally:
        handle.remove()
    gradient = torch.autograd.grad(score, seen[0])[0]
    pairs = zip(maps(seen[0].detach()), maps(gradient), strict=True)
    return torch.stack([cams.grad_cam(*pair) for pair in pairs])


def share_placed(net, layer, x, maps):
    """In how many of some places, where pixels are changed, the cell that changes most is there or beside it."""
    before = maps(outputs_of(net, layer, x))
    height, width = before.shape[2:]
    generator = torch.Generator().manual_seed(0)
    hits = []
    for _ in range(8):
        row, column = (int(torch.randint(side, (), generator=generator)) for side in (height, width))
        top, left = row * x.shape[2] // height, column * x.shape[3] // width
        bottom, right = -(-(row + 1) * x.shape[2] // height), -(-(column + 1) * x.shape[3] // width)
        changed = x.clone()
        part = changed[..., top:bottom, left:right]
        part += 3 * torch.randn(part.shape, generator=generator, dtype=x.dtype)
        moved = (maps(outputs_of(net, layer, changed)) - before).abs().sum((0, 1))
        found = divmod(int(moved.argmax()), width)
        hits.append(abs(found[0] - row) <= max(1, height // 8) and abs(found[1] - column) <= max(1, width // 8))
    return sum(hits) / len(hits)


def assert_right(explainer, x, heatmap, *, past=1e-6):
    """The map of class 1 is plain Grad-CAM at the layer, which carries the logits; cells lie in their places."""
    net, site = explainer.model, explainer._site
    expected = grad_cam(net, explainer.layer, x, site.maps)
    torch.testing.assert_close(heatmap, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert tuple(heatmap.shape[1:]) == explainer.grid
    assert share_past(net, explainer.layer, x) <= past, explainer.layer
    assert share_placed(net, explainer.layer, x, site.maps) >= 0.7, explainer.layer
