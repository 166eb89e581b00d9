"""A manifest of Kubernetes for shards whose PINs end: an Indexed Job, each index of which is tried until it is done."""

from __future__ import annotations

from pyworkers._export import kubernetes
from pyworkers._export.launch import Launch
from pyworkers.errors import ExitCode


def export(launch: Launch) -> str:
    """Return the manifest, with placeholders for the image and what it needs.

    Raises:
        UsageError: It has an option that has no place in a container.
    """
    shards = launch.shards or 1
    return (_HEAD + kubernetes.CONTAINER).format(
        shards=shards,
        usage=int(ExitCode.USAGE),
        stop_all=int(ExitCode.STOP_ALL),
        **kubernetes.fields(launch, *_run(launch)),
    )


def _run(launch: Launch) -> tuple[str, ...]:
    """Return what tells a lease which run this is: the Job, by a label that Kubernetes gives its pods from 1.27 on."""
    return (_RUN_ID,) if "lease" in launch.said and "run_id" not in launch.said else ()


_RUN_ID = """\
{name: PYWORKERS_RUN_ID, valueFrom: {fieldRef: {fieldPath: "metadata.labels['batch.kubernetes.io/controller-uid']"}}}"""

_HEAD = """\
# kubectl apply -f -, once image and resources are those of your app.
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
spec:
  # A pod for each shard, all of them at once. JOB_COMPLETION_INDEX tells each one its number.
  completionMode: Indexed
  completions: {shards}
  parallelism: {shards}
  # A shard is tried again on its own, without end.
  backoffLimitPerIndex: 1000000
  # Never two pods of one shard: the default would start the new one while the old one is still on its way out.
  podReplacementPolicy: Failed
  podFailurePolicy:
    rules:
      # A usage error or a bad app: trying again cannot help.
      - action: FailIndex
        onExitCodes: {{containerName: main, operator: In, values: [{usage}]}}
      # App.stop_all.
      - action: FailIndex
        onExitCodes: {{containerName: main, operator: In, values: [{stop_all}]}}
      # A drain, an eviction, a preemption: again, and it does not count.
      - action: Ignore
        onPodConditions: [{{type: DisruptionTarget, status: "True"}}]
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {name}
    spec:
      # A container is not started again in its pod: so the Job sees every end, and knows the old one gone.
      restartPolicy: Never
"""
