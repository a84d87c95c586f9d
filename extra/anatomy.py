"""What a snapshot holds, layer by layer: shapes, weights, log alpha, masks, and channels that are dead.

A weight is kept where its layer's mask says so, or, in a variational layer, where log_alpha <= threshold; a layer with
neither keeps every weight.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from cplxnet import files
from cplxnet.nn import CplxConv1d, CplxConv2d, CplxLinear, GaussianWeight
from cplxnet.nn.masked import Masked

Layer = Any  # a module of WEIGHTED: with a weight (out, in, ...), but no common base
# with the variational and masked layers, which derive from these
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, CplxLinear, CplxConv1d, CplxConv2d)


def contents(path: str | Path) -> pd.DataFrame:
    """What the snapshot file at `path` holds of the network: a row a tensor, with its type, shape and megabytes.

    Raises FileNotFoundError; ValueError for a file that is damaged or no snapshot.
    """
    snapshot = files.read_tensors(path)
    if not isinstance(snapshot.get("model"), dict):
        raise ValueError(
            f"{path}: expected a snapshot with a model, got keys {', '.join(map(str, snapshot))}"
        )
    rows = {
        name: {
            "type": str(value.dtype).removeprefix("torch."),
            "shape": tuple(value.shape),
            "MB": value.nbytes / 1e6,
        }
        for name, value in snapshot["model"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def weighted_layers(model: nn.Module) -> dict[str, Layer]:
    """{name: layer} of every linear and convolutional layer, from the input on. Raises ValueError if there is none."""
    layers: dict[str, Layer] = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, WEIGHTED)
    }
    if not layers:
        raise ValueError(
            f"expected linear or convolutional layers in {type(model).__name__}, got none"
        )
    return layers


@torch.no_grad()
def kept(layer: Layer, threshold: float) -> Tensor:
    """The weights that the compressed network has: bool, shape of the weight."""
    if isinstance(layer, Masked):
        return layer.mask.clone()
    if isinstance(layer, GaussianWeight):
        return layer.relevance(threshold)
    return torch.ones(layer.weight.shape, dtype=torch.bool)


def dead_outputs(mask: Tensor) -> Tensor:
    """bool (out,): no weight that leads to this output is kept, so it is the same whatever the input.

    mask: bool (out, in, ...).
    """
    return ~mask.flatten(1).any(1)


def unread_inputs(mask: Tensor) -> Tensor:
    """bool (in,): no weight that this input goes through is kept: the layer does not hear it. mask: (out, in, ...)."""
    return ~mask.transpose(0, 1).flatten(1).any(1)


@torch.no_grad()
def layer_table(model: nn.Module, threshold: float) -> pd.DataFrame:
    """A row a layer, from the input on.

    Columns: `kind`, `shape` of the weight, `weights` and `kept` (a complex weight counts one), `kept_percent`, `median`
    of |w| of the kept weights, `dead_outputs` and `unread_inputs` (channels, or units of a linear layer).
    """
    rows = {}
    for name, layer in weighted_layers(model).items():
        mask, weight = kept(layer, threshold), layer.weight.detach()
        n_kept = int(mask.sum())
        rows[name] = {
            "kind": type(layer).__name__,
            "shape": tuple(weight.shape),
            "weights": mask.numel(),
            "kept": n_kept,
            "kept_percent": 100 * n_kept / mask.numel(),
            "median": float(weight[mask].abs().median()) if n_kept else float("nan"),
            "dead_outputs": int(dead_outputs(mask).sum()),
            "unread_inputs": int(unread_inputs(mask).sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def density(mask: Tensor, *, most: int = 256) -> Tensor:
    """The mask (out, in, ...) as a picture: float32 (rows, columns), outputs down, inputs and taps across.

    One pixel a weight where that makes no more than `most` a side, otherwise the share kept in blocks of about equal
    size.
    """
    picture = mask.flatten(1).float()[None, None]
    size = (min(most, picture.shape[2]), min(most, picture.shape[3]))
    return torch.nn.functional.adaptive_avg_pool2d(picture, size)[0, 0]
