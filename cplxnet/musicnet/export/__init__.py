"""A trained network elsewhere: as an ONNX file, and that file run."""

from .layers import UnknownLayerError
from .onnx import export_onnx
from .session import OnnxNetwork

__all__ = ["OnnxNetwork", "UnknownLayerError", "export_onnx"]
