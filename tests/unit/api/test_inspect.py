from __future__ import annotations

import json

import pytest

from largeforge.api.common import ErrorDetail, Metric
from largeforge.api.deliver import DeliverConfig, DeliverResult
from largeforge.api.inspect import AdapterFacts, CacheFacts, InspectConfig, InspectResult, ModelFacts, Provenance
from largeforge.api.messages import TERMINATION_MESSAGE_LIMIT
from largeforge.api.run import ModelSource
from tests.unit.api.test_run import PROBES

SOURCE = ModelSource(uri="pvc://models/base", field="spec.model.uri", path="/mnt/source")
REQUEST = InspectConfig(expect="Model", source=SOURCE)
DELIVERY = {
    "digest": "a" * 64,
    "field": "spec.artifact.uri",
    "source_uri": "pvc://models/sql",
    "source_path": "/mnt/source",
    "target_uri": "pvc://store/" + "a" * 64,
    "target_path": "/mnt/store",
    "target_name": "a" * 64,
}


def provenance(**changes):
    fields = {"run_digest": "d" * 64, "base": "pvc://models/base", "probes": PROBES}
    return Provenance(**(fields | changes))


def adapter(**changes):
    fields = {"request": "r" * 64, "digest": "a" * 64, "rank": 16, "base": "pvc://models/base"}
    return AdapterFacts(**(fields | changes))


def test_a_question_is_the_same_for_an_operator_that_knows_more_fields_and_another_for_another_uri():
    source = {"uri": "pvc://models/base", "field": "spec.model.uri", "path": "/mnt/source"}
    known = {"expect": "Model", "source": source}
    assert REQUEST.request == InspectConfig.model_validate(known | {"cachePath": None}).request
    other = REQUEST.model_copy(update={"source": SOURCE.model_copy(update={"uri": "pvc://models/other"})})
    assert other.request != REQUEST.request
    assert REQUEST.model_copy(update={"expect": "Adapter"}).request != REQUEST.request


def test_an_answer_survives_the_way_through_the_termination_message():
    result = InspectResult(outcome="Succeeded", request="r" * 64, adapter=adapter(provenance=provenance()))
    assert InspectResult.model_validate_json(result.message()) == result


def test_an_answer_that_is_too_long_loses_what_status_can_do_without_and_keeps_the_facts():
    full = adapter(
        target_modules=[f"module_{i}_" + "x" * 100 for i in range(64)],
        modules_to_save=["lm_head", "embed_tokens"],
        provenance=provenance(versions=[Metric(name=f"library{i}", value="1" * 60) for i in range(16)]),
    )
    text = InspectResult(outcome="Succeeded", request="r" * 64, adapter=full).message()
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
    kept = InspectResult.model_validate_json(text).adapter
    assert (kept.rank, kept.digest, len(kept.target_modules)) == (16, "a" * 64, 1)
    assert kept.provenance.probes == PROBES, "probes go last"
    assert not kept.provenance.versions


def test_an_error_is_cut_where_it_would_not_fit():
    error = ErrorDetail(reason="NotAModel", message="ü" * 2048, field="spec.model.uri")
    for result in (
        InspectResult(outcome="Failed", request="r" * 64, error=error),
        DeliverResult(outcome="Failed", request="r" * 64, error=error),
    ):
        text = result.message()
        assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
        assert json.loads(text)["error"]["reason"] == "NotAModel"


def test_the_cache_of_a_sequence_counts_layers_with_a_window_up_to_the_window():
    cache = CacheFacts(values_per_token=10, values_per_window_token=3, window=100)
    assert cache.values(50) == 50 * 13
    assert cache.values(1000) == 1000 * 10 + 100 * 3
    assert CacheFacts(values_per_token=4).values(8) == 32


def test_facts_of_models_and_adapters_are_bounded_for_a_status():
    for facts in (ModelFacts, AdapterFacts):
        for name, schema in facts.model_json_schema()["properties"].items():
            kinds = schema.get("anyOf", [schema])
            for kind in kinds:
                if kind.get("type") == "string" and "enum" not in kind:
                    assert "maxLength" in kind, name
                if kind.get("type") == "array":
                    assert "maxItems" in kind, name


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "", "-rf/x"])
def test_a_folder_to_write_or_remove_is_a_plain_name(name):
    with pytest.raises(ValueError, match="target_name"):
        DeliverConfig.model_validate(DELIVERY | {"target_name": name})


def test_a_delivery_names_a_whole_digest():
    assert DeliverConfig.model_validate(DELIVERY).request == DeliverConfig.model_validate(DELIVERY).request
    with pytest.raises(ValueError, match="digest"):
        DeliverConfig.model_validate(DELIVERY | {"digest": "abc"})
