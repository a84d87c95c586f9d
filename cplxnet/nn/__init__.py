"""What a network is made of: complex layers, their variational and masked forms, KL, masks."""

from .activation import (
    CplxDropout,
    CplxFlatten,
    CplxModReLU,
    CplxModulus,
    CplxToReal,
    RealToCplx,
    Split,
)
from .batchnorm import CplxBatchNorm1d
from .compaction.file import CompactFileError, load_compact, save_compact
from .compaction.network import Compact, compact
from .compaction.quantisation import posterior_sigma, sigma_for_bits
from .compaction.read import UnknownLayer
from .compaction.shrunk import Shrunk
from .conv import CplxConv1d, CplxConv2d
from .cplxmodule import cplxmodule_state, load_cplxmodule, names_in_order
from .expint import ein, ein_exp
from .fast.clipping import GradientNorm
from .fast.memory import keep_freed
from .gaussian import GaussianWeight
from .group import (
    Conv1dBothARD,
    Conv1dBothVD,
    Conv1dGroupARD,
    Conv1dGroupVD,
    Conv2dBothARD,
    Conv2dBothVD,
    Conv2dGroupARD,
    Conv2dGroupVD,
    CplxConv1dBothARD,
    CplxConv1dBothVD,
    CplxConv1dGroupARD,
    CplxConv1dGroupVD,
    CplxConv2dBothARD,
    CplxConv2dBothVD,
    CplxConv2dGroupARD,
    CplxConv2dGroupVD,
    CplxLinearBothARD,
    CplxLinearBothVD,
    CplxLinearGroupARD,
    CplxLinearGroupVD,
    LinearBothARD,
    LinearBothVD,
    LinearGroupARD,
    LinearGroupVD,
)
from .init import trabelsi_independent_, trabelsi_standard_
from .l0 import Conv1dL0, Conv2dL0, CplxConv1dL0, CplxConv2dL0, CplxLinearL0, LinearL0
from .linear import CplxLinear
from .masked import (
    Conv1dMasked,
    Conv2dMasked,
    CplxConv1dMasked,
    CplxConv2dMasked,
    CplxLinearMasked,
    LinearMasked,
)
from .pruning import magnitude_masks, random_masks
from .sequential import through
from .sparsity import (
    compression,
    deploy_masks,
    kl_backward,
    kl_sum,
    named_penalties,
    relevance_masks,
    sparsity,
)
from .variational import (
    Conv1dARD,
    Conv1dVD,
    Conv2dARD,
    Conv2dVD,
    CplxConv1dARD,
    CplxConv1dVD,
    CplxConv2dARD,
    CplxConv2dVD,
    CplxLinearARD,
    CplxLinearVD,
    LinearARD,
    LinearVD,
)
