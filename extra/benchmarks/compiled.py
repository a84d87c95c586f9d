"""Compiles every kernel for a compute capability, without a GPU.

    TRITON_INTERPRET=0 python -m extra.benchmarks.compiled [CAPABILITY] [--json]

prints a table of what a thread and a program of each kernel hold, for 9.0 (90) unless told.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cplxnet.nn.fast.gpu import batchnorm, conv, kl, linear, noise, weights

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
# argument types by name; all else are pointers to float32
WHOLE = (
    "n c rows_each length n_out n_partial inputs taps columns first m rows_out out_size "
    "width step offset shares shares_sigma2 outputs padded"
)
REAL = "eps momentum share"
POINTERS = {"n_tracked": "*i64", "key": "*i64", "mask": "*i1"}

TILE = {"BLOCK_N": 32, "BLOCK_C": 32}
TAIL = {"RELU": True, "POOL": True, **TILE}
CONV = {"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 32, "EVEN": True}
SMALL_CONV = {"BLOCK_M": 128, "BLOCK_N": 16, "BLOCK_K": 16, "EVEN": True}
GRAD = {"BLOCK_N": 128, "BLOCK_K": 64, "BLOCK_M": 32}
SMALL_GRAD = {"BLOCK_N": 16, "BLOCK_K": 16, "BLOCK_M": 32}
KERNELS: list[tuple[Any, dict[str, Any], int]] = [  # kernel, constants, warps
    (batchnorm._moments_kernel, TILE, 4),
    *[
        (
            batchnorm._map_kernel,
            {"BLOCK_P": 512, "BLOCK_C": 4, **momentum},
            8,
        )
        for momentum in ({}, {"momentum": None})
    ],
    (batchnorm._apply_kernel, TAIL, 4),
    (batchnorm._gradient_sums_kernel, TAIL | {"BLOCK_N": 16}, 4),
    (batchnorm._gradient_map_kernel, {"BLOCK_P": 512, "BLOCK_C": 4}, 8),
    (batchnorm._gradient_kernel, TAIL | {"BLOCK_N": 16}, 4),
    (noise._noise_kernel, {"BLOCK": 1024}, 4),
    (noise._noise_grad_kernel, {"BLOCK": 1024}, 4),
    (noise._square_kernel, {"BLOCK": 1024}, 4),
    (noise._square_grad_kernel, {"BLOCK": 1024}, 4),
    (weights._form_kernel, {"BLOCK": 256}, 4),
    (weights._form_grad_kernel, {"SHARES": 64, "BLOCK": 32}, 4),
    (linear._rows_kernel, {"SPLIT": True, "BLOCK": 1024}, 4),
    (linear._rows_grad_kernel, {"STACK": 3, "BLOCK": 1024}, 4),
    (linear._join_kernel, {"STACK": 3, "BLOCK": 1024}, 4),
    (linear._take_kernel, {"SPLIT": True, "BLOCK": 1024}, 4),
    (linear._split_kernel, {"SPLIT": True, "BLOCK": 1024}, 4),
    *[(kl._kl_kernel, {"TERM": term, "BLOCK": 1024}, 4) for term in range(4)],
    (kl._total_kernel, {"FIRSTS": (0, 5, 14000), "BLOCK": 4096}, 8),
    *[
        (conv._weight_grad_kernel, {"PRECISION": precision, "log_weight": None, **GRAD}, 4)
        for precision in ("tf32x3", "bfloat16")
    ],
    (conv._weight_grad_kernel, {"PRECISION": "tf32x3", **GRAD}, 4),
    (conv._weight_grad_kernel, {"PRECISION": "tf32x3", "log_weight": None, **SMALL_GRAD}, 4),
    *[
        (conv._conv_kernel, {"PRECISION": p, absent: None, **sizes}, 8)
        for sizes in (CONV, CONV | {"EVEN": False}, SMALL_CONV, SMALL_CONV | {"EVEN": False})
        for p in ("tf32x3", "tf32", "bfloat16")
        for absent in ("offset", "bias")  # forward, and the gradient by the input
    ],
]


def compiled(kernel: Any, constants: dict[str, Any], capability: int, warps: int) -> dict[str, int]:
    names = kernel.arg_names
    types = {}
    for name in names:
        if name in constants:
            types[name] = "constexpr"
        elif name in WHOLE.split():
            types[name] = "i32"
        elif name in REAL.split():
            types[name] = "fp32"
        else:
            types[name] = POINTERS.get(name, "*fp32")
    if kernel in (kl._kl_kernel, kl._total_kernel):
        types |= {name: "*fp64" for name in ("partial", "out") if name in names}
    # as at the sizes of DeepConvNet: pointers, lengths and channels are multiples of 16
    sixteen = [["tt.divisibility", 16]]
    even = ("n", "c", "width", "out_size", "inputs", "columns", "m")
    even = even if constants.get("EVEN", True) else ()
    given = [k for k, name in enumerate(names) if types[name][0] == "*" or name in even]
    source = ASTSource(
        kernel,
        types,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(k,): sixteen for k in given if types[names[k]] != "constexpr"},
    )
    made = triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": 3},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [CUOBJDUMP, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    loads = re.findall(r"(?:ld\.global|cp\.async\.cg)[^;]*", made.asm["ptx"])
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
        "local": int(re.search(r"LOCAL:(\d+)", usage)[1]),
        "shared": made.metadata.shared,
        "loads": len(loads),
        "wide": sum(".v4" in load or "cp.async.cg" in load for load in loads),
    }


def rows(capability: int) -> Iterator[dict[str, Any]]:
    """What `compiled` says of every kernel."""
    for kernel, constants, warps in KERNELS:
        row = {"kernel": kernel.__name__, "constants": {k: str(v) for k, v in constants.items()}}
        yield row | compiled(kernel, constants, capability, warps)


def table(found: Iterable[dict[str, Any]]) -> str:
    """A line a kernel, its constants beside it."""
    lines = [
        "| kernel | constants | registers | shared bytes | wide loads |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        constants = ", ".join(f"{k} {v}" for k, v in row["constants"].items())
        cells = [row["kernel"].strip("_").removesuffix("_kernel"), constants, row["registers"]]
        cells += [row["shared"], f"{row['wide']} of {row['loads']}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capability", nargs="?", type=int, default=90)
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    given = parser.parse_args()
    found = list(rows(given.capability))
    print(json.dumps(found) if given.json else table(found))
