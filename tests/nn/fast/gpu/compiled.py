"""Compiles every kernel for a compute capability, without a GPU.

test_gpu_compile.py runs it as a process, since the interpreter's setting holds for a whole process.
It prints JSON: {kernel: {registers, stack, shared, wide loads, loads}}.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cplxnet.nn.fast.gpu import batchnorm, conv, kl, linear, noise, weights

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
# argument types by name; all else are pointers to float32
WHOLE = (
    "n c rows_each length n_out n_partial inputs taps half columns first m rows_out out_size "
    "width step offset "
)
WHOLE += "shares shares_sigma2 outputs padded"
REAL = "eps momentum floor share"
POINTERS = {"n_tracked": "*i64", "key": "*i64", "mask": "*i1"}

TILE = {"BLOCK_N": 32, "BLOCK_C": 32}
TAIL = {"RELU": True, "POOL": True, **TILE}
CONV = {"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 32, "EVEN": True}
GRAD = {"BLOCK_N": 128, "BLOCK_K": 64, "BLOCK_M": 32}
KERNELS: list[tuple[Any, dict[str, Any], int]] = [  # kernel, constants, warps
    (batchnorm._moments_kernel, TILE, 4),
    (
        batchnorm._map_kernel,
        {"HAS_WEIGHT": True, "HAS_BIAS": True, "TRACKS": True, "CUMULATIVE": False}
        | {"BLOCK_P": 512, "BLOCK_C": 4},
        8,
    ),
    (batchnorm._apply_kernel, {"COUNTS": True, **TAIL}, 4),
    (batchnorm._gradient_sums_kernel, TAIL | {"BLOCK_N": 16}, 4),
    (batchnorm._gradient_map_kernel, {"HAS_WEIGHT": True, "BLOCK_P": 512, "BLOCK_C": 4}, 8),
    (batchnorm._gradient_kernel, TAIL | {"BLOCK_N": 16}, 4),
    (noise._noise_kernel, {"BLOCK": 1024}, 4),
    (noise._noise_grad_kernel, {"BLOCK": 1024}, 4),
    (noise._square_kernel, {"BLOCK": 1024}, 4),
    (noise._square_grad_kernel, {"BLOCK": 1024}, 4),
    (weights._form_kernel, {"MASKED": True, "NOISY": True, "BLOCK": 256}, 4),
    (weights._form_grad_kernel, {"MASKED": True, "NOISY": True, "SHARES": 64, "BLOCK": 32}, 4),
    (linear._rows_kernel, {"SPLIT": True, "BLOCK": 1024}, 4),
    (linear._rows_grad_kernel, {"STACK": 3, "BLOCK": 1024}, 4),
    (linear._join_kernel, {"STACK": 3, "HAS_BIAS": True, "BLOCK": 1024}, 4),
    (linear._take_kernel, {"SPLIT": True, "BLOCK": 1024}, 4),
    (linear._split_kernel, {"SPLIT": True, "MASKED": True, "BLOCK": 1024}, 4),
    (conv._column_sums_kernel, {"BLOCK_N": 32, "BLOCK_C": 128}, 4),
    *[(kl._kl_kernel, {"TERM": term, "BLOCK": 1024}, 4) for term in range(4)],
    *[
        (conv._weight_grad_kernel, {"PRECISION": precision, "SCALED": False, **GRAD}, 4)
        for precision in ("tf32x3", "bfloat16")
    ],
    (conv._weight_grad_kernel, {"PRECISION": "tf32x3", "SCALED": True, **GRAD}, 4),
    *[
        (conv._conv_kernel, {"PRECISION": p, "PADDED": padded, "HAS_BIAS": bias, **CONV}, 8)
        for p in ("tf32x3", "tf32", "bfloat16")
        for padded, bias in ((False, True), (True, False))
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
    if kernel is kl._kl_kernel:
        types["partial"] = "*fp64"
    # as at the sizes of DeepConvNet: pointers, lengths and channels are multiples of 16
    sixteen = [["tt.divisibility", 16]]
    even = ("n", "c", "half", "width", "out_size", "inputs", "columns", "m")
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


if __name__ == "__main__":
    capability = int(sys.argv[1])
    results = []
    for kernel, constants, warps in KERNELS:
        row = {"kernel": kernel.__name__, "constants": {k: str(v) for k, v in constants.items()}}
        results.append(row | compiled(kernel, constants, capability, warps))
    json.dump(results, sys.stdout)
