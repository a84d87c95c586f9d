"""A trained network elsewhere: as an ONNX file, and that file run."""

from cplxnet.extras import extra

with extra("onnx"):
    from .onnx import OnnxNetwork, export_onnx
    from .real_form import UnknownLayerError

__all__ = ["OnnxNetwork", "UnknownLayerError", "export_onnx"]
