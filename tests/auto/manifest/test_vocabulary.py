"""Keywords of components, from their signatures."""

import pydantic
import pytest
from manifest_cases import VOCABULARY, valid

from cplxnet.auto.manifest import vocabulary
from cplxnet.auto.manifest.vocabulary import keywords


def build(in_channels: int, *extra: int, width: int, copy: bool = False, sizes: tuple = (1, 2)):
    raise AssertionError("not called")


def faults_of(model, options):
    with pytest.raises(pydantic.ValidationError) as caught:
        model.model_validate_json(pydantic.TypeAdapter(dict).dump_json(options))
    return {(error["type"], error["loc"]) for error in caught.value.errors()}


def test_keywords_have_names_types_and_defaults():
    model = keywords(build, given=("in_channels",))
    assert {field.alias for field in model.model_fields.values()} == {"width", "copy", "sizes"}
    model.model_validate_json('{"width": 3, "copy": true, "sizes": [3]}')
    options = {"width": 3.0, "copy": 1, "in_channels": 1}
    assert faults_of(model, options) == {
        ("int_type", ("width",)),
        ("bool_type", ("copy",)),
        ("extra_forbidden", ("in_channels",)),
    }
    assert faults_of(model, {}) == {("missing", ("width",))}


def test_a_component_may_take_anything():
    def anything(**options):
        raise AssertionError("not called")

    keywords(anything).model_validate({"depth": 3})
    keywords(lambda depth=1: None).model_validate({"depth": "deep"})


def test_names_known_to_a_manifest():
    raw = {**valid(), "feeds": [], "scorers": {"a": {}, 3: {}}}
    names = VOCABULARY.names(raw)
    assert "feed" not in names  # the table is a fault itself
    assert names["scorer"] == ("a",)
    assert names["dataset"] == ("train", "valid", "test")
    assert names["loss"] == ("bce_with_logits", "kl")


def test_the_vocabulary_of_a_task():
    assert vocabulary.of_task("musicnet").components["task"] == ("musicnet",)
    assert vocabulary.of_task(["no name"]).components["task"] == ("musicnet",)
    assert "complex.DeepConvNetVD" in vocabulary.of_task("musicnet").variational_models
