"""The layers of the contract tests: dense, VD, ARD and masked forms of one geometry each."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet.nn import conv, linear, masked, variational


@dataclass(frozen=True)
class Family:
    name: str
    dense: type
    vd: type
    ard: type
    masked: type
    args: tuple[int, ...]
    shape: tuple[int, ...]  # of an input
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def cplx(self) -> bool:
        return self.name.startswith("Cplx")

    def make(self, cls: type, dtype: torch.dtype = torch.float64) -> nn.Module:
        return cls(*self.args, dtype=dtype, **self.kwargs)

    def input(self, *lead: int, dtype: torch.dtype = torch.float64) -> Tensor:
        dtype = dtype.to_complex() if self.cplx else dtype
        return torch.randn(*(lead or self.shape[:1]), *self.shape[1:], dtype=dtype)


def _family(
    name: str, home: Any, args: tuple[int, ...], shape: tuple[int, ...], **kwargs: Any
) -> Family:
    forms = [
        getattr(variational, name + "VD"),
        getattr(variational, name + "ARD"),
        getattr(masked, name + "Masked"),
    ]
    return Family(name, getattr(home, name), *forms, args, shape, kwargs)


FAMILIES = [
    _family("CplxLinear", linear, (5, 3), (2, 5)),
    _family("CplxConv1d", conv, (2, 4, 3), (2, 2, 9), stride=2, padding=1, groups=2),
    _family(
        "CplxConv1d",
        conv,
        (2, 3, 3),
        (2, 2, 7),
        padding=2,
        dilation=2,
        padding_mode="circular",
        bias=False,
    ),
    _family("CplxConv2d", conv, (2, 3, (2, 3)), (2, 2, 4, 5), stride=(1, 2), padding=(0, 1)),
    _family("Linear", nn, (5, 3), (2, 5)),
    _family("Conv1d", nn, (2, 4, 3), (2, 2, 9), stride=2, padding=1, groups=2),
    _family(
        "Conv1d", nn, (2, 3, 3), (2, 2, 7), padding="same", padding_mode="circular", bias=False
    ),
    _family("Conv2d", nn, (2, 3, (2, 3)), (2, 2, 4, 5), stride=(1, 2), padding=(0, 1)),
]


def ids(cases: list[Any]) -> list[str]:
    """Test names: a family's own, with what is special about it."""
    return [f"{f.name}-{'-'.join(f.kwargs)}" for f in cases]


def stored(layer: nn.Module) -> nn.Parameter:
    """The real parameter behind `layer.weight`."""
    return dict(layer.named_parameters(recurse=False)).get(
        "weight_ri", getattr(layer, "weight", None)
    )
