"""LRP of transformers and ConvNeXt: how much of the relevance is conserved, and agreement with lxt and zennit.

    pip install --no-deps lxt zennit tabulate     # the peers; lxt's own rules need torch alone
    python benchmarks/relevance.py                # the table of conservation, and each peer that is installed
    python benchmarks/relevance.py lxt            # one of the three: conservation, lxt, zennit

Random weights, float64, one image. lxt has no timm networks, so ViT and ConvNeXt are written out in its functions;
zennit has no rule for attention and layer norm, so it explains a ResNet.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import torch
from measuring import compare
from torch import Tensor, nn

import contrex
from contrex.explain.propagation.lrp import Composite, Epsilon

NETWORKS = [
    *("resnet18", "vgg11", "mobilenetv3_small_100", "efficientnet_b0", "convnext_atto"),
    *("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"),
]
TINY = 1e-9
Written = Callable[[nn.Module, Tensor], Tensor]


def network(name: str) -> nn.Module:
    """A network of timm whose parameters are random where timm begins with zeros or ones: biases, norms, embeddings."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    # timm draws the classifier so small that the logits are mostly its bias.
    heads = model.get_classifier()
    for head in heads if isinstance(heads, (tuple, nn.ModuleList)) else [heads]:
        nn.init.normal_(head.weight, std=0.05)
    return model.double().eval().requires_grad_(False)


