"""The official client, the router and a real engine: what a user's program does with more than one parameter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai import OpenAI

from dev import demo

pytestmark = pytest.mark.cluster

MESSAGES = [{"role": "user", "content": "Tell me a long story about the sea."}]
BASE = demo.SERVICE
TOKENS = 24


def greedy(client: OpenAI, **more):
    """An answer without sampling, as long as it may be: no end of its own cuts it short."""
    wanted = {"model": BASE, "messages": MESSAGES, "max_tokens": TOKENS, "temperature": 0} | more
    return client.chat.completions.create(**wanted, extra_body={"ignore_eos": True})


def test_a_stream_comes_in_pieces_and_ends_with_its_reason_and_its_usage(client: OpenAI):
    *parts, last = greedy(client, stream=True, stream_options={"include_usage": True})
    assert sum(1 for part in parts if part.choices[0].delta.content) > TOKENS / 2
    assert [part.choices[0].finish_reason for part in parts][-1] == "length"
    assert last.choices == []
    assert last.usage.completion_tokens == TOKENS


def test_the_log_probabilities_are_those_of_each_token(client: OpenAI):
    found = greedy(client, max_tokens=8, logprobs=True, top_logprobs=2)
    tokens = found.choices[0].logprobs.content
    assert len(tokens) == found.usage.completion_tokens == 8
    for token in tokens:
        likeliest, second = token.top_logprobs
        assert token.token == likeliest.token  # greedy
        assert second.logprob <= token.logprob <= 0


def test_an_answer_ends_before_a_text_that_stops_it(client: OpenAI):
    found = greedy(client, stop=[" "]).choices[0]
    assert found.message.content
    assert " " not in found.message.content
    assert found.finish_reason == "stop"


def test_several_answers_to_one_question_are_told_apart(client: OpenAI):
    found = greedy(client, n=3, temperature=1, max_tokens=8)
    assert sorted(choice.index for choice in found.choices) == [0, 1, 2]
    assert found.usage.completion_tokens > 8


def test_a_text_is_completed_and_a_response_is_given(client: OpenAI):
    completed = client.completions.create(model=BASE, prompt="The capital of France is", max_tokens=6)
    assert completed.choices[0].text
    assert completed.usage.completion_tokens <= 6
    response = client.responses.create(model=BASE, input="Say hello.", max_output_tokens=8)
    assert response.usage.output_tokens <= 8
    assert response.output_text


def test_what_the_engine_refuses_is_the_clients_error_in_the_engines_words(client: OpenAI):
    with pytest.raises(openai.BadRequestError, match="temperature"):
        greedy(client, temperature=-1)
    with pytest.raises(openai.BadRequestError, match="max"):
        greedy(client, max_tokens=10_000_000)


def test_streams_at_the_same_time_are_not_mixed_up(client: OpenAI):
    def names_of_answer(number: int) -> set[str]:
        headers = {"x-request-id": f"mark-{number}-"}  # vLLM names its answer so
        return {part.id for part in greedy(client, stream=True, max_tokens=12, extra_headers=headers)}

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(names_of_answer, range(8)))
    for number, names in enumerate(answers):
        assert len(names) == 1
        assert f"mark-{number}-" in names.pop()
