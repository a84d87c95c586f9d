"""Compact networks as files: safetensors, whose header is JSON and whose body is numbers.

Reading one runs no code. Metadata: one entry, "cplxnet-compact-1", the SHA-256 (hexadecimal) of
everything else in the file, a space, and JSON:

- `network`: {"in_channels", "stages": [{"name", "shape": [out, in, k], "complex", "positions":
  form, "stride", "padding", "dilation", "whole", "relu", "pool": null or [kind, size, stride],
  "real_part"}]} (see `block.Stage`);
- `user`: the user's own text, {"...": "..."}.

Tensors of stage i: `i.values` (kept weights in the order of their positions; a complex one is two
numbers), float32 or float16; `i.positions`; `i.bias`, and `i.mix` (out, 2, 2) where batch norm was,
float32. `inputs`: int64, the input's units that are read.

Positions of the kept weights are those of the flattened tensor, rising. Of four forms, the smallest
is taken:

- `all`: nothing is stored, every position is kept;
- `bits`: a bit for every position, 1 = kept, eight to a byte, the lowest bit first;
- `steps8`, `steps16`: a uint8 or uint16 for every kept position, the number of dropped ones before
  it. The largest number, 255 or 65535, says "that many dropped ones, and no kept one yet" and can
  be repeated.

Quantised weights (see `quantisation`) make a file of "cplxnet-compact-2": the SHA-256, a space, and
the number of bytes of the JSON. Beside `inputs` it has five tensors of whole numbers, `pack`ed,
each of all stages in turn:

- `description`: the bytes of the JSON, which has of a stage, in place of its positions, {"kept":
  how many weights, "step": s, "bias": and "mix": the unit of these, null if there is none};
- `gaps`, `classes`: one for each kept weight;
- `values`: signed, of each stage those of the first class, then those of the next, ...;
- `others`: signed, bias and mix in their units.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cplxnet import files

from .block import Pool, Stage
from .network import MEASURED, Compact
from .quantisation import (
    FEW,
    check_claim,
    from_whole_numbers,
    pack,
    real_numbers,
    to_whole_numbers,
    unpack,
)

FORMAT = "cplxnet-compact-1"  # the number goes up when older readers would fail
QUANTISED = "cplxnet-compact-2"
DTYPES = {"float32": torch.float32, "float16": torch.float16}
_PLAIN = {
    "name": str,
    "stride": int,
    "padding": int,
    "dilation": int,
    "whole": bool,
    "relu": bool,
    "real_part": bool,
}
_STEPS = {"steps8": torch.uint8, "steps16": torch.uint16}
# Limits against hostile headers: weights, kept or not, in all, and for a byte of a file that has
# more than a few. A trained network has 30 for a byte, random masks over a DeepConvNet at most 420:
# sparser ones lose their units
MOST_WEIGHTS = 2**28
MOST_A_BYTE = 512
MOST_ACTIVATIONS = 2**21  # of one window, in any of its layers
MOST_MEASURED = 2**24  # of a batch
# what reading anything else as a compact network comes to
_FAULTS = (ValueError, LookupError, TypeError, RuntimeError, OSError, AttributeError)


class CompactFileError(ValueError):
    """Not a compact network: something else, cut short, altered, or of a later version."""


def save_compact(
    model: Compact,
    path: str | os.PathLike[str],
    *,
    dtype: Literal["float32", "float16"] = "float32",
    sigma: Sequence[Tensor] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a compact network, whole or not at all.

    Args:
        model: what `compact` gives.
        path: the file to write.
        dtype: of the weights' values; biases and batch norm stay float32. float16 keeps 11 bits,
            about 5e-4 of each weight.
        sigma: of `posterior_sigma` or `sigma_for_bits`: how far each weight may be off. They are
            written as whole numbers of steps, in as few bytes as these allow. None: as `dtype`.
        metadata: text to text, added to the network's own.

    Raises:
        TypeError: another module, or metadata that is not text.
        ValueError: another dtype, weights beyond float16's range, or more of them in so few bytes
            than `load_compact` believes.
    """
    if not isinstance(model, Compact):
        raise TypeError(
            f"expected what nn.compact gives, got {type(model).__name__}; "
            "try save_compact(compact(model))"
        )
    if dtype not in DTYPES:
        raise ValueError(f"expected dtype float32 or float16, got {dtype!r}")
    text = {**model.metadata, **(metadata or {})}
    if not all(isinstance(part, str) for pair in text.items() for part in pair):
        raise TypeError(
            f"expected metadata of text to text, got {text}; try json.dumps of the values"
        )

    version = FORMAT if sigma is None else QUANTISED
    if sigma is None:
        own, tensors = _floats(model.stages, DTYPES[dtype])
    else:
        own, tensors = to_whole_numbers(model.stages, sigma)
    tensors["inputs"] = model.inputs

    stages = [_described(stage) | of for stage, of in zip(model.stages, own, strict=True)]
    network = {"in_channels": model.in_channels, "stages": stages}
    described = json.dumps({"network": network, "user": text})
    if version == QUANTISED:
        letters = np.frombuffer(described.encode(), np.uint8)
        tensors["description"] = pack([letters])
        described = str(len(letters))
    # one entry: the order of several would not be fixed
    header = {version: f"{_digest(described, tensors)} {described}"}
    content = safetensors.torch.save(tensors, header)
    _check_weights(network, len(content))
    files.write(path, lambda file: file.write(content))


