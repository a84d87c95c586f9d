"""A network read back from an ONNX file and run by onnxruntime on the CPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor


class OnnxNetwork:
    """What `export_onnx` wrote, as a function of features or of raw windows.

    Args:
        path: the ONNX file.
        n_threads: of onnxruntime; None: as many as torch has.

    Attributes:
        heard: what the network hears, `window`, `rate_hz`, `kind`, `cplx` and `shift`.
        raw_audio: whether it takes raw windows; else it takes features.
        inputs: names of the inputs.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an ONNX file, or not one of this package.
    """

    def __init__(self, path: str | os.PathLike[str], *, n_threads: int | None = None) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: expected an ONNX file, got nothing there")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors only: constant folding is talkative

        try:
            self.session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
            heard = json.loads(self.session.get_modelmeta().custom_metadata_map["cplxnet"])
        except KeyError:
            raise ValueError(
                f"{path}: expected an ONNX file of cplxnet's export_onnx, got another's"
            ) from None
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise ValueError(
                f"{path}: expected an ONNX file that onnxruntime can open, got {error}"
            ) from error

        self.raw_audio: bool = heard.pop("raw_audio")
        self.heard: dict[str, Any] = heard
        self.inputs = [given.name for given in self.session.get_inputs()]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits float32 (B, 84).

        Args:
            x: raw windows (B, window) or features (B, C, L), whichever the file takes.

        Raises:
            ValueError: complex features for a network of real ones, or the reverse.
        """
        parts = [x.real, x.imag] if x.is_complex() else [x]
        if len(parts) != len(self.inputs):
            raise ValueError(
                f"expected {' and '.join(self.inputs)}, got {x.dtype} of shape {tuple(x.shape)}"
            )
        values = {
            name: part.contiguous().numpy() for name, part in zip(self.inputs, parts, strict=True)
        }
        return torch.from_numpy(self.session.run(["logits"], values)[0])
