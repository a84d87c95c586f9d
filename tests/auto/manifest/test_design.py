"""`extra/design.md` describes every key of a manifest, its default, and an example that loads."""

import json
import re
from pathlib import Path
from typing import get_args, get_origin

import pytest
from manifest_cases import put, valid
from pydantic import BaseModel

from cplxnet.auto import tasks
from cplxnet.auto.manifest.read import ManifestError, parse
from cplxnet.auto.manifest.schema import INHERITED, Manifest

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "extra" / "design.md").read_text()
SECTION = TEXT[TEXT.index("\n## 2. ") : TEXT.index("\n## 3. ")]
TABLES = [
    [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table.splitlines()[2:]
    ]
    for table in re.findall(r"(?:^\|.*\n)+", SECTION, flags=re.MULTILINE)
]
KEYS = {row[0].strip("`"): row for row in TABLES[0]}


def schema_keys(model, prefix=""):
    """Dotted path -> field, for every key of a manifest; NAME for the keys of a table."""
    keys = {}
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        keys[path] = field
        is_table = get_origin(field.annotation) is dict
        for part in get_args(field.annotation) or (field.annotation,):
            if isinstance(part, type) and issubclass(part, BaseModel):
                keys |= schema_keys(part, f"{path}.NAME." if is_table else f"{path}.")
    return keys


FIELDS = schema_keys(Manifest)
# objects that the usual manifest has not got, for the keys in them
OFF_BY_DEFAULT = {
    "kl_scheduler": {"name": "linear"},
    "distill": {"teacher": "dense"},
    "pruner": {"name": "gradual", "sparsity": 0.5},
}


def test_every_key_is_described_in_the_schemas_order():
    assert len(FIELDS) > 50
    assert list(KEYS) == list(FIELDS)


@pytest.mark.parametrize("path", FIELDS)
def test_default(path):
    field, default = FIELDS[path], KEYS[path][2]
    if field.is_required():
        assert default == "needed"
    elif path.removeprefix("stages.NAME.") in INHERITED:
        assert default.startswith("the first stage's")
    elif path == "stages.NAME.model.name":
        assert default == "the manifest's"
    else:
        value = field.get_default(call_default_factory=True)
        written = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        assert json.loads(default.strip("`")) == written


@pytest.mark.parametrize("path", FIELDS)
def test_example_is_accepted(path):
    example = json.loads(KEYS[path][4].strip("`"))
    table = path.partition(".NAME")[0]
    names = list(valid()[table]) if ".NAME" in path else [""]
    refused = []
    for name in names:  # a feed to train from takes other keys than one to score from
        try:
            raw = valid()
            inside = {key: part for key, part in OFF_BY_DEFAULT.items() if f".{key}." in path}
            raw["stages"]["fine-tune" if "pruner" in inside else "sparsify"] |= inside
            if path.endswith("kl_channels"):
                raw["stages"]["sparsify"]["model"] = {"name": "complex.DeepConvNetBothVD"}
            if ".pruner" in path:
                raw["stages"]["fine-tune"]["early"] = None
            parse(put(raw, path.replace("NAME", name), example))
        except (ManifestError, TypeError, KeyError) as error:
            refused.append(error)
    assert len(refused) < len(names), refused


def test_keywords_of_components():
    vocabulary = tasks.vocabulary()
    rows = {(row[0].strip("`"), row[1].strip("`")): row[3].strip("`") for row in TABLES[1]}
    expected = {}
    for component, keywords in vocabulary.options.items():
        network = re.sub(
            r"^\w+\.(\w*?)((?:Group|Both)?(?:VD|ARD)|L0|Masked|)$", r"...\1...", component
        )
        for field in keywords.model_fields.values():
            default = field.default
            value = list(default) if isinstance(default, tuple) else default
            expected[network, field.alias] = value
    assert {key: json.loads(default) for key, default in rows.items()} == expected


def test_every_name_is_listed():
    components = dict(tasks.vocabulary().components)
    models = components.pop("model")
    for names in components.values():
        for name in names:
            assert f"`{name}`" in SECTION or f'`"{name}"`' in SECTION, name
    for model in models:
        architecture = re.sub(r"^\w+\.(\w*?)((?:Group|Both)?(?:VD|ARD)|L0|Masked|)$", r"\1", model)
        assert f"**{architecture}**" in TEXT


# --- the map of the code, and how to change it


def test_every_room_is_on_the_map():
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("cplxnet/**/*.py")}
    missing = [room for room in rooms if f"| `{room}/` |" not in TEXT]
    assert len(rooms) > 8
    assert not missing


def test_files_that_are_named_exist():
    named = set(re.findall(r"`((?:cplxnet|extra|tests|legacy)/[\w/.]*)`", TEXT))
    assert len(named) > 30
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_names_in_code_that_are_named_exist():
    for name, file in (
        ("ARCHITECTURES", "musicnet/networks.py"),
        ("FEATURE_KINDS", "musicnet/features.py"),
        ("COMPLEX", "nn/forms.py"),
        ("REAL", "nn/forms.py"),
        ("LATER", "auto/manifest/schema.py"),
        ("NOT_COUNTED", "auto/runner/stages.py"),
        ("checkpoint_every_s", "auto/runner/checkpoint.py"),
        ("KEPT", "auto/runner/checkpoint.py"),
        ("KINDS", "auto/report/kinds.py"),
        ("LOSSES", "auto/train/objective.py"),
        ("OPTIMIZERS", "auto/train/optim.py"),
        ("PRESETS", "musicnet/experiments.py"),
        ("SCHEDULES", "auto/train/optim.py"),
    ):
        assert f"`{name}`" in TEXT
        assert re.search(
            rf"^(?:def )?{name}\b", (ROOT / "cplxnet" / file).read_text(), re.MULTILINE
        ), name
