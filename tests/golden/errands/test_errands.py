"""The Jobs that look at, copy and remove artifacts, as files; `make generate` writes them anew."""

from __future__ import annotations

from largeforge.resources.deliver import deliver_job, remove_job
from largeforge.resources.inspect import inspect_job
from tests.unit.errands import (
    ADAPTER,
    DELIVERY,
    EXPERT,
    HERE,
    HUB_MODEL,
    MODEL,
    QUANTIZEJOB,
    REJECTED,
    REMOVAL,
    SERVICE,
)


def test_the_look_at_an_adapter(golden):
    golden("adapter", inspect_job(ADAPTER, EXPERT, installation=HERE))


def test_the_look_at_a_model_on_a_claim(golden):
    golden("model", inspect_job(MODEL, SERVICE, installation=HERE, placement={"nodeSelector": {"disk": "fast"}}))


def test_the_look_at_a_model_of_the_hub(golden):
    golden("hub", inspect_job(HUB_MODEL, SERVICE, installation=HERE))


def test_a_delivery(golden):
    golden("deliver", deliver_job(DELIVERY, EXPERT, installation=HERE))


def test_a_removal(golden):
    golden("remove", remove_job(REMOVAL, EXPERT, installation=HERE))


def test_the_removal_of_a_result_that_a_quantizejob_rejected(golden):
    golden("rejected", remove_job(REJECTED, QUANTIZEJOB, installation=HERE))
