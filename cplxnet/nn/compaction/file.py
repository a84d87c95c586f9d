"""Compact networks as files: safetensors, whose header is JSON and whose body is numbers; reading one runs no code.

Metadata: one entry, "cplxnet-compact-1", the SHA-256 (hexadecimal) of everything else in the file, a space, and JSON:

- `network`: {"in_channels", "stages": [{"name", "shape": [out, in, k], "complex", "positions": form, "stride",
  "padding", "dilation", "whole", "relu", "pool": null or [kind, size, stride], "real_part"}]} (see `block.Stage`);
- `user`: the user's own text, {"...": "..."}.

Tensors of stage i: `i.values` (kept weights in the order of their positions; a complex one is two numbers), float32 or
float16; `i.positions` (see `positions`); `i.bias`, and `i.mix` (out, 2, 2) where batch norm was, float32. `inputs`:
int64, the input's units that are read.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cplxnet import files

from .block import Pool, Stage
from .network import Compact
from .positions import decode, encode

FORMAT = "cplxnet-compact-1"  # the number goes up when older readers would fail
DTYPES = {"float32": torch.float32, "float16": torch.float16}
_PLAIN = ("name", "stride", "padding", "dilation", "whole", "relu", "real_part")


class CompactFileError(ValueError):
    """Not a compact network: something else, cut short, altered, or of a later version; the text names the file."""


def save_compact(
    model: Compact,
    path: str | os.PathLike[str],
    *,
    dtype: Literal["float32", "float16"] = "float32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `model`, whole or not at all, with `metadata` (text to text) added to its own.

    dtype: of the weights' values; biases and batch norm stay float32. float16 keeps 11 bits: about 5e-4 of each weight.
    Raises TypeError for another module, ValueError for another dtype or weights beyond float16's range.
    """
    if not isinstance(model, Compact):
        raise TypeError(
            f"expected what nn.compact gives, got {type(model).__name__}; try save_compact(compact(model))"
        )
    if dtype not in DTYPES:
        raise ValueError(f"expected dtype float32 or float16, got {dtype!r}")
    text = {**model.metadata, **(metadata or {})}
    if not all(isinstance(part, str) for pair in text.items() for part in pair):
        raise TypeError(
            f"expected metadata of text to text, got {text}; try json.dumps of the values"
        )
    tensors, stages = {"inputs": model.inputs}, []
    for i, stage in enumerate(model.stages):
        plain, parts = _stored(stage, DTYPES[dtype])
        stages.append(plain)
        tensors |= {f"{i}.{key}": value for key, value in parts.items()}
    network = {"in_channels": model.in_channels, "stages": stages}
    described = json.dumps({"network": network, "user": text})
    header = {
        FORMAT: f"{_digest(described, tensors)} {described}"
    }  # one entry: their order would not be fixed
    content = safetensors.torch.save(tensors, header)
    files.write(path, lambda file: file.write(content))


def load_compact(
    path: str | os.PathLike[str], *, batch_sizes: tuple[int, ...] = (1, 64), measure: bool = True
) -> Compact:
    """The network in the file at `path`, on the CPU; what it runs on is chosen as in `compact`.

    Raises FileNotFoundError, and CompactFileError for a file that is anything else, cut short or altered.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dict
        if set(header) != {FORMAT}:
            raise ValueError(f"metadata of {', '.join(header) or 'nothing'}")
        checksum, _, described = header[FORMAT].partition(" ")
        if checksum != _digest(described, tensors):
            raise ValueError("a wrong checksum: it was altered")
        found = json.loads(described)
        network = found["network"]
        stages = [_restored(i, plain, tensors) for i, plain in enumerate(network["stages"])]
        model = Compact(stages, tensors["inputs"], network["in_channels"], metadata=found["user"])
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except (
        safetensors.SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        RuntimeError,
        OSError,
        AttributeError,
    ) as error:
        raise CompactFileError(
            f"{path}: expected a compact network, {FORMAT}, got {error}; try save_compact again"
        ) from error
    return model.measure(batch_sizes) if measure else model


def _stored(stage: Stage, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Tensor]]:
    flat = stage.weight.flatten()
    form, positions = encode(flat != 0)
    values = _real(flat[flat != 0] if form != "all" else flat).to(dtype)
    if not bool(torch.isfinite(values).all()):
        raise ValueError(
            f"{stage.name}: expected weights within the range of {dtype}, got larger; try dtype='float32'"
        )
    described = {key: getattr(stage, key) for key in _PLAIN}
    described |= {
        "shape": list(stage.weight.shape),
        "complex": stage.weight.is_complex(),
        "positions": form,
    }
    described["pool"] = None if stage.pool is None else list(stage.pool)
    parts = {"values": values, "positions": positions, "bias": _real(stage.bias).float()}
    return described, parts if stage.mix is None else {
        **parts,
        "mix": stage.mix.float().contiguous(),
    }


def _restored(i: int, described: dict[str, Any], tensors: Mapping[str, Tensor]) -> Stage:
    def cplx(real: Tensor) -> Tensor:
        return (
            torch.view_as_complex(real.float().contiguous())
            if described["complex"]
            else real.float()
        )

    shape = described["shape"]
    weight = torch.zeros(
        math.prod(shape), dtype=torch.complex64 if described["complex"] else torch.float32
    )
    weight[decode(described["positions"], tensors[f"{i}.positions"], len(weight))] = cplx(
        tensors[f"{i}.values"]
    )
    pool = None if described["pool"] is None else Pool(*described["pool"])
    plain = {key: described[key] for key in _PLAIN}
    return Stage(
        weight=weight.view(shape),
        bias=cplx(tensors[f"{i}.bias"]),
        mix=tensors.get(f"{i}.mix"),
        pool=pool,
        **plain,
    )


def _real(z: Tensor) -> Tensor:
    return torch.view_as_real(z).contiguous() if z.is_complex() else z


def _digest(described: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the description, and of every tensor's name, type, shape and bytes."""
    found = hashlib.sha256(described.encode())
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        found.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
