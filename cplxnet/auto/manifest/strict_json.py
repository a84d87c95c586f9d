"""JSON read without forgiveness (duplicate keys, deep nesting, broken Unicode), and written the same way each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import Fault, ManifestError, ManifestNotFoundError

MAX_DEPTH = 32  # levels of nesting; a manifest has 5


class _Pairs(dict[str, Any]):
    """A JSON object that remembers which of its keys were given twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.twice = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def read(path: str | Path) -> bytes:
    """The bytes of the file `path`; a missing or unreadable one is a `ManifestError` that says what to try."""
    path = Path(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        there = (
            sorted(p.name for p in path.parent.glob("*.json"))[:5] if path.parent.is_dir() else []
        )
        hint = (
            "one of " + ", ".join(there)
            if there
            else "a file: experiment_generator.ipynb writes the manifests"
        )
        raise ManifestNotFoundError(path, [Fault("", "no such file", accepted=hint)]) from None
    except OSError as error:
        fault = Fault("", f"cannot be read ({error.strerror})", accepted="a readable .json file")
        raise ManifestError(path, [fault]) from None


def parse(text: str | bytes, *, source: str | Path) -> tuple[Any, list[Fault]]:
    """The JSON value in `text`, and a fault for every duplicate key and every string that is not Unicode.

    NaN and Infinity come through as floats: whoever checks the value's type knows its path.

    Raises:
        ManifestError: not UTF-8, not JSON (with line and column) or nested more than 32 levels deep.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(decoded, object_pairs_hook=_Pairs)
    except UnicodeDecodeError as error:
        fault = Fault("", f"not UTF-8 text at byte {error.start}", accepted="a JSON file in UTF-8")
    except json.JSONDecodeError as error:
        fault = Fault(
            "",
            f"not JSON at line {error.lineno} column {error.colno}: {error.msg}",
            accepted="a JSON object",
        )
    except RecursionError:
        fault = Fault("", "nested too deeply", accepted=f"at most {MAX_DEPTH} levels")
    except ValueError as error:  # an integer of more than 4300 digits
        fault = Fault("", f"not a usable number: {error}", accepted="integers of up to 4300 digits")
    else:
        faults: list[Fault] = []
        return _plain(value, (), faults, source), faults
    raise ManifestError(source, [fault])


def _plain(value: Any, path: tuple[str, ...], faults: list[Fault], source: str | Path) -> Any:
    if len(path) > MAX_DEPTH:
        fault = Fault(
            ".".join(path[:4]), "nested too deeply", accepted=f"at most {MAX_DEPTH} levels"
        )
        raise ManifestError(source, [fault])
    if isinstance(value, _Pairs):
        faults += [
            Fault(".".join((*path, key)), "key given twice", key, "each key once")
            for key in value.twice
        ]
        names = {key: _utf8(key, (*path, key), faults) for key in value}
        return {
            names[key]: _plain(item, (*path, names[key]), faults, source)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_plain(item, (*path, str(k)), faults, source) for k, item in enumerate(value)]
    return _utf8(value, path, faults) if isinstance(value, str) else value


def _utf8(text: str, path: tuple[str, ...], faults: list[Fault]) -> str:
    """`text`, or a fault and its escaped form if it holds half a surrogate pair, which no file can hold."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if safe != text:
        place = ".".join(path).encode("utf-8", "backslashreplace").decode("utf-8")
        faults.append(Fault(place, "not Unicode text", text, "no unpaired surrogates"))
    return safe


def pretty(value: Any) -> str:
    """`value` as JSON: indent 2, keys in the order given, the shortest floats that read back the same, a newline."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def canonical(value: Any) -> str:
    """`value` as JSON on one line, keys sorted: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
