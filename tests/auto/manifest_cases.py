"""A vocabulary and a valid manifest for the tests of manifests, apart from the real task's."""

import contextlib
import copy
from collections.abc import Iterator

from cplxnet.auto.manifest import vocabulary
from cplxnet.auto.manifest.vocabulary import Vocabulary, keywords
from cplxnet.musicnet.experiments import TEMPLATE

_DENSE = ("complex.DeepConvNet", "complex.TwoLayerDense", "real.DeepConvNet")
VOCABULARY = Vocabulary(
    components={
        "task": ("musicnet",),
        "model": tuple(name + form for name in _DENSE for form in ("", "VD", "ARD", "Masked")),
        "feature kind": ("raw", "fft", "stft"),
        "sampler": ("one-per-recording", "in-order"),
        "loss": ("bce_with_logits", "kl"),
        "optimizer": ("adam", "sgd"),
        "lr_scheduler": ("trabelsi2017", "constant", "cosine", "linear"),
    },
    variational_models=tuple(name + form for name in _DENSE for form in ("VD", "ARD")),
    options={
        "cosine": keywords(lambda final=0.01: None),
        "complex.DeepConvNet": keywords(lambda kernel_size=6: None),
    },
    channel_models=(),
    trials={},
    weights=lambda model, features, window: {},  # networks are not tried
    presets={},
)


@contextlib.contextmanager
def only(words: Vocabulary) -> Iterator[None]:
    """Manifests that are read in the block may use these names alone."""
    before = vocabulary.of_task
    vocabulary.of_task = lambda task: words
    try:
        yield
    finally:
        vocabulary.of_task = before


def valid() -> dict:
    """The JSON values of a whole manifest, free to be changed."""
    return copy.deepcopy({**TEMPLATE, "name": "experiment-1 C=2.5e-3 replicate 0"})


def put(raw: dict, path: str, value: object) -> dict:
    """`raw` with `value` at the dotted path."""
    *parents, last = path.split(".")
    part = raw
    for key in parents:
        part = part[key]
    part[last] = value
    return raw


def drop(raw: dict, path: str) -> dict:
    """`raw` without the dotted path."""
    *parents, last = path.split(".")
    part = raw
    for key in parents:
        part = part[key]
    del part[last]
    return raw
