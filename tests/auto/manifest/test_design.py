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

TEXT = (Path(__file__).resolve().parents[3] / "extra" / "design.md").read_text()
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
            parse(put(valid(), path.replace("NAME", name), example))
        except (ManifestError, TypeError, KeyError) as error:
            refused.append(error)
    assert len(refused) < len(names), refused


def test_keywords_of_components():
    vocabulary = tasks.vocabulary()
    rows = {(row[0].strip("`"), row[1].strip("`")): row[3].strip("`") for row in TABLES[1]}
    expected = {}
    for component, keywords in vocabulary.options.items():
        network = re.sub(r"^\w+\.(\w*?)(VD|ARD|Masked|)$", r"...\1...", component)
        for field in keywords.model_fields.values():
            default = field.default
            value = list(default) if isinstance(default, tuple) else default
            expected[network, field.alias] = value
    assert {key: json.loads(default) for key, default in rows.items()} == expected


def test_every_name_is_listed():
    vocabulary = tasks.vocabulary()
    for names in (
        vocabulary.features,
        vocabulary.samplers,
        vocabulary.losses,
        vocabulary.optimizers,
        vocabulary.lr_schedulers,
    ):
        for name in names:
            assert f"`{name}`" in SECTION, name
    for model in vocabulary.models:
        architecture = re.sub(r"^\w+\.(\w*?)(VD|ARD|Masked|)$", r"\1", model)
        assert f"**{architecture}**" in TEXT
