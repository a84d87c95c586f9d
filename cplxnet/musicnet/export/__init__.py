"""A trained network elsewhere: as an ONNX file, and that file run."""

from cplxnet.extras import extra

with extra("onnx"):
    from .network import OnnxNetwork
    from .onnx import export_onnx
    from .real_form import UnknownLayerError

__all__ = ["OnnxNetwork", "UnknownLayerError", "export_onnx"]
