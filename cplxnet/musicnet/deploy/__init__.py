"""A trained network elsewhere: as an ONNX file, and on recordings that are WAV files."""

from .export import export_onnx
from .layers import UnknownLayerError
from .recording import Transcription, transcribe_wav, write_transcription
from .session import OnnxNetwork
from .sound import Sound, load_wav

__all__ = [
    "OnnxNetwork",
    "Sound",
    "Transcription",
    "UnknownLayerError",
    "export_onnx",
    "load_wav",
    "transcribe_wav",
    "write_transcription",
]
