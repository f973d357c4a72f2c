from __future__ import annotations

import pytest

from largeforge.controllers.settings import from_environment

IMAGES = {
    "LARGEFORGE_TRAINER_IMAGE": "t",
    "LARGEFORGE_ENGINE_IMAGE": "e",
    "LARGEFORGE_ENGINE_CPU_IMAGE": "c",
}


def test_images_are_all_that_must_be_given():
    settings = from_environment(IMAGES)
    assert (settings.trainer_image, settings.engine_image, settings.engine_cpu_image) == ("t", "e", "c")
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
    assert len(str(caught.value).splitlines()) == 4
