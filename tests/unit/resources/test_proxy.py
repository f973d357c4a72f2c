"""Pods that download do so through the proxy that the chart names, and ask it for nothing of the cluster."""

import os
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from largeforge.controllers.servicesource import source_of
from largeforge.controllers.settings import from_environment
from largeforge.resources.attemptpod import Installation, common_env
from largeforge.resources.enginepod import engine_environment
from largeforge.resources.proxy import Proxy, proxy_variables
from tests.unit.serving import inferenceservice_of
from tests.unit.test_layout import REPO
from tests.unit.training import SETTINGS

PROXY = Proxy("http://proxy.example:3128", [".corp.example"])
VARIABLES = {
    "HTTP_PROXY": "http://proxy.example:3128",
    "HTTPS_PROXY": "http://proxy.example:3128",
    "NO_PROXY": "localhost,127.0.0.1,::1,.svc,.cluster.local,.corp.example",
}


def values(environment):
    return {each["name"]: each.get("value") for each in environment}


def test_pods_of_runs_get_the_proxys_variables_and_none_without_one():
    with_one = values(common_env(Installation("trainer:1", "Always", proxy=PROXY)))
    without = values(common_env(Installation("trainer:1", "Always")))
    assert with_one == without | VARIABLES
    assert not VARIABLES.keys() & without.keys()


@pytest.mark.parametrize(("uri", "downloads"), [("hf://org/model", True), ("pvc://models/base", False)])
def test_an_engine_gets_them_where_it_downloads(uri, downloads):
    service = inferenceservice_of(model={"uri": uri}, inspected=False)
    environment = engine_environment(service, source_of(service, ()), key="k" * 64, hub_endpoint=None, proxy=PROXY)
    assert (VARIABLES.items() <= values(environment).items()) is downloads
    assert ("HTTPS_PROXY" in values(environment)) is downloads


def test_the_settings_name_it():
    images = {f"LARGEFORGE_{k.upper()}": v for k, v in SETTINGS.model_dump().items() if k.endswith("_image")}
    given = {"LARGEFORGE_PROXY_URL": "http://proxy.example:3128", "LARGEFORGE_NO_PROXY": ".corp.example"}
    assert from_environment(images | given).proxy == PROXY
    assert from_environment(images).proxy is None
    with pytest.raises(ValueError, match="LARGEFORGE_PROXY_URL"):
        from_environment(images | {"LARGEFORGE_PROXY_URL": "http://me:secret@proxy.example"})


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "largeforge-progress.largeforge-system.svc", "git.corp.example"]
)
def test_what_is_near_is_not_asked_of_it(host, monkeypatch):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert urllib.request.proxy_bypass_environment(host)
    assert not urllib.request.proxy_bypass_environment("hub.example")


def test_the_hubs_client_asks_the_proxy():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    program = (
        "from largeforge.jobs import hub; hub.prepare();"
        " from huggingface_hub import HfApi; HfApi().model_info('org/model')"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        variables = proxy_variables(Proxy(f"http://127.0.0.1:{server.server_address[1]}"))
        clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("HF_")}
        environment = clean | variables | {"HF_ENDPOINT": "http://hub.example"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, cwd=REPO, capture_output=True, text=True, check=False
        )
        server.shutdown()
    assert asked[:1] == ["http://hub.example/api/models/org/model"], done.stderr
    assert "404" in done.stderr
