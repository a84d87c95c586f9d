"""What the tests of the demo corpus play: an excerpt of a sonata."""

from extra.corpora.demo.pieces import Piece

SHORT = "mozart/k545/movement1_exposition.mxl"


def piece(key="id_1001", split="train", source=SHORT, seconds=5.0, **more):
    return Piece(
        key, split, source, "Mozart", "K. 545", "1. Allegro", "Solo Piano", 126.0, seconds, **more
    )
