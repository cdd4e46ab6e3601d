"""ccai/engines/packed_linear.py: the same products, whoever stands beside a row, and no weight held twice."""

from __future__ import annotations

import torch
from torch import nn

from ccai.engines.packed_linear import Packed, pack


def test_products_are_those_of_the_linear_layer() -> None:
    torch.manual_seed(0)
    for into, out, bias in ((576, 1536, False), (48, 7, True), (1, 3, True)):
        layer = nn.Linear(into, out, bias=bias)
        rows = torch.randn(2, 5, into)
        with torch.inference_mode():
            torch.testing.assert_close(Packed(layer)(rows), layer(rows), rtol=1e-5, atol=1e-5)


def test_a_rows_product_hardly_depends_on_the_batch() -> None:
    torch.manual_seed(0)
    layer, rows = Packed(nn.Linear(576, 960, bias=False)), torch.randn(300, 576)
    with torch.inference_mode():
        alone = torch.cat([layer(row[None]) for row in rows])
        for size in (2, 7, 72, 300):
            together = torch.cat([layer(part) for part in rows.split(size)])
            torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


def test_all_linear_layers_are_replaced_and_nothing_else() -> None:
    class Own(nn.Linear):
        """What a library may put in a linear layer's place."""

    model = nn.ModuleDict({"inner": nn.Sequential(nn.Linear(8, 8), nn.ReLU()), "own": Own(8, 8)})
    pack(model)
    assert isinstance(model["inner"][0], Packed)
    assert isinstance(model["inner"][1], nn.ReLU)
    assert isinstance(model["own"], Own)
    assert {name for name, _ in model.named_parameters()} == {"own.weight", "own.bias"}
