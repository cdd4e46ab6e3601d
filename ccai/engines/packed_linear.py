"""Linear layers in float32 on a CPU, their weights laid out once as the processor's kernels read them.

torch's own linear layer lays out the weight anew in each multiplication, which costs as much as the multiplication
where few rows meet it, as they do while text is written. Besides, these kernels cut a row's sums alike however many
rows stand beside it: where it was measured (AVX2) products were the same to the last bit.
"""

from __future__ import annotations

import torch
from torch import nn

ROWS = 1024
"""Of the multiplications that the layout is chosen for. oneDNN's layouts for 64 rows and more are nearly as good for
each other; that for one row is not."""


class Packed(nn.Module):
    """Takes the place of an `nn.Linear` that is only read."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out)."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        return product


def pack(model: nn.Module) -> None:
    """Replace the linear layers of a model, one after another, so that no second copy of all weights is held.

    What stays is copied: its file would be mapped whole as long as one tensor is a view of it.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, Packed(child))
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
