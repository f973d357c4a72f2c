from __future__ import annotations

from largeforge.resources.progress import ProgressTarget, progress_data, progress_env, progress_volumes

TARGET = ProgressTarget("https://largeforge-progress.system.svc/v1/progress", "a certificate")


def test_the_trainer_gets_an_address_a_ca_and_a_token_that_is_good_for_nothing_else():
    assert progress_env(TARGET) == [{"name": "LARGEFORGE_PROGRESS_URL", "value": TARGET.url}]
    assert progress_data(TARGET) == {"progress-ca.crt": "a certificate"}
    (volume,), (mount,) = progress_volumes(TARGET)
    assert volume["projected"] == {
        "sources": [
            {
                "serviceAccountToken": {
                    "audience": "largeforge-progress",
                    "expirationSeconds": 3600,
                    "path": "progress-token",
                }
            }
        ]
    }
    assert mount == {"name": volume["name"], "mountPath": "/var/run/secrets/largeforge", "readOnly": True}


def test_where_nobody_listens_there_is_nothing():
    assert (progress_env(None), progress_data(None), progress_volumes(None)) == ([], {}, ([], []))
