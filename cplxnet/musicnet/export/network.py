"""A network read back from an ONNX file and run by onnxruntime on the CPU."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from cplxnet.musicnet.features import check_heard, features

# For the weights and activations of all files opened here: a graph may ask for any number.
MOST_BYTES = 1 << 32


@functools.cache
def _bound_memory() -> None:
    """Let onnxruntime have so many bytes at most, in this process."""
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    arena = onnxruntime.OrtArenaCfg(MOST_BYTES, -1, -1, -1)
    onnxruntime.create_and_register_allocator(memory, arena)


class OnnxNetwork:
    """What `export_onnx` wrote, as a function of features or of raw windows.

    It runs on as many threads as torch has.

    Args:
        path: the ONNX file.

    Attributes:
        heard: what the network hears, `window`, `rate_hz`, `kind`, `cplx` and `shift`.
        raw_audio: whether it takes raw windows; else it takes features.
        inputs: names of the inputs.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an ONNX file, not one of this package, or one whose inputs are not what it
            says that it hears.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: expected an ONNX file, got nothing there")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # nothing: what it has to say is in its exceptions
        _bound_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")

        try:
            self.session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            metadata = self.session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise ValueError(
                f"{path}: expected an ONNX file that onnxruntime can open, got {error}"
            ) from error
        if "cplxnet" not in metadata:
            raise ValueError(
                f"{path}: expected an ONNX file of cplxnet's export_onnx, got another's"
            )

        self.path = path
        try:
            heard = json.loads(metadata["cplxnet"])
        except (ValueError, RecursionError):
            heard = None
        self.raw_audio = isinstance(heard, dict) and heard.pop("raw_audio", False) is True
        self.heard = check_heard(heard, f"{path}")
        self.inputs = self._checked_inputs()

    def _checked_inputs(self) -> list[str]:
        """Names of the inputs. Raises ValueError unless they take what the network hears."""
        options = {key: self.heard[key] for key in ("kind", "cplx", "shift")}
        x = torch.zeros(1, self.heard["window"])
        names = ["signal"]
        if not self.raw_audio:
            x = features(x, **options)
            names = ["real", "imag"] if x.is_complex() else ["features"]

        given = self.session.get_inputs()
        shapes = [tuple(one.shape[1:]) for one in given]
        outputs = [one.name for one in self.session.get_outputs()]
        expected = [tuple(x.shape[1:])] * len(names)
        if [one.name for one in given] != names or shapes != expected or outputs != ["logits"]:
            raise ValueError(
                f"{self.path}: expected inputs {', '.join(names)} of shape {expected[0]} and the "
                f"output logits, got {', '.join(one.name for one in given)} of {shapes}"
            )
        return names

    def __call__(self, x: Tensor) -> Tensor:
        """Logits float32 (B, 84).

        Args:
            x: raw windows (B, window) or features (B, C, L), whichever the file takes.

        Raises:
            ValueError: complex features for a network of real ones, or the reverse; a network that
                onnxruntime cannot run.
        """
        parts = [x.real, x.imag] if x.is_complex() else [x]
        if len(parts) != len(self.inputs):
            raise ValueError(
                f"expected {' and '.join(self.inputs)}, got {x.dtype} of shape {tuple(x.shape)}"
            )
        values = {
            name: part.contiguous().numpy() for name, part in zip(self.inputs, parts, strict=True)
        }
        try:
            logits: Any = self.session.run(["logits"], values)[0]
        except Exception as error:
            raise ValueError(
                f"{self.path}: expected a network that onnxruntime can run, got {error}"
            ) from error
        return torch.from_numpy(logits)
