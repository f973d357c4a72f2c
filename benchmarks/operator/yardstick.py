"""The yardstick: an operator of ten lines that makes the same kind of child, as kopf's own examples do it."""

import kopf
import kubernetes

kubernetes.config.load_kube_config()


@kopf.on.create("largeforge.ai", "v1alpha1", "finetunejobs")
def made(body: kopf.Body, name: str, namespace: str, **_: object) -> None:
    """Make the Job."""
    container = {"name": "trainer", "image": "trainer:1"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    job = {"metadata": {"name": f"{name}-r1-p1"}, "spec": {"template": template}}
    kopf.adopt(job, owner=body)
    kubernetes.client.BatchV1Api().create_namespaced_job(namespace, job)
