"""The tables of a run as Markdown, printed and put into README.md between two markers."""

from collections.abc import Sequence
from pathlib import Path

from cplxnet.auto.report.text import put

from .agreement import Row
from .steps import OURS
from .targets import Measured, verdicts

README = Path(__file__).with_name("README.md")
WRITERS = {  # of the sections of README.md
    "measured": "make bench",
    "growth": "python -m extra.benchmarks.growth",
    "compact": "python -m extra.benchmarks.compact",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def text(measured: Measured, agreement: Sequence[Row], heading: Sequence[str]) -> str:
    """Everything a run has to say. `heading`: lines on machine, versions and date."""
    parts = ["\n".join(f"- {line}" for line in heading)]
    rows = [[v.claim, v.wanted, v.found, "yes" if v.met else "**no**"] for v in verdicts(measured)]
    parts += ["### Targets", table(["what (batch 32)", "wanted", "found", "met"], rows)]
    parts += ["### Times", _TIMES, table(_TIME_HEAD, _time_rows(measured))]
    if measured.memory:
        rows = [[name, f"{mib:.0f}"] for name, mib in measured.memory.items()]
        parts += [
            "### Peak memory of a VD step, MiB beyond the imports",
            table(["library", "MiB"], rows),
        ]
    rows = [[name, what, f"{delta:.1e}"] for name, what, delta in agreement]
    parts += [
        "### Agreement",
        table(["against cplxnet", "what", "largest relative difference"], rows),
    ]
    return "\n\n".join(parts)


_TIMES = (
    "Milliseconds a call: median (quartiles); ratio to cplxnet's median; "
    "for cplxnet the multiple of the floor."
)
_TIME_HEAD = ["work", "batch", "contestant", "ms", "ratio", "floor, ms", "times the floor"]


def _time_rows(measured: Measured) -> list[list[str]]:
    rows = []
    for (work, batch), times in measured.times.items():
        floor = measured.floors.get((work, batch))
        for name, found in times.items():
            own = name == OURS
            spread = f"{_ms(found.median)} ({_ms(found.low)} to {_ms(found.high)})"
            ratio = "" if own else f"{found.median / times[OURS].median:.2f}"
            limit = [_ms(floor), f"{found.median / floor:.2f}"] if own and floor else ["", ""]
            rows.append([work, str(batch) if batch else "", name, spread, ratio, *limit])
    return rows


def _ms(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def write(text: str, path: Path = README, *, section: str = "measured") -> None:
    """Put `text` between the markers of `section` in the file at `path`. Raises ValueError where
    they are not.
    """
    begin, end = (
        f"<!-- {section}: begin ({WRITERS[section]} writes what is between) -->",
        f"<!-- {section}: end -->",
    )
    put(path, begin, end, text)
