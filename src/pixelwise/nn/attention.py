"""Attention: each query takes the mean of all values, weighted by how its key agrees with theirs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 512  # queries at once where PyTorch would hold the weights of all of them


def attend(queries: Tensor, keys: Tensor, values: Tensor, scale: float = 1.0) -> Tensor:
    """[B, N, D], [B, M, D], [B, M, E] -> [B, N, E]: softmax(scale q k^T) v, the softmax over the M keys.

    PyTorch's fused kernels never hold the N x M weights, but on the CPU there is none for values of another width than
    keys: queries go through in blocks then, which is faster than all at once and in evaluation needs N / BLOCK times
    less memory.
    """
    queries, keys, values = (x.contiguous() for x in (queries, keys, values))  # fused kernels want channels last
    if keys.shape[-1] == values.shape[-1] or queries.is_cuda:
        q, k, v = (x[:, None] for x in (queries, keys, values))  # one head
        return F.scaled_dot_product_attention(q, k, v, scale=scale)[:, 0]
    weights = ((block @ keys.mT * scale).softmax(-1) for block in queries.split(BLOCK, 1))
    return torch.cat([w @ values for w in weights], 1)


def tokens(maps: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h w, C], a view; of channels-last maps a contiguous one."""
    return maps.flatten(2).mT
