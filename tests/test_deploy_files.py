"""What is in deploy/ is what Kubernetes, KubeRay and the shell take."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
BASH = shutil.which("bash")

# The fields of KubeRay's API ray.io/v1, as rayjob_types.go and raycluster_types.go have them. Its
# schema is published with the operator alone, in no package; pods in it are Kubernetes's own.
RAY_JOB = {
    "activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata",
    "clusterSelector", "submitterConfig", "managedBy", "deletionStrategy", "entrypoint",
    "runtimeEnvYAML", "jobId", "submissionMode", "entrypointResources", "entrypointNumCpus",
    "entrypointNumGpus", "ttlSecondsAfterFinished", "shutdownAfterJobFinishes", "suspend",
}  # fmt: skip
RAY_CLUSTER = {
    "headGroupSpec", "workerGroupSpecs", "rayVersion", "enableInTreeAutoscaling",
    "autoscalerOptions", "headServiceAnnotations", "suspend",
}  # fmt: skip
HEAD = {"serviceType", "headService", "enableIngress", "rayStartParams", "template"}
WORKERS = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams",
    "template", "scaleStrategy",
}  # fmt: skip


def documents(name: str) -> list[dict[str, Any]]:
    text = (DEPLOY / "kubernetes" / name).read_text(encoding="utf-8")
    return list(yaml.safe_load_all(text))


def check(document: dict[str, Any]) -> None:
    """Raise where Kubernetes knows no such field, lacks one, or wants another kind of value."""
    validating = pytest.importorskip("kubernetes_validate")
    validating.validate(document, "1.34", strict=True)


def test_the_job_is_one_that_kubernetes_takes() -> None:
    service, job = documents("train-job.yaml")
    check(service)
    check(job)
    # Pods of an indexed Job are found by their names where their subdomain is a headless Service.
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert f"--nnodes {job['spec']['completions']} " in container["args"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert "--nproc_per_node 8 " in container["args"][0]
    first = f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert f"--master_addr {first} " in container["args"][0]


def test_a_job_with_a_planted_fault_is_not_taken() -> None:
    validating = pytest.importorskip("kubernetes_validate")
    _, job = documents("train-job.yaml")
    job["spec"]["complitions"] = 2
    with pytest.raises(validating.ValidationError):
        check(job)


def test_the_ray_job_has_the_fields_of_kuberay_and_pods_that_kubernetes_takes() -> None:
    (job,) = documents("predict-rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"].keys() <= RAY_JOB
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster.keys() <= RAY_CLUSTER
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert groups[0].keys() <= HEAD
    assert all(group.keys() <= WORKERS for group in groups[1:])
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        check({
            "apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"},
            "template": group["template"],
        })  # fmt: skip


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_the_batch_script_is_bash() -> None:
    done = subprocess.run(
        [str(BASH), "-n", DEPLOY / "slurm" / "train.sbatch"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
