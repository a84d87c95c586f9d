"""Complex-valued networks for music transcription, and their compression by variational dropout."""

__version__ = "0.1.0"