def image() -> Tensor:
    return torch.randn(1, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def show_conservation() -> None:
    """Print what became of the relevance of the predicted class, in shares of it."""
    print("| network | rules | arrived | biases | constants | softmax | error |\n|---|---|---|---|---|---|---|")
    for name in NETWORKS:
        model = network(name)
        attends = "vit" in name or "deit" in name or "swin" in name
        for rules, constant in [("epsilon", "nothing"), ("gamma", "nothing"), ("epsilon", "attention")][
            : 3 if attends else 2
        ]:
            found = contrex.LRP(model, rules=rules, constant=constant).conservation(image())
            parts = (found.arrived, found.biases, found.constants, found.softmax)
            shares = " | ".join(f"{part / found.started:.4f}" for part in parts)
            told = rules if constant == "nothing" else f"{rules}, {constant} constant"
            print(f"| {name} | {told} | {shares} | {found.error:.1e} |", flush=True)


def lxt_vit(model: nn.Module, x: Tensor) -> Tensor:
    """The logits of timm's vision transformer, in the functions of lxt."""
    import lxt.explicit.functional as lf
    from lxt.explicit.rules import epsilon_lrp, identity

    def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
        return lf.layer_norm_grad_fn.apply(x, layer.weight, layer.bias, layer.eps, TINY)

    def dense(layer: nn.Linear, x: Tensor) -> Tensor:
        return lf.linear_epsilon(x, layer.weight, layer.bias, epsilon=TINY)

    def attention(module: nn.Module, x: Tensor) -> Tensor:
        num, tokens, width = x.shape
        q, k, v = dense(module.qkv, x).reshape(num, tokens, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = lf.softmax(lf.matmul(lf.mul2(q, module.scale), k.transpose(-2, -1), epsilon=TINY), -1)
        return dense(module.proj, lf.matmul(weights, v, epsilon=TINY).transpose(1, 2).reshape(num, tokens, width))

    patches = epsilon_lrp(model.patch_embed.proj, TINY, x).flatten(2).transpose(1, 2)
    x = torch.cat([model.cls_token, patches], 1)
    x = lf.add2(x, model.pos_embed, epsilon=TINY)
    for block in model.blocks:
        x = lf.add2(x, attention(block.attn, norm(block.norm1, x)), epsilon=TINY)
        hidden = identity(nn.functional.gelu, dense(block.mlp.fc1, norm(block.norm2, x)))
        x = lf.add2(x, dense(block.mlp.fc2, hidden), epsilon=TINY)
    return dense(model.head, norm(model.norm, x)[:, 0])


def lxt_convnext(model: nn.Module, x: Tensor) -> Tensor:
    """The logits of timm's ConvNeXt, in the functions of lxt."""
    import lxt.explicit.functional as lf
    from lxt.explicit.rules import epsilon_lrp, identity

    def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return lf.layer_norm_grad_fn.apply(x, layer.weight, layer.bias, layer.eps, TINY).permute(0, 3, 1, 2)

    def block(module: nn.Module, x: Tensor) -> Tensor:
        hidden = norm(module.norm, epsilon_lrp(module.conv_dw, TINY, x))
        hidden = identity(nn.functional.gelu, epsilon_lrp(module.mlp.fc1, TINY, hidden))
        hidden = epsilon_lrp(module.mlp.fc2, TINY, hidden)
        scaled = lf.mul2(hidden, module.gamma.reshape(1, -1, 1, 1).expand_as(hidden))
        return lf.add2(scaled, x, epsilon=TINY)

    x = norm(model.stem[1], epsilon_lrp(model.stem[0], TINY, x))
    for stage in model.stages:
        if isinstance(stage.downsample, nn.Sequential):
            x = epsilon_lrp(stage.downsample[1], TINY, norm(stage.downsample[0], x))
        for module in stage.blocks:
            x = block(module, x)
    x = norm(model.head.norm, lf.mean(lf.mean(x, 3, True, TINY), 2, True, TINY)).flatten(1)
    return lf.linear_epsilon(x, model.head.fc.weight, model.head.fc.bias, epsilon=TINY)


def relevance(logits: Tensor, x: Tensor, target: int) -> Tensor:
    """The map `[H,W]` of one logit, which starts with itself."""
    (found,) = torch.autograd.grad(logits[0, target], x, logits[0, target].detach())
    return found.sum(1)[0]


def by_zennit(model: nn.Module, x: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The logits and the map of zennit's z-plus for convolutions and epsilon for the classifier."""
    from zennit import rules
    from zennit.composites import LayerMapComposite
    from zennit.layer import Sum
    from zennit.torchvision import ResNetCanonizer
    from zennit.types import Activation, AvgPool, BatchNorm, Convolution, Linear

    layers = [(Activation, rules.Pass()), (AvgPool, rules.Norm()), (Sum, rules.Norm()), (BatchNorm, rules.Pass())]
    layers += [(Convolution, rules.ZPlus(zero_params="bias")), (Linear, rules.Epsilon(1e-6))]
    with LayerMapComposite(layers, canonizers=[ResNetCanonizer()]).context(model) as modified:
        logits = modified(x)
        start = torch.zeros_like(logits)
        start[0, target] = logits[0, target]
        (found,) = torch.autograd.grad(logits, x, start)
    return logits, found.sum(1)[0]


def show_agreement(name: str, ours: Tensor, theirs: Tensor) -> None:
    ours, theirs = ours.flatten(), theirs.detach().flatten()
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    correlation = float(torch.corrcoef(torch.stack([ours, theirs]))[0, 1])
    print(
        f"{name}: largest difference {difference:.1e} of the largest value, correlation {correlation:.9f}", flush=True
    )


def signed_stabiliser(z: Tensor, epsilon: float = TINY, inplace: bool = False) -> Tensor:
    """`z + epsilon sign z`, in place of lxt's `z + epsilon`."""
    return z + epsilon * torch.where(z < 0, -1.0, 1.0)


def against_lxt() -> None:
    """The epsilon rule everywhere, AttnLRP for the rest: lxt as it is, and with the sign in its stabiliser."""
    import lxt.explicit.functional as lf
    from lxt.explicit import rules as lxt_rules

    rules, own = Composite(*[Epsilon(TINY)] * 3, normalisation=Epsilon(TINY)), lf._stabilize
    for name, written in (("vit_tiny_patch16_224", lxt_vit), ("convnext_atto", lxt_convnext)):
        model, x = network(name), image().requires_grad_()
        why = contrex.LRP(model, rules=rules)(x.detach(), target=3)
        for stabiliser, words in ((own, "as it is"), (signed_stabiliser, "with signed stabilisers")):
            lf._stabilize = lxt_rules._stabilize = stabiliser
            logits = written(model, x)
            torch.testing.assert_close(why.logits, logits.detach())
            show_agreement(f"{name} beside lxt {words}", why.heatmap[0], relevance(logits, x, 3))
        lf._stabilize = lxt_rules._stabilize = own
        show_times(name, model.float(), written, x.detach().float().requires_grad_(), rules)


def show_times(name: str, model: nn.Module, written: Written, x: Tensor, rules: Composite) -> None:
    """Print what one map takes, in turn."""
    explainer = contrex.LRP(model, rules=rules)
    times = compare(
        {
            "contrex": lambda: explainer(x.detach(), target=3),
            "lxt": lambda: relevance(written(model, x), x, 3),
            "forward pass": lambda: model(x.detach()),
        },
        device=torch.device("cpu"),
        rounds=5,
        warmup=1,
    )
    told = ", ".join(f"{who} {seconds:.3f} s" for who, seconds in times.items())
    print(f"{name}, one image in float32, processor time: {told}")


def against_zennit() -> None:
    """ResNet-18 of torchvision, z-plus for convolutions."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model, x = resnet18(num_classes=10).double().eval(), image().requires_grad_()
    why = contrex.LRP(model, rules="epsilon-plus")(x.detach(), target=3)
    logits, theirs = by_zennit(model, x, 3)
    # zennit merges batch norm and leaves its eps in what remains of it.
    torch.testing.assert_close(why.logits, logits.detach(), rtol=1e-3, atol=1e-6)
    show_agreement("resnet18 beside zennit", why.heatmap[0], theirs)


def main() -> None:
    """Print the table, then what each peer that is installed gives."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for peer, show in (("", show_conservation), ("lxt", against_lxt), ("zennit", against_zennit)):
        if sys.argv[1:] and (peer or "conservation") not in sys.argv[1:]:
            continue
        try:
            show()
        except ImportError as error:
            print(f"{peer}: {error}")


if __name__ == "__main__":
    main()
