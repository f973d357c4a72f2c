"""What `make demo-env` prints is for a shell's `eval`."""

import subprocess
from pathlib import Path

import pytest

from dev import demo


def test_the_environment_of_the_demo_can_be_evaluated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(demo, "get", lambda *_: {"kind": "Namespace"})
    monkeypatch.setattr(demo, "base_url", lambda _: "http://172.31.255.2:30080/v1")
    monkeypatch.setattr(demo, "api_key", lambda _: "k3y")
    monkeypatch.setattr(demo.cluster, "kubeconfig", lambda: Path("/cache/kubeconfig"))
    demo.print_environment()
    script = f'{capsys.readouterr().out}\necho "$KUBECONFIG $OPENAI_BASE_URL $OPENAI_API_KEY"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={})
    assert done.stdout == "/cache/kubeconfig http://172.31.255.2:30080/v1 k3y\n"


def test_without_a_demo_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "get", lambda *_: None)
    with pytest.raises(demo.StepError, match="there is no namespace") as raised:
        demo.print_environment()
    assert raised.value.remedy == "run make demo first"
