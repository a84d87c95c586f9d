"""What runs have reached, kind by kind: a table, a figure and sentences, made from one folder of runs or several.

`make(kind, folders)` makes one and writes it; each kind is a file here with `rows` (its table) and `figure`.
"""

from . import compare, curves, layers, profile, stopping, threshold, trade_off
from .kinds import KINDS, Made, make
from .runs import gather, methods, missing
