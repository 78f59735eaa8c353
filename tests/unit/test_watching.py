"""Dashboard, alerts and scrape configuration, read as data: they name metrics that there are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from coe.services.observing.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/coe.json").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
PROMETHEUS = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
DOCUMENT = (ROOT / "docs/observability.md").read_text()

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
# what Prometheus adds to every sample
ADDED = {"job", "instance"}
SUFFIXES = {
    "counter": ["_total"],
    "gauge": [""],
    "histogram": ["_bucket", "_sum", "_count"],
    "info": ["_info"],
}


def documented() -> dict[str, set[str]]:
    """Labels by metric, as the table of the document has them."""
    (table,) = re.findall(r"## Metrics\n.*?(\| name .*?)\n\n", DOCUMENT, re.S)
    found: dict[str, set[str]] = {}
    for line in table.splitlines()[2:]:
        names, labels = line.split("|")[1:3]
        words = set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", labels)))
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), words)
    return found


def samples() -> dict[str, set[str]]:
    """Labels by the name of a sample."""
    labels, found = documented(), {}
    for family in Metrics().registry.collect():
        for suffix in SUFFIXES[family.type]:
            own = {"le"} if suffix == "_bucket" else set()
            found[family.name + suffix] = labels[family.name] | own | ADDED
    return found


SAMPLES = samples()


def said_in(expr: str) -> tuple[list[str], set[str]]:
    """Names of samples in an expression, and of labels."""
    labels = set(re.findall(r"(\w+)=~?\"", expr))
    for group in re.findall(r"(?:by|on|without) \(([^)]*)\)", expr):
        labels |= {word.strip() for word in group.split(",")}
    return re.findall(r"\b(?:coe|process|python)_\w+", expr), labels


def assert_sound(expr: str, shown: str = "") -> None:
    """The expression names samples that there are, and labels that they have."""
    names, labels = said_in(expr)
    assert names
    assert [name for name in names if name not in SAMPLES] == []
    known = set.union(*(SAMPLES[name] for name in names))
    labels |= set(re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", shown))
    assert labels - known == set()
    assert expr.count("(") == expr.count(")")
    assert expr.count("{") == expr.count("}")


@pytest.mark.parametrize(
    ("title", "target"), TARGETS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_panel_shows_what_there_is(title: str, target: dict[str, Any]) -> None:
    assert_sound(target["expr"], target["legendFormat"])
    assert 'job="$job"' in target["expr"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_on_what_there_is(rule: dict[str, Any]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert_sound(rule["expr"], rule["annotations"]["summary"])


def test_every_metric_has_a_panel() -> None:
    shown = {name for _, target in TARGETS for name in said_in(target["expr"])[0]}
    families = {name for name in documented() if any(s.startswith(name) for s in shown)}
    assert documented().keys() - families == set()


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


def test_prometheus_reads_the_alerts_and_a_gateway_where_it_listens() -> None:
    assert PROMETHEUS["rule_files"] == ["alerts.yaml"]
    (job,) = PROMETHEUS["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("coe", "/metrics")
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8080"]}]
