"""A trained network elsewhere: as an ONNX file, and that file run."""

from cplxnet.extras import extra

with extra("onnx"):
    from .layers import UnknownLayerError
    from .onnx import export_onnx
    from .session import OnnxNetwork

__all__ = ["OnnxNetwork", "UnknownLayerError", "export_onnx"]
