"""AttnLRP from its equations (Achtibat et al., ICML 2024): sums over lists, and a vision transformer layer by layer.

Legend: R relevance of an output, T tokens, D channels, s a softmax.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oracles import propagation


def softmax(x: Tensor, relevance: Tensor) -> Tensor:
    """Equation 4 at x, with its bias: `R_i = sum_j J_ji x_i R_j / s_j`, `J_ji = s_j ([i = j] - s_i)`; vectors [T]."""
    exponentials = [math.exp(float(value)) for value in x]
    s = [value / sum(exponentials) for value in exponentials]
    found = [
        sum(s[j] * ((i == j) - s[i]) * float(x[i]) * float(relevance[j]) / s[j] for j in range(len(s)))
        for i in range(len(s))
    ]
    return torch.tensor(found, dtype=torch.float64)


def matmul(a: Tensor, b: Tensor, relevance: Tensor, stabiliser: float = 1e-9) -> tuple[Tensor, Tensor]:
    """Equation 14: `R_ji(a) = sum_p a_ji b_ip R_jp / (2 z_jp + e)`, and likewise for b; matrices [J,I] [I,P] [J,P]."""
    of_a, of_b = torch.zeros_like(a), torch.zeros_like(b)
    for j in range(a.shape[0]):
        for p in range(b.shape[1]):
            z = 2 * sum(float(a[j, i] * b[i, p]) for i in range(a.shape[1]))
            z += stabiliser if z >= 0 else -stabiliser
            for i in range(a.shape[1]):
                of_a[j, i] += a[j, i] * b[i, p] * relevance[j, p] / z
                of_b[i, p] += a[j, i] * b[i, p] * relevance[j, p] / z
    return of_a, of_b


def normalised(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Layer norm of one token [D] and, its deviation held constant, the matrix [D,D] of it as a linear map."""
    values, size = x.tolist(), len(x)
    mean = sum(values) / size
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / size + eps)
    matrix = [[((i == j) - 1 / size) / deviation * float(weight[i]) for j in range(size)] for i in range(size)]
    w = torch.tensor(matrix, dtype=torch.float64)
    return w @ x + bias, w


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relevance: Tensor) -> Tensor:
    """Proposition 3.4 with the epsilon rule for centring, scaling and the bias; tokens [T,D]."""
    rule = propagation.epsilon(1e-6)
    return torch.stack(
        [rule(normalised(t, weight, bias, eps)[1], bias, t, r) for t, r in zip(x, relevance, strict=True)]
    )


def dense(layer: torch.nn.Linear, x: Tensor, relevance: Tensor, rule: propagation.Rule) -> Tensor:
    """A rule for each token [T,D]."""
    return torch.stack([rule(layer.weight, layer.bias, t, r) for t, r in zip(x, relevance, strict=True)])


def add(addends: list[Tensor], relevance: Tensor) -> list[Tensor]:
    """A sum of tensors of one shape, in proportion."""
    found = propagation.add(propagation.epsilon(1e-9), [one.flatten() for one in addends], relevance.flatten())
    return [one.reshape(relevance.shape) for one in found]


class Attention:
    """Attention of one image, with what its backward pass needs: tokens [T,D]."""

    def __init__(self, module: torch.nn.Module, x: Tensor) -> None:
        self.module, self.x, tokens, width = module, x, len(x), x.shape[1] // module.num_heads
        self.parts = module.qkv(x).reshape(tokens, 3, module.num_heads, width).permute(1, 2, 0, 3)
        q, k, v = self.parts
        self.q, self.k, self.v = q / math.sqrt(width), k, v
        self.logits = self.q @ k.transpose(1, 2)
        self.weights = self.logits.softmax(-1)
        self.mixed = (self.weights @ v).transpose(0, 1).reshape(tokens, -1)

    def relevance(self, relevance: Tensor, *, is_constant: bool) -> Tensor:
        """Relevance of the tokens before it; `is_constant` is CP-LRP, where the weights of attention get nothing."""
        rule = propagation.epsilon(1e-6)
        relevance = dense(self.module.proj, self.mixed, relevance, rule)
        heads = relevance.reshape(len(self.x), self.module.num_heads, -1).transpose(0, 1)
        found = torch.zeros_like(self.parts)
        for h in range(len(heads)):
            if is_constant:
                linear, zeros = propagation.epsilon(1e-9), torch.zeros(len(self.x))
                columns = zip(self.v[h].T, heads[h].T, strict=True)
                found[2, h] = torch.stack([linear(self.weights[h], zeros, v, r) for v, r in columns], 1)
                continue
            of_weights, found[2, h] = matmul(self.weights[h], self.v[h], heads[h])
            rows = zip(self.logits[h], of_weights, strict=True)
            of_logits = torch.stack([softmax(row, r) for row, r in rows])
            found[0, h], of_keys = matmul(self.q[h], self.k[h].T, of_logits)
            found[1, h] = of_keys.T
        joined = found.permute(2, 0, 1, 3).reshape(len(self.x), -1)
        return dense(self.module.qkv, self.x, joined, rule)


def vit_relevance(net: torch.nn.Module, image: Tensor, start: Tensor, *, is_constant: bool = False) -> Tensor:
    """Relevance `[C,H,W]` of the pixels of a vision transformer of timm, by the epsilon rule, from its logits'."""
    rule, conv, head = propagation.epsilon(1e-6), net.patch_embed.proj, net.head
    patches = conv(image[None])[0].flatten(1).T
    joined = torch.cat([net.cls_token[0], patches])
    x = joined + net.pos_embed[0]
    steps = []
    for block in net.blocks:
        before = x
        attention = Attention(block.attn, block.norm1(x))
        mixed = block.attn.proj(attention.mixed)
        middle = x + mixed
        second = block.norm2(middle)
        hidden = block.mlp.fc1(second)
        active = torch.nn.functional.gelu(hidden)
        out = block.mlp.fc2(active)
        x = middle + out
        steps.append((block, before, attention, mixed, middle, second, active, out))
    final = net.norm(x)
    relevance = torch.zeros_like(x)
    relevance[0] = rule(head.weight, head.bias, final[0], start)
    relevance = layer_norm(x, net.norm.weight, net.norm.bias, net.norm.eps, relevance)
    for block, before, attention, mixed, middle, second, active, out in reversed(steps):
        to_middle, to_out = add([middle, out], relevance)
        to_second = dense(block.mlp.fc1, second, dense(block.mlp.fc2, active, to_out, rule), rule)
        norm = block.norm2
        relevance = to_middle + layer_norm(middle, norm.weight, norm.bias, norm.eps, to_second)
        to_before, to_mixed = add([before, mixed], relevance)
        norm = block.norm1
        to_normed = attention.relevance(to_mixed, is_constant=is_constant)
        relevance = to_before + layer_norm(before, norm.weight, norm.bias, norm.eps, to_normed)
    to_patches = add([joined, net.pos_embed[0]], relevance)[0][1:]
    weights = propagation.matrix(lambda v: torch.nn.functional.conv2d(v, conv.weight, None, conv.stride), image.shape)
    bias = conv.bias.repeat_interleave(len(patches))
    return rule(weights, bias, image.flatten(), to_patches.T.flatten()).reshape(image.shape)
