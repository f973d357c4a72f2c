from __future__ import annotations

import contextlib
import http.server
import json
import math
import threading

import pytest

from largeforge.jobs import evaluate, evaluateengine, prepared, quantizestep
from largeforge.jobs.evaluateengine import Engine
from largeforge.jobs.quantizeerrors import EvaluationError
from largeforge.jobs.reporter import Reporter
from tests.unit.jobs import quantizations

WINDOWS = [[5, 6, 7], [8, 9]]


@contextlib.contextmanager
def engine(answer):
    """The URL of a server whose completions are what *answer* makes of a question: a status and a body."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(200, {})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            given = answer(body)
            if given is None:
                self.connection.close()
            else:
                self.reply(*given)

        def reply(self, status, body):
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


def likely(body, logprob=-2.0):
    """What vLLM answers: null for the first token, then what was asked of it and what it likes better."""
    rest = [{str(token): {"logprob": logprob, "rank": 3}, "1": {"logprob": -0.1}} for token in body["prompt"][1:]]
    return 200, {"choices": [{"text": "x", "prompt_logprobs": [None, *rest]}]}


def test_the_perplexity_is_over_all_tokens_but_each_windows_first(tmp_path):
    prepared.write(tmp_path, windows=WINDOWS, samples=None)
    with engine(likely) as (url, asked):
        result = evaluate.run(quantizations.evaluation(tmp_path, url, prepared.digest(WINDOWS)))
    assert (result.outcome, result.stage, result.run_digest) == ("Succeeded", "Evaluate", "ab" * 32)
    assert result.evaluation.model_dump() == {"perplexity": f"{math.exp(2):.6g}", "tokens": 3, "windows": 2}
    assert [body["prompt"] for body in asked] == WINDOWS
    assert {(body["model"], body["max_tokens"], body["prompt_logprobs"]) for body in asked} == {("model", 1, 0)}


def test_each_token_counts_the_same_whatever_window_it_is_in():
    scores = {5: [-1.0, -1.0], 8: [-4.0]}
    found = evaluate.measure(WINDOWS, lambda window: scores[window[0]], Reporter())
    assert found.perplexity == pytest.approx(math.exp(6 / 3))


def test_a_model_without_a_finite_perplexity_is_damaged(tmp_path):
    prepared.write(tmp_path, windows=WINDOWS, samples=None)
    with (
        engine(lambda body: likely(body, logprob=-9999.0)) as (url, _),
        pytest.raises(EvaluationError, match="AWQ: its perplexity is no number, so its weights are damaged"),
    ):
        evaluate.run(quantizations.evaluation(tmp_path, url, prepared.digest(WINDOWS)))


def test_the_engines_own_words_are_kept():
    with engine(lambda _: (400, {"error": {"message": "This model's maximum context length is 2"}})) as (url, _):
        with pytest.raises(EvaluationError) as caught:
            Engine(url, "model").score([5, 6, 7])
        assert str(caught.value) == "the engine answered 400: This model's maximum context length is 2"


def test_a_refusal_is_final_and_an_error_of_the_engines_own_is_not():
    for status, code in ((400, 65), (500, 1)):
        with engine(lambda _, status=status: (status, {"error": {"message": "no"}})) as (url, _):
            with pytest.raises(EvaluationError) as caught:
                Engine(url, "model").score([5, 6, 7])
            assert (caught.value.exit_code, caught.value.reason) == (code, "EvaluationFailed")


@pytest.mark.parametrize(
    "body",
    [{}, {"choices": [{"prompt_logprobs": [None]}]}, {"choices": [{"prompt_logprobs": [None, None, None]}]}],
    ids=["none", "too few", "null"],
)
def test_an_answer_without_a_figure_for_each_token_is_no_answer(body):
    with (
        engine(lambda _: (200, body)) as (url, _),
        pytest.raises(EvaluationError, match="has no prompt_logprobs for each token"),
    ):
        Engine(url, "model").score([5, 6, 7])


def test_an_engine_that_ends_in_a_window_is_asked_again_when_it_is_back():
    answers = iter([None, likely])

    def answer(body):
        chosen = next(answers)
        return chosen(body) if chosen is not None else None

    with engine(answer) as (url, asked):
        assert Engine(url, "model").score([5, 6]) == [-2.0]
    assert len(asked) == 2


def test_one_that_always_does_is_given_up():
    with engine(lambda _: None) as (url, asked), pytest.raises(evaluateengine.EngineSilentError) as caught:
        Engine(url, "model").score([5, 6])
    assert len(asked) == evaluateengine.TRIES
    assert "see the log of the container engine" in str(caught.value)
    assert (caught.value.reason, caught.value.exit_code) == ("EngineSilent", 1)


def test_an_engine_that_never_answers_is_told_apart_from_a_slow_one():
    clock = iter(range(0, 1000, 100))
    slept = []
    silent = Engine("http://127.0.0.1:9", "model", now=lambda: next(clock), sleep=slept.append)
    with pytest.raises(evaluateengine.EngineSilentError, match="has not answered for 250 s"):
        silent.wait(250)
    assert len(slept) == 2


def test_windows_that_were_changed_are_not_measured(tmp_path):
    prepared.write(tmp_path, windows=[[1, 2]], samples=None)
    config = quantizations.evaluation(tmp_path, "http://127.0.0.1:9", prepared.digest(WINDOWS))
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json(by_alias=True))
    result, code = quantizestep.run(path, evaluate.step)
    assert (result.stage, code, result.error.reason) == ("Evaluate", 1, "StorageNotReady")