def load_compact(
    path: str | os.PathLike[str], *, batch_sizes: tuple[int, ...] = (1, 64), measure: bool = True
) -> Compact:
    """The network in the file at `path`, on the CPU; its engines are chosen as in `compact`.

    Raises:
        FileNotFoundError: no such file.
        CompactFileError: a file that is anything else, cut short or altered.
    """
    try:
        model = _read(path)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except (safetensors.SafetensorError, *_FAULTS) as error:
        raise CompactFileError(
            f"{path}: expected a compact network, {FORMAT} or {QUANTISED}, got {error}; "
            "try save_compact again"
        ) from error
    if not measure:
        return model
    n_most = _most_activations(model)
    return model.measure([n for n in batch_sizes if n == 1 or n * n_most <= MOST_MEASURED] or [1])


def _read(path: str | os.PathLike[str]) -> Compact:
    n_bytes = os.path.getsize(path)
    with safetensors.safe_open(path, "pt") as file:
        header = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dict
    if set(header) not in ({FORMAT}, {QUANTISED}):
        raise ValueError(f"metadata of {', '.join(header) or 'nothing'}")

    ((version, entry),) = header.items()
    checksum, _, described = entry.partition(" ")
    if checksum != _digest(described, tensors):
        raise ValueError("a wrong checksum: it was altered")
    if version == QUANTISED:
        check_claim(int(described), tensors["description"])
        (letters,) = unpack(tensors["description"], [int(described)])
        described = letters.astype(np.uint8).tobytes().decode()

    description = json.loads(described)
    network = description["network"]
    _check(network)
    _check_weights(network, n_bytes)
    from_tensors = _from_floats if version == FORMAT else from_whole_numbers
    stored = from_tensors(network["stages"], tensors)
    stages = [_restored(*each) for each in zip(network["stages"], stored, strict=True)]
    model = Compact(stages, tensors["inputs"], network["in_channels"], metadata=description["user"])
    n_most = _most_activations(model)
    if n_most > MOST_ACTIVATIONS:
        raise ValueError(
            f"expected {MOST_ACTIVATIONS} activations in a layer at most, got {n_most}"
        )
    return model


def _check(network: Any) -> None:
    """Raise unless a description has the types that it should, and no absurd sizes."""
    counts = [network["in_channels"]]
    for i, stage in enumerate(network["stages"]):
        for key, kind in _PLAIN.items():
            if type(stage[key]) is not kind:
                raise ValueError(
                    f"stage {i}, {key}: expected a {kind.__name__}, got {stage[key]!r}"
                )

        if stage["pool"] is not None:
            kind, *pool = stage["pool"]
            if kind not in ("average", "maximum"):
                raise ValueError(f"stage {i}: expected average or maximum pooling, got {kind!r}")
            counts += pool
        counts += [*stage["shape"], *(value for value in stage.values() if type(value) is int)]

    if not all(type(count) is int and 0 <= count <= MOST_WEIGHTS for count in counts):
        raise ValueError(f"expected whole numbers, {MOST_WEIGHTS} at most, got {counts}")


def _check_weights(network: dict[str, Any], n_bytes: int) -> None:
    """Raise ValueError where a file of so many bytes cannot be a network of this size."""
    sizes = [math.prod(max(count, 1) for count in stage["shape"]) for stage in network["stages"]]
    most = min(MOST_WEIGHTS, FEW + MOST_A_BYTE * n_bytes)
    if sum(sizes) > most:
        raise ValueError(
            f"expected {most} weights at most in a file of {n_bytes} bytes, got {sum(sizes)}"
        )


def _most_activations(model: Compact) -> int:
    """Units times positions, the most of any layer, of the shortest window to measure on."""
    length = model.shortest(MEASURED)
    n_most = model.in_channels * length
    for stage in model.stages:
        length = stage.n_conv(length)
        n_most = max(n_most, len(stage.weight) * length)
        if stage.pool is not None:
            length = stage.pool.n_out(length)
    return n_most


