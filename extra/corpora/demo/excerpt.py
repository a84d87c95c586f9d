"""The first measures of a MusicXML score, so that music21 need not parse the whole of a long movement."""

import xml.etree.ElementTree as ElementTree
import zipfile
from fractions import Fraction
from pathlib import Path


def _document(path: Path) -> ElementTree.Element:
    """The root of the MusicXML inside an .mxl archive, found by its META-INF/container.xml."""
    with zipfile.ZipFile(path) as archive:
        container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
        rootfile = next(element for element in container.iter() if element.tag.endswith("rootfile"))
        return ElementTree.fromstring(archive.read(rootfile.attrib["full-path"]))


def _measures(part: ElementTree.Element, quarters: float) -> int:
    """How many of the part's measures it takes to fill `quarters` quarter notes, by its time signatures."""
    filled, length = Fraction(0), Fraction(4)
    for number, measure in enumerate(part.findall("measure"), start=1):
        for time in measure.iter("time"):
            beats, beat_type = time.findtext("beats"), time.findtext("beat-type")
            if beats and beat_type:
                length = sum(Fraction(term) for term in beats.split("+")) * Fraction(
                    4, int(beat_type)
                )
        filled += length
        if filled >= quarters:
            return number
    return len(part)


def musicxml(path: Path, quarters: float) -> str:
    """The MusicXML text of the .mxl score at `path`, every part cut after about `quarters` quarter notes.

    Cut after a whole measure, the same one in each part; a score that is shorter comes back whole.
    """
    root = _document(path)
    parts = root.findall("part")
    count = max(_measures(part, quarters) for part in parts)
    for part in parts:
        for measure in part.findall("measure")[count:]:
            part.remove(measure)
    return ElementTree.tostring(root, encoding="unicode")
