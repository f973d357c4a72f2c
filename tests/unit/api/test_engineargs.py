from __future__ import annotations

import pytest

from dev import engineargs as generator
from largeforge.api.engineargs import RESERVED, engine_version, flags, problems


def test_the_list_is_of_the_engine_that_is_pinned():
    assert engine_version() == generator.pinned()


def test_each_flag_that_a_field_sets_is_one_of_the_engine():
    unknown = {name.removeprefix("no-") for name in RESERVED} - set(flags())
    assert unknown == {"model-tag"}  # vLLM's positional argument


def test_flags_that_the_engine_has_are_taken():
    assert list(problems({"seed": "7", "async-scheduling": "", "block-size": "16", "api-server-count": "2"})) == [
        "spec.engine.extraArgs.api-server-count: set by spec.replicas (an adapter is loaded in one server process for"
        " each pod); remove it from extraArgs"
    ]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max-num-seq", "8", "flags are written in full; it is the beginning of max-num-seqs"),
        ("shutdown-time", "8", "flags are written in full; it is the beginning of shutdown-timeout"),
        ("long-prefil-token-threshold", "8", "has no such flag; did you mean long-prefill-token-threshold?"),
        ("zzz", "", "has no such flag; see the engine's documentation for its flags"),
        ("seed", "", "it needs a value"),
        ("seed", "1.5", "must be a whole number (got '1.5')"),
        ("watermark", "much", "must be a number (got 'much')"),
        ("async-scheduling", "true", "it takes no value (got 'true'); write 'async-scheduling: \"\"'"),
        ("scheduling-policy", "lifo", "must be one of fcfs, priority (got 'lifo')"),
        ("no-enable-lora", "", "set by spec.lora; remove it from extraArgs"),
    ],
)
def test_what_the_engine_would_not_take_is_refused_with_the_remedy(name, value, said):
    (problem,) = problems({name: value})
    assert problem.startswith(f"spec.engine.extraArgs.{name}: ")
    assert said in problem


@pytest.mark.parametrize(
    "name",
    [
        "middleware",
        "tool-server",
        "kv-transfer-config",
        "profiler-config",
        "worker-extension-cls",
        "enable-log-requests",
        "enable-prompt-embeds",
        "allowed-local-media-path",
        "config",
        "load-format",
    ],
)
def test_what_loads_code_opens_endpoints_or_logs_prompts_is_reserved(name):
    assert name in RESERVED