def _described(stage: Stage) -> dict[str, Any]:
    """All of a stage but its numbers."""
    return {key: getattr(stage, key) for key in _PLAIN} | {
        "shape": list(stage.weight.shape),
        "complex": stage.weight.is_complex(),
        "pool": None if stage.pool is None else list(stage.pool),
    }


def _floats(
    stages: Sequence[Stage], dtype: torch.dtype
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """What a file has to say of each stage, and its tensors: the weights as floats."""
    descriptions = []
    tensors = {}
    for i, stage in enumerate(stages):
        flat = stage.weight.flatten()
        form, tensors[f"{i}.positions"] = encode(flat != 0)
        descriptions.append({"positions": form})

        values = real_numbers(flat[flat != 0]).to(dtype)
        if not torch.isfinite(values).all():
            raise ValueError(
                f"{stage.name}: expected weights within the range of {dtype}, got larger; "
                "try dtype='float32'"
            )
        tensors[f"{i}.values"] = values
        tensors[f"{i}.bias"] = real_numbers(stage.bias).float()
        if stage.mix is not None:
            tensors[f"{i}.mix"] = stage.mix.float().contiguous()

    return descriptions, tensors


def _from_floats(
    descriptions: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]
) -> list[dict[str, Tensor | None]]:
    """The way back: of each stage positions (int64), values, bias, and mix or None."""
    stages = []
    for i, stage in enumerate(descriptions):
        stored = {key: tensors.get(f"{i}.{key}") for key in ("values", "bias", "mix")}
        size = math.prod(stage["shape"])
        stored["positions"] = decode(stage["positions"], tensors[f"{i}.positions"], size)
        stages.append(stored)

    return stages


def _restored(description: dict[str, Any], stored: Mapping[str, Any]) -> Stage:
    """A stage from its description and what a file holds of it."""
    for key in ("values", "bias", "mix"):
        if stored[key] is not None and not torch.isfinite(stored[key]).all():
            name = description["name"]
            raise ValueError(f"{name}: expected finite numbers in {key}, got NaN or infinity")

    values, bias = (stored[key].float().contiguous() for key in ("values", "bias"))
    if description["complex"]:
        values = torch.view_as_complex(values)
        bias = torch.view_as_complex(bias)

    weight = values.new_zeros(math.prod(description["shape"]))
    weight[stored["positions"]] = values

    return Stage(
        weight=weight.view(description["shape"]),
        bias=bias,
        mix=stored["mix"],
        pool=None if description["pool"] is None else Pool(*description["pool"]),
        **{key: description[key] for key in _PLAIN},
    )


def _digest(described: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the description, and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(described.encode())
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---- positions of kept weights ------------------------------------------------------------------


def encode(kept: Tensor) -> tuple[str, Tensor]:
    """The smallest form, and its bytes or words, of `kept` bool (n,)."""
    if bool(kept.all()):
        return "all", torch.empty(0, dtype=torch.uint8)
    position = kept.nonzero().flatten()
    encoded = {form: _steps(position, dtype) for form, dtype in _STEPS.items()}
    encoded = {"bits": torch.from_numpy(np.packbits(kept.numpy(), bitorder="little"))} | encoded
    return min(encoded.items(), key=lambda item: item[1].nbytes)


def decode(form: str, stored: Tensor, n: int) -> Tensor:
    """The positions, int64 rising, in a tensor of `n`.

    Raises:
        ValueError: an unknown form, or positions beyond n.
    """
    if form == "all":
        return torch.arange(n)
    if form == "bits":
        bits = np.unpackbits(stored.numpy(), bitorder="little")
        position = torch.from_numpy(bits.nonzero()[0])
    elif isinstance(form, str) and form in _STEPS:
        most = torch.iinfo(_STEPS[form]).max
        words = stored.long()
        after = torch.where(words == most, most, words + 1).cumsum(0)
        position = after[words != most] - 1
    else:
        forms = ", ".join(("all", "bits", *_STEPS))
        raise ValueError(f"expected positions in one of the forms {forms}, got {form!r}")

    if len(position) and int(position[-1]) >= n:
        raise ValueError(f"expected positions below {n}, got {int(position[-1])}")
    return position


def _steps(position: Tensor, dtype: torch.dtype) -> Tensor:
    most = torch.iinfo(dtype).max
    dropped = torch.diff(position, prepend=position.new_full((1,), -1)) - 1
    repeats = dropped // most  # how often the largest number comes before the step itself
    words = torch.full((int(repeats.sum()) + len(position),), most, dtype=torch.int64)
    words[(repeats + 1).cumsum(0) - 1] = dropped % most
    return words.to(dtype)
