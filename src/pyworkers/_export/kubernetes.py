"""A manifest of Kubernetes: a StatefulSet of one pod, or of one for each shard, for PINs that never end.

Not a Deployment, whose new pod may start while the old one still runs on a node that is not heard of: a StatefulSet
has at most one pod of an ordinal, and a PIN must never have two processes.
"""

from __future__ import annotations

import re

from pyworkers._export.launch import Launch

NAME_MAX = 52
"""A label of 63 characters is made of it and of a revision's hash, or of a shard's number: RFC 1123."""


def export(launch: Launch) -> str:
    """Return the manifest, with placeholders for the image and what it needs.

    Raises:
        UsageError: It has an option that has no place in a container.
    """
    sharded = launch.shards is not None
    return (_HEAD + CONTAINER + _PROBES).format(
        ping=_list(("python", "-m", "pyworkers", "ping", launch.target)),
        status=_list(("python", "-m", "pyworkers", "status", launch.target)),
        replicas=_SHARDS.format(shards=launch.shards) if sharded else _ONE,
        **fields(launch, *((_INDEX,) if sharded else ())),
    )


def fields(launch: Launch, *variables: str) -> dict[str, object]:
    """Return what stands in every manifest, with these items of `env` among its variables.

    Raises:
        UsageError: It has an option that has no place in a container.
    """
    launch.refuse("kubernetes", daemon="a container ends with its process 1", notify_fd="a probe asks for that")
    # What holds the lock, where it is on a volume, is the pod before this one.
    more = ["--if-running=wait"] if launch.lock_file is not None and "if_running" not in launch.said else []
    if launch.shards is not None:
        more.append(f"--shard=kubernetes/{launch.shards}")
    # The path of modules is this machine's; the image has its own.
    ours = [(name, text) for name, text in launch.variables.items() if name.startswith("PYWORKERS_")]
    items = (*variables, *(f"{{name: {name}, value: {_quoted(_literal(text))}}}" for name, text in ours))
    return {
        "name": _label(launch.name),
        "command": _list(tuple(map(_literal, launch.command("python", *more)))),
        "stop_s": launch.stop_s,
        "seats": launch.seats,
        "environment": "\n          env:" + "".join(f"\n            - {item}" for item in items) if items else "",
    }


_ONE = """\
  # One pod, and never two: a StatefulSet starts a pod only when the one before it is known to be gone.
  replicas: 1"""

_SHARDS = """\
  # One pod for each shard, and never two: a StatefulSet starts a pod only when the one before it is known to be gone.
  replicas: {shards}
  podManagementPolicy: Parallel"""

# The ordinal, by the name that it has in a Job; a label from Kubernetes 1.28 on.
_INDEX = """\
{name: JOB_COMPLETION_INDEX, valueFrom: {fieldRef: {fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']"}}}"""

CONTAINER = """\
      # From TERM to KILL: the app's longest stop_timeout, and a margin.
      terminationGracePeriodSeconds: {stop_s}
      containers:
        - name: main
          image: registry.example.com/{name}:CHANGE-ME
          # No shell in between: the master is process 1, reaps what comes to it, and gets the TERM.
          command: {command}{environment}
          resources:  # CHANGE ME: these are guesses for {seats} processes and their master
            requests:
              cpu: 100m
              memory: 256Mi
"""
"""What every pod has, whoever starts it."""

_HEAD = """\
# kubectl apply -f -, once image and resources are those of your app.
# For workers that never end: Kubernetes would start again what has finished. That is the work of a Job.
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
spec:
{replicas}
  serviceName: {name}
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {name}
    spec:
"""

_PROBES = """\
          # It answers once it has the lock and on_start is done: an hour for that.
          startupProbe: {{exec: {{command: {ping}}}, periodSeconds: 10, timeoutSeconds: 15, failureThreshold: 360}}
          # The master still answers. A PIN that is down is the master's to replace, and no reason to start all again.
          livenessProbe: {{exec: {{command: {ping}}}, periodSeconds: 60, timeoutSeconds: 15}}
          # Every PIN is up.
          readinessProbe: {{exec: {{command: {status}}}, periodSeconds: 30, timeoutSeconds: 15}}
"""


def _label(name: str) -> str:
    """Return the name as RFC 1123 has a label."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:NAME_MAX].strip("-") or "app"


def _literal(text: str) -> str:
    """Return what comes to this text where Kubernetes expands `$(NAME)`: in a command and in env, and in no probe."""
    return text.replace("$", "$$")


def _list(words: tuple[str, ...]) -> str:
    return f"[{', '.join(_quoted(word) for word in words)}]"


def _quoted(text: str) -> str:
    """Quote a text that can be printed as YAML 1.2 has it, which is as JSON has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
