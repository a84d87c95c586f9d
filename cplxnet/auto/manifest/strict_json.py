"""JSON read strictly (size, nesting, duplicate keys, broken Unicode), and written one way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cplxnet.files import check_regular

from .errors import Fault, ManifestError, ManifestNotFoundError

MAX_BYTES = 2**24  # of a file; a manifest has 2 thousand
MAX_DEPTH = 32  # levels of nesting; a manifest has 5


class _Pairs(dict[str, Any]):
    """A JSON object that remembers which of its keys were given twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs)
        self.twice = [key for key, count in counts.items() if count > 1]


def read(path: str | Path) -> bytes:
    """The bytes of the file `path`.

    Raises:
        ManifestNotFoundError: no such file; the text names those that are there.
        ManifestError: the file cannot be read, or has more than 16 MiB.
    """
    path = Path(path)
    try:
        check_regular(path)
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        others = sorted(other.name for other in path.parent.glob("*.json"))[:5]
        accepted = "a file: experiment_generator.ipynb writes the manifests"
        if others:
            accepted = "one of " + ", ".join(others)
        raise ManifestNotFoundError(path, [Fault("", "no such file", accepted=accepted)]) from None
    except OSError as error:
        reason = error.strerror or "no regular file"
        fault = Fault("", f"cannot be read ({reason})", accepted="a readable .json file")
        raise ManifestError(path, [fault]) from None

    if len(content) > MAX_BYTES:
        fault = Fault("", "too large for a manifest", accepted=f"at most {MAX_BYTES} bytes")
        raise ManifestError(path, [fault])
    return content


def parse(text: str | bytes, *, source: str | Path) -> tuple[Any, list[Fault]]:
    """The JSON value in `text`, and its faults as `plain` finds them.

    NaN and Infinity come through as floats: whoever checks the value's type knows its path.

    Raises:
        ManifestError: not UTF-8, not JSON (with line and column) or nested too deeply.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(decoded, object_pairs_hook=_Pairs)
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text at byte {error.start}"
        accepted = "a JSON file in UTF-8"
    except json.JSONDecodeError as error:
        problem = f"not JSON at line {error.lineno} column {error.colno}: {error.msg}"
        accepted = "a JSON object"
    except RecursionError:
        problem = "nested too deeply"
        accepted = f"at most {MAX_DEPTH} levels"
    except ValueError as error:  # an integer of more than 4300 digits
        problem = f"not a usable number: {error}"
        accepted = "integers of up to 4300 digits"
    else:
        return plain(value, source=source)
    raise ManifestError(source, [Fault("", problem, accepted=accepted)])


def plain(value: Any, *, source: str | Path) -> tuple[Any, list[Fault]]:
    """A copy of `value` in dicts and lists, with a fault for each part that JSON cannot say.

    Those are keys given twice and text that is not Unicode (half a surrogate pair: it is escaped).

    Raises:
        ManifestError: nested too deeply.
    """
    faults: list[Fault] = []

    def copied(value: Any, path: tuple[str, ...]) -> Any:
        if len(path) > MAX_DEPTH:
            accepted = f"at most {MAX_DEPTH} levels"
            fault = Fault(".".join(path[:4]), "nested too deeply", accepted=accepted)
            raise ManifestError(source, [fault])

        if isinstance(value, Mapping):
            for key in value.twice if isinstance(value, _Pairs) else []:
                faults.append(
                    Fault(".".join((*path, key)), "key given twice", key, "each key once")
                )
            return {
                copied(key, (*path, str(key))): copied(item, (*path, str(key)))
                for key, item in value.items()
            }

        if isinstance(value, (list, tuple)):
            return [copied(item, (*path, str(k))) for k, item in enumerate(value)]

        if isinstance(value, str) and not value.isascii():
            safe = value.encode("utf-8", "backslashreplace").decode("utf-8")
            if safe != value:
                accepted = "no unpaired surrogates"
                faults.append(Fault(".".join(path), "not Unicode text", value, accepted))
            return safe
        return value

    return copied(value, ()), faults


def pretty(value: Any) -> str:
    """`value` as JSON: indent 2, keys in the order given, shortest floats, a newline."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def canonical(value: Any) -> str:
    """`value` as JSON on one line, keys sorted: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
