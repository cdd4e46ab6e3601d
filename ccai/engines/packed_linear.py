"""Linear layers in float32 on a CPU, their weights laid out once for the processor's kernels.

torch's own linear layer lays out the weight again in each multiplication. With few rows, as in generation, that costs
as much as the multiplication itself. These kernels also split a row's sums in the same way for any number of rows:
where it was measured (AVX2), products were equal to the last bit.
"""

from __future__ import annotations

import torch
from torch import nn

ROWS = 1024
"""Rows that the layout is chosen for. oneDNN's layouts for 64 rows and more are nearly as fast for each other; its
layout for one row is not.
"""


class Packed(nn.Module):
    """Replaces an `nn.Linear` in inference."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out)."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        return product


def pack(model: nn.Module) -> None:
    """Replace a model's linear layers one after another, so that memory never holds a second copy of all weights.

    Other tensors are copied: as long as one is a view of the model's file, the whole file stays mapped.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, Packed(child))
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
