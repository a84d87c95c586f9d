"""The General MIDI sound font that pretty_midi ships, in a form that symusic's renderer plays in
tune.

symusic's renderer (prestosynth) takes a sample's pitch from the sample's own header and ignores the
zone's generator `overridingRootKey`, by which TimGM6mb says it almost everywhere: its piano's A4
comes out 23 semitones high. `in_tune` gives every zone a copy of its sample's header with the right
pitch inside. The sound data are not touched.

Reference: SoundFont Technical Specification 2.01, sections 7.2 to 7.10 (the `pdta` list) and 8.1.2
(generators).
"""

import importlib.util
import struct
from pathlib import Path

import numpy as np

_BAG = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
_GENERATOR = np.dtype([("operator", "<u2"), ("amount", "<u2")])
_INSTRUMENT = np.dtype([("name", "V20"), ("bag", "<u2")])
_SAMPLE = np.dtype(
    [("where", "V40"), ("pitch", "u1"), ("correction", "i1"), ("link", "<u2"), ("type", "<u2")]
)
_SAMPLE_ID = 53  # generator numbers
_ROOT_KEY = 58
_UNSET = 255


def path() -> Path:
    """Where pretty_midi's TimGM6mb.sf2 lies (found without importing pretty_midi, which warns on
    import).

    Raises:
        FileNotFoundError: pretty_midi is not installed, or came without it.
    """
    spec = importlib.util.find_spec("pretty_midi")
    font = Path(spec.origin).with_name("TimGM6mb.sf2") if spec and spec.origin else None
    if font is None or not font.is_file():
        raise FileNotFoundError(
            "expected pretty_midi with its TimGM6mb.sf2; try `pip install -r requirements.txt`"
        )
    return font


def _chunks(content: bytes, start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """name -> (start, end) of each chunk's content between `start` and `end`; a LIST goes by its
    type.
    """
    places = {}
    while start + 8 <= end:
        name, size = struct.unpack_from("<4sI", content, start)
        inner = start + 8
        if name == b"LIST":
            name, inner, size = content[inner : inner + 4], inner + 4, size - 4
        places[name] = (inner, inner + size)
        start = inner + size + (size & 1)
    return places


def _rooted(
    generators: np.ndarray, bags: np.ndarray, instruments: np.ndarray, samples: np.ndarray
) -> np.ndarray:
    """Sample headers with a copy for each (sample, root key) in use; points the zones in
    `generators` at the copies.
    """
    headers = list(samples[:-1])
    copies: dict[tuple[int, int], int] = {}  # (sample, root key) -> number of its header

    for first, last in zip(instruments["bag"][:-1], instruments["bag"][1:], strict=True):
        default = _UNSET
        for zone in range(first, last):
            rows = slice(bags["generator"][zone], bags["generator"][zone + 1])
            values = dict(generators[rows].tolist())
            root = values.get(_ROOT_KEY, default)
            if _SAMPLE_ID not in values:
                default = root  # the instrument's global zone sets the defaults of the others
                continue

            sample = values[_SAMPLE_ID]
            if root > 127 or root == samples["pitch"][sample]:
                continue
            if (sample, root) not in copies:
                header = samples[sample].copy()
                header["pitch"] = root
                copies[sample, root] = len(headers)
                headers.append(header)

            place = np.flatnonzero(generators[rows]["operator"] == _SAMPLE_ID)[0]
            generators["amount"][rows.start + int(place)] = copies[sample, root]
    return np.array([*headers, samples[-1]], _SAMPLE)


def in_tune(font: bytes) -> bytes:
    """The sound font `font` (the bytes of an .sf2 file) with each zone's root key written into its
    sample's header.
    """
    lists = _chunks(font, 12, len(font))  # after "RIFF", size and "sfbk"
    start, end = lists[b"pdta"]
    chunks = {name: font[a:b] for name, (a, b) in _chunks(font, start, end).items()}

    generators = np.frombuffer(chunks[b"igen"], _GENERATOR).copy()
    bags = np.frombuffer(chunks[b"ibag"], _BAG)
    instruments = np.frombuffer(chunks[b"inst"], _INSTRUMENT)
    samples = np.frombuffer(chunks[b"shdr"], _SAMPLE)
    chunks[b"shdr"] = _rooted(generators, bags, instruments, samples).tobytes()
    chunks[b"igen"] = generators.tobytes()

    # all sizes are even, so no chunk needs padding
    body = b"".join(struct.pack("<4sI", name, len(data)) + data for name, data in chunks.items())
    content = font[12 : start - 12] + struct.pack("<4sI4s", b"LIST", len(body) + 4, b"pdta") + body
    return struct.pack("<4sI4s", b"RIFF", len(content) + 4, b"sfbk") + content
