from __future__ import annotations

import pytest

from largeforge.controllers.settings import from_environment

IMAGES = {
    "LARGEFORGE_TRAINER_IMAGE": "t",
    "LARGEFORGE_ENGINE_IMAGE": "e",
    "LARGEFORGE_ENGINE_CPU_IMAGE": "c",
    "LARGEFORGE_QUANTIZER_IMAGE": "q",
    "LARGEFORGE_QUANTIZER_AUTOAWQ_IMAGE": "a",
}


def test_images_are_all_that_must_be_given():
    settings = from_environment(IMAGES)
    assert (settings.trainer_image, settings.engine_image, settings.engine_cpu_image) == ("t", "e", "c")
    assert (settings.quantizer_image, settings.quantizer_autoawq_image) == ("q", "a")
    assert settings.namespaces == frozenset()
    assert str(settings.master_key_file) == "/etc/largeforge/master/key"


def test_namespaces_are_a_list_with_commas():
    assert from_environment(IMAGES | {"LARGEFORGE_NAMESPACES": " a, b,,"}).namespaces == {"a", "b"}


def test_an_empty_variable_is_none():
    assert from_environment(IMAGES | {"LARGEFORGE_NAMESPACES": ""}).namespaces == frozenset()


def test_every_wrong_variable_is_named():
    with pytest.raises(
        ValueError, match=r"LARGEFORGE_TRAINER_IMAGE: .*\n(.*\n)*LARGEFORGE_IMAGE_PULL_POLICY: "
    ) as caught:
        from_environment({"LARGEFORGE_IMAGE_PULL_POLICY": "Sometimes"})
    assert len(str(caught.value).splitlines()) == 6


@pytest.mark.parametrize(
    "url",
    ["http://a.b.svc/v1/progress", "https://a.b.svc", "https://user@a.b.svc/v1/progress", "https://a/v1/progress?b"],
)
def test_progress_goes_to_an_https_address_with_our_path(url):
    good = "https://largeforge-progress.system.svc/v1/progress"
    assert from_environment(IMAGES | {"LARGEFORGE_PROGRESS_URL": good}).progress_url == good
    with pytest.raises(ValueError, match="LARGEFORGE_PROGRESS_URL"):
        from_environment(IMAGES | {"LARGEFORGE_PROGRESS_URL": url})


def test_what_runs_may_ask_for_are_lists_with_commas_and_empty_by_themselves():
    bare = from_environment(IMAGES)
    assert (bare.hub_endpoint, bare.hub_hosts) == (None, frozenset())
    assert (bare.remote_code_namespaces, bare.service_accounts) == (frozenset(), frozenset())
    given = from_environment(
        IMAGES
        | {
            "LARGEFORGE_HUB_HOSTS": "a.example, *.b.example",
            "LARGEFORGE_REMOTE_CODE_NAMESPACES": "sales",
            "LARGEFORGE_SERVICE_ACCOUNTS": "trainer,other",
        }
    )
    assert given.hub_hosts == {"a.example", "*.b.example"}
    assert (given.remote_code_namespaces, given.service_accounts) == ({"sales"}, {"trainer", "other"})


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example", "https://me:pw@hub.example", "https://h?a=b"])
def test_the_hubs_address_is_http_without_credentials(endpoint):
    assert from_environment(IMAGES | {"LARGEFORGE_HUB_ENDPOINT": "http://hub:80/x"}).hub_endpoint == "http://hub:80/x"
    with pytest.raises(ValueError, match="LARGEFORGE_HUB_ENDPOINT"):
        from_environment(IMAGES | {"LARGEFORGE_HUB_ENDPOINT": endpoint})
