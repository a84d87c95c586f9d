"""A network from an ONNX file, run by onnxruntime on the CPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor


class OnnxNetwork:
    """What `export_onnx` wrote, as a function of features or of raw windows; `heard` says which, and how to make them.

    Args:
        path: the ONNX file. n_threads: None: as many as torch has.

    Raises:
        FileNotFoundError: no such file. ValueError: not an ONNX file, or not one of this package.
    """

    def __init__(self, path: str | os.PathLike[str], *, n_threads: int | None = None) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: expected an ONNX file, got nothing there")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads or torch.get_num_threads()
        options.log_severity_level = (
            3  # errors: what it says while it folds constants is not for our readers
        )
        try:
            self.session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
            told = json.loads(self.session.get_modelmeta().custom_metadata_map["cplxnet"])
        except KeyError:
            raise ValueError(
                f"{path}: expected an ONNX file of cplxnet's export_onnx, got another's"
            ) from None
        except (
            Exception
        ) as error:  # onnxruntime's own exceptions have no common base; whichever, it is unusable
            raise ValueError(
                f"{path}: expected an ONNX file that onnxruntime can open, got {error}"
            ) from error
        self.raw_audio: bool = told.pop("raw_audio")
        self.heard: dict[str, Any] = told
        self.inputs = [given.name for given in self.session.get_inputs()]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits float32 (B, 84) of raw windows (B, window), or of features (B, C, L), whichever the file takes."""
        given = [x.real, x.imag] if x.is_complex() else [x]
        if len(given) != len(self.inputs):
            raise ValueError(
                f"expected {' and '.join(self.inputs)}, got {x.dtype} of shape {tuple(x.shape)}"
            )
        values = {
            name: part.contiguous().numpy() for name, part in zip(self.inputs, given, strict=True)
        }
        return torch.from_numpy(self.session.run(["logits"], values)[0])
