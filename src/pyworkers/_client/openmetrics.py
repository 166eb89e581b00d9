"""The text of OpenMetrics 1.0, a pure function of the families."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pyworkers._client.metrics import Family, Sample


def text(families: Iterable[Family]) -> str:
    """Return the text, down to the mark of its end."""
    return "\n".join([*(line for family in families for line in _lines(family)), "# EOF\n"])


def _lines(family: Family) -> Iterator[str]:
    yield f"# TYPE {family.name} {family.kind}"
    if family.unit:
        yield f"# UNIT {family.name} {family.unit}"
    yield f"# HELP {family.name} {_escaped(family.help)}"
    for sample in family.samples:
        yield f"{family.sample_name}{{{_labels(sample)}}} {sample.value!r}"


def _labels(sample: Sample) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
