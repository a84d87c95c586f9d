"""A trained network elsewhere: as an ONNX file, and that file run."""

from .network import OnnxNetwork
from .onnx import export_onnx
from .real_form import UnknownLayerError

__all__ = ["OnnxNetwork", "UnknownLayerError", "export_onnx"]
