"""The forms of layers with weights, by what the names of their classes and networks end in.

form -> (linear layer, one-dimensional convolution)
"""

from torch import nn

from . import group, l0, masked, variational
from .conv import CplxConv1d
from .gaussian import Penalised
from .linear import CplxLinear

Layers = tuple[type[nn.Module], type[nn.Module]]

COMPLEX: dict[str, Layers] = {
    "": (CplxLinear, CplxConv1d),
    "GroupVD": (group.CplxLinearGroupVD, group.CplxConv1dGroupVD),
    "GroupARD": (group.CplxLinearGroupARD, group.CplxConv1dGroupARD),
    "BothVD": (group.CplxLinearBothVD, group.CplxConv1dBothVD),
    "BothARD": (group.CplxLinearBothARD, group.CplxConv1dBothARD),
    "VD": (variational.CplxLinearVD, variational.CplxConv1dVD),
    "ARD": (variational.CplxLinearARD, variational.CplxConv1dARD),
    "L0": (l0.CplxLinearL0, l0.CplxConv1dL0),
    "Masked": (masked.CplxLinearMasked, masked.CplxConv1dMasked),
}
REAL: dict[str, Layers] = {
    "": (nn.Linear, nn.Conv1d),
    "GroupVD": (group.LinearGroupVD, group.Conv1dGroupVD),
    "GroupARD": (group.LinearGroupARD, group.Conv1dGroupARD),
    "BothVD": (group.LinearBothVD, group.Conv1dBothVD),
    "BothARD": (group.LinearBothARD, group.Conv1dBothARD),
    "VD": (variational.LinearVD, variational.Conv1dVD),
    "ARD": (variational.LinearARD, variational.Conv1dARD),
    "L0": (l0.LinearL0, l0.Conv1dL0),
    "Masked": (masked.LinearMasked, masked.Conv1dMasked),
}

# those with a penalty, and with one for each channel
FORMS = tuple(form for form, (linear, _) in COMPLEX.items() if issubclass(linear, Penalised))
CHANNEL_FORMS = tuple(
    form for form, (linear, _) in COMPLEX.items() if issubclass(linear, group.GroupNoise)
)
