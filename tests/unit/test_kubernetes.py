"""The manifests under deploy/, parsed and checked against the parts of the API that they use."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

from coe.config import load_config
from coe.services.cli import app
from coe.services.weights import read_manifest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
IMAGES = {"coe-router:local", "coe-router-fleet:local", "coe-router-gpu:local"}

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[KMGT]i?)?$")]
Quantities = dict[str, Quantity]
Named = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Part(BaseModel):
    """A mapping of the API: its fields in camel case, and none that are not listed."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class KeyOfSecret(Part):
    name: Named
    key: str


class Source(Part):
    secret_key_ref: KeyOfSecret


class Env(Part):
    name: str
    value: str | None = None
    value_from: Source | None = None


class Resources(Part):
    requests: Quantities
    limits: Quantities


class Capabilities(Part):
    drop: list[str]


class Confined(Part):
    """A container's security context; every value but this one is refused."""

    allow_privilege_escalation: Literal[False]
    read_only_root_filesystem: Literal[True]
    capabilities: Capabilities


class Seccomp(Part):
    type: Literal["RuntimeDefault"]


class PodSecurity(Part):
    run_as_non_root: Literal[True]
    run_as_user: Annotated[int, Field(ge=10001)]
    run_as_group: Annotated[int, Field(ge=10001)]
    fs_group: int | None = None
    seccomp_profile: Seccomp


class Command(Part):
    command: list[str]


class Get(Part):
    path: str
    port: str


class Probe(Part):
    exec: Command | None = None
    http_get: Get | None = None
    initial_delay_seconds: int = 0
    period_seconds: int
    timeout_seconds: int = 1
    failure_threshold: int = 3


class Port(Part):
    name: Named
    container_port: Annotated[int, Field(gt=0, le=65535)]


class Mount(Part):
    name: Named
    mount_path: str
    read_only: bool = False


class Container(Part):
    name: Named
    image: str
    image_pull_policy: Literal["IfNotPresent"]
    command: list[str] = []
    args: list[str] = []
    env: list[Env] = []
    ports: list[Port] = []
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    resources: Resources
    security_context: Confined
    volume_mounts: list[Mount]


class EmptyDir(Part):
    medium: Literal["Memory"] | None = None
    size_limit: Quantity | None = None


class ConfigMapSource(Part):
    name: Named


class Volume(Part):
    name: Named
    empty_dir: EmptyDir | None = None
    config_map: ConfigMapSource | None = None


class Toleration(Part):
    key: str
    operator: Literal["Exists"]
    effect: Literal["NoSchedule"]


class PodSpec(Part):
    restart_policy: Literal["OnFailure"] | None = None
    automount_service_account_token: Literal[False]
    termination_grace_period_seconds: int | None = None
    security_context: PodSecurity
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    init_containers: list[Container] = []
    containers: Annotated[list[Container], Field(min_length=1, max_length=1)]
    volumes: list[Volume]


class Labels(Part):
    labels: dict[str, str]


class Pod(Part):
    metadata: Labels
    spec: PodSpec


class Metadata(Part):
    name: Named
    labels: dict[str, str] = {}


class HeadGroup(Part):
    service_type: Literal["ClusterIP"]
    ray_start_params: dict[str, str]
    template: Pod


class WorkerGroup(Part):
    group_name: Named
    replicas: int
    min_replicas: int
    max_replicas: int
    ray_start_params: dict[str, str]
    template: Pod


class RayClusterSpec(Part):
    ray_version: str
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]


class RayCluster(Part):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec


class JobSpec(Part):
    backoff_limit: int
    template: Pod


class Job(Part):
    api_version: Literal["batch/v1"]
    kind: Literal["Job"]
    metadata: Metadata
    spec: JobSpec


class Selector(Part):
    match_labels: dict[str, str]


class DeploymentSpec(Part):
    replicas: int
    selector: Selector
    template: Pod


class Deployment(Part):
    api_version: Literal["apps/v1"]
    kind: Literal["Deployment"]
    metadata: Metadata
    spec: DeploymentSpec


class ServicePort(Part):
    name: Named
    port: int
    target_port: str


class ServiceSpec(Part):
    type: Literal["ClusterIP"]
    selector: dict[str, str]
    ports: list[ServicePort]


class Service(Part):
    api_version: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec


class Peer(Part):
    pod_selector: Selector


class PolicyPort(Part):
    protocol: Literal["TCP"]
    port: str


class Ingress(Part):
    from_: Annotated[list[Peer], Field(alias="from")]
    ports: list[PolicyPort] = []


class PolicySpec(Part):
    pod_selector: Selector
    policy_types: list[Literal["Ingress"]]
    ingress: list[Ingress]


class NetworkPolicy(Part):
    api_version: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Metadata
    spec: PolicySpec


class Image(Part):
    repository: str
    tag: str
    pull_policy: Literal["IfNotPresent"]


class GroupValues(Part):
    """What the ``ray-cluster`` chart takes for the head, and for each group of workers."""

    image: Image | None = None
    labels: dict[str, str]
    ray_start_params: dict[str, str]
    container_env: list[Env] = []
    ports: list[Port] = []
    pod_security_context: PodSecurity
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    init_containers: list[Container] = []
    resources: Resources
    security_context: Confined
    volume_mounts: list[Mount]
    volumes: list[Volume]


class HeadValues(GroupValues):
    ray_version: str


class WorkerValues(GroupValues):
    group_name: Named = ""
    replicas: int
    min_replicas: int
    max_replicas: int


class Disabled(Part):
    disabled: Literal[True]


class CommonValues(Part):
    container_env: list[Env]


class Values(Part):
    fullname_override: Named
    image: Image
    common: CommonValues
    head: HeadValues
    worker: WorkerValues
    additional_worker_groups: dict[str, WorkerValues | Disabled]


KIND = TypeAdapter[Any](
    Annotated[RayCluster | Job | Deployment | Service | NetworkPolicy, Field(discriminator="kind")]
)
MANIFESTS = {
    document["kind"] + "/" + document["metadata"]["name"]: KIND.validate_python(document)
    for path in sorted([*DEPLOY.glob("kubernetes/*.yaml"), *DEPLOY.glob("kuberay/*.yaml")])
    for document in yaml.safe_load_all(path.read_text())
    if "kind" in document and document["kind"] != "Kustomization"
}
CLUSTER: RayCluster = MANIFESTS["RayCluster/coe"]
JOB: Job = MANIFESTS["Job/coe-fleet-up"]
GATEWAY: Deployment = MANIFESTS["Deployment/coe-gateway"]
VALUES = Values.model_validate(yaml.safe_load((DEPLOY / "helm/values.yaml").read_text()))
CONFIG = load_config(DEPLOY / "kubernetes/coe.yaml")
GROUPS = {group.group_name: group for group in CLUSTER.spec.worker_group_specs}
PODS = {
    "head": CLUSTER.spec.head_group_spec.template,
    **{name: group.template for name, group in GROUPS.items()},
    "fleet-up": JOB.spec.template,
    "gateway": GATEWAY.spec.template,
}
PART_OF = {"app.kubernetes.io/part-of": "coe"}


def containers(pod: Pod) -> list[Container]:
    return [*pod.spec.init_containers, *pod.spec.containers]


def assert_is_coe(words: list[str]) -> None:
    """``coe WORDS`` parses: the command exists and knows its options. Nothing is run."""
    import typer

    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    command.make_context("coe", rest)


def ray_start(params: dict[str, str], *more: str) -> dict[str, Any]:
    """What ``ray start`` makes of the parameters, written into a shell line as KubeRay does."""
    scripts = pytest.importorskip("ray.scripts.scripts")
    switches = {"log-color", "include-dashboard", "include-log-monitor"}
    line = " ".join(
        f"--{name}={value}"
        for name, value in params.items()
        if name in switches or value not in ("true", "false")
    )
    context = scripts.start.make_context("ray start", [*more, *shlex.split(line)])
    found: dict[str, Any] = context.params
    return found


def test_a_fleet_has_a_head_gpu_workers_and_edge_workers() -> None:
    assert GROUPS.keys() == {"gpu", "edge"}
    assert all(g.min_replicas <= g.replicas <= g.max_replicas for g in GROUPS.values())
    assert "nvidia.com/gpu" in GROUPS["gpu"].template.spec.containers[0].resources.limits
    assert GROUPS["edge"].template.spec.node_selector
    selected = {toleration.key for toleration in GROUPS["edge"].template.spec.tolerations}
    assert GROUPS["edge"].template.spec.node_selector.keys() == selected


@pytest.mark.parametrize("name", PODS)
def test_containers_are_of_our_images_and_have_nothing_to_gain(name: str) -> None:
    for container in containers(PODS[name]):
        assert container.image in IMAGES
        assert container.security_context.capabilities.drop == ["ALL"]
        assert "memory" in container.resources.limits


@pytest.mark.parametrize("name", PODS)
def test_what_is_mounted_is_there_and_what_is_written_is_mounted(name: str) -> None:
    pod = PODS[name]
    volumes = {volume.name for volume in pod.spec.volumes}
    for container in containers(pod):
        mounts = {mount.mount_path: mount for mount in container.volume_mounts}
        assert {mount.name for mount in mounts.values()} <= volumes
        assert not mounts["/tmp"].read_only
        if any(env.name == "COE_CONFIG" for env in container.env):
            assert mounts["/config"].read_only


@pytest.mark.parametrize("name", ["head", *GROUPS, "fleet-up"])
def test_a_node_asks_for_the_token_and_keeps_it_in_a_secret(name: str) -> None:
    (container,) = PODS[name].spec.containers
    env = {env.name: env for env in container.env}
    assert env["RAY_AUTH_MODE"].value == "token"
    assert env["RAY_AUTH_TOKEN"].value_from is not None
    assert not any("TOKEN" in name and entry.value for name, entry in env.items())


@pytest.mark.parametrize("name", ["head", "fleet-up", "gateway"])
def test_who_talks_to_the_supervisor_has_configuration_and_token(name: str) -> None:
    (container,) = PODS[name].spec.containers
    env = {env.name: env for env in container.env}
    assert env["COE_CONFIG"].value == "/config/coe.yaml"
    assert CONFIG.fleet is not None
    assert env[CONFIG.fleet.token_env].value_from is not None
    (volume,) = (v for v in PODS[name].spec.volumes if v.config_map)
    assert volume.config_map is not None
    kustomization = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())
    (generated,) = kustomization["configMapGenerator"]
    assert (volume.config_map.name, generated["files"]) == (generated["name"], ["coe.yaml"])


def test_gateways_find_the_supervisor_by_the_heads_service() -> None:
    assert CONFIG.fleet is not None
    assert CONFIG.fleet.host == "private"
    assert CONFIG.fleet.engines == "private"
    ports = {port.name: port.container_port for port in PODS["head"].spec.containers[0].ports}
    head = f"{CLUSTER.metadata.name}-head-svc"
    assert CONFIG.fleet.url == f"http://{head}:{ports['fleet']}"
    assert CONFIG.fleet.port == ports["fleet"]
    assert f"--address={head}:{ports['gcs-server']}" in JOB.spec.template.spec.containers[0].args[0]


def test_ray_start_knows_every_parameter() -> None:
    head = ray_start(CLUSTER.spec.head_group_spec.ray_start_params, "--head")
    assert head["num_cpus"] == 0
    assert head["include_dashboard"] is False
    config = head["system_config"]
    wait_ms = config["health_check_period_ms"] + config["health_check_timeout_ms"]
    assert wait_ms * config["health_check_failure_threshold"] < 3000
    for group in GROUPS.values():
        ray_start(group.ray_start_params, "--address=head:6379")


def test_every_expert_has_a_group_that_offers_what_it_needs_and_has_its_weights() -> None:
    weights = read_manifest(ROOT / "coe/data/weights.json")
    for expert in CONFIG.experts:
        (group,) = (g for g in GROUPS.values() if expert.resources.items() <= offered(g).items())
        (fetching,) = group.template.spec.init_containers
        assert_is_coe(fetching.args)
        assert fetching.args[-1] in weights
        assert fetching.args[-1] == getattr(expert, "weights", None)


def offered(group: WorkerGroup) -> dict[str, float]:
    words = shlex.split(group.ray_start_params.get("resources", "'{}'"))
    limits = group.template.spec.containers[0].resources.limits
    gpus = int(limits.get("nvidia.com/gpu", 0))
    return {**json.loads(words[0]), **({"GPU": gpus} if gpus else {})}


def test_the_fleet_is_brought_up_by_commands_that_exist() -> None:
    (line,) = JOB.spec.template.spec.containers[0].args
    (ray, start, *joins), (coe, *ups) = (shlex.split(part) for part in line.split("&&"))
    assert (ray, start, coe) == ("ray", "start", "coe")
    assert ray_start({}, *joins)["num_cpus"] == 0
    assert_is_coe(ups)
    (container,) = PODS["gateway"].spec.containers
    assert container.command == ["coe"]
    assert_is_coe(container.args)


@pytest.mark.parametrize("name", ["head", *GROUPS])
def test_probes_ask_what_is_there(name: str) -> None:
    (container,) = PODS[name].spec.containers
    for probe in (container.readiness_probe, container.liveness_probe):
        assert probe is not None
        assert probe.exec is not None
        assert probe.exec.command[0] in ("ray", "test")


def test_the_gateways_probes_are_endpoints_of_it() -> None:
    (container,) = PODS["gateway"].spec.containers
    documented = (ROOT / "docs/http.md").read_text()
    for probe in (container.readiness_probe, container.liveness_probe):
        assert probe is not None
        assert probe.http_get is not None
        assert f"GET {probe.http_get.path}" in documented
        assert probe.http_get.port in {port.name for port in container.ports}


def test_selectors_select_the_pods_that_they_mean() -> None:
    gateway = PODS["gateway"].metadata.labels
    assert GATEWAY.spec.selector.match_labels.items() <= gateway.items()
    assert MANIFESTS["Service/coe-gateway"].spec.selector.items() <= gateway.items()
    to_nodes = MANIFESTS["NetworkPolicy/coe-nodes"].spec
    to_gateway = MANIFESTS["NetworkPolicy/coe-gateway"].spec
    for name, pod in PODS.items():
        labels = pod.metadata.labels.items()
        assert PART_OF.items() <= labels
        assert (to_nodes.pod_selector.match_labels.items() <= labels) is (name != "gateway")
        assert (to_gateway.pod_selector.match_labels.items() <= labels) is (name == "gateway")
    (peer,) = to_nodes.ingress[0].from_
    assert peer.pod_selector.match_labels == PART_OF


def group_values() -> Iterator[tuple[WorkerGroup, WorkerValues]]:
    edge = VALUES.additional_worker_groups["edge"]
    assert isinstance(edge, WorkerValues)
    yield GROUPS["gpu"], VALUES.worker
    yield GROUPS["edge"], edge


def test_the_charts_values_make_the_same_cluster() -> None:
    assert VALUES.fullname_override == CLUSTER.metadata.name
    assert VALUES.head.ray_version == CLUSTER.spec.ray_version
    head = CLUSTER.spec.head_group_spec
    assert_same(VALUES.head, head.ray_start_params, head.template)
    assert VALUES.worker.group_name == "gpu"
    for group, values in group_values():
        sizes = (values.replicas, values.min_replicas, values.max_replicas)
        assert sizes == (group.replicas, group.min_replicas, group.max_replicas)
        assert_same(values, group.ray_start_params, group.template)
    others = {n: v for n, v in VALUES.additional_worker_groups.items() if n != "edge"}
    assert all(isinstance(value, Disabled) for value in others.values())


def assert_same(values: GroupValues, params: dict[str, str], pod: Pod) -> None:
    (container,) = pod.spec.containers
    image = values.image or VALUES.image
    assert f"{image.repository}:{image.tag}" == container.image
    assert values.ray_start_params == params
    assert values.labels == pod.metadata.labels
    env = [*VALUES.common.container_env, *values.container_env]
    assert sorted(env, key=lambda e: e.name) == sorted(container.env, key=lambda e: e.name)
    assert values.ports == container.ports
    assert values.resources == container.resources
    assert values.security_context == container.security_context
    assert values.volume_mounts == container.volume_mounts
    assert values.pod_security_context == pod.spec.security_context
    assert values.volumes == pod.spec.volumes
    assert values.init_containers == pod.spec.init_containers
    assert values.node_selector == pod.spec.node_selector
    assert values.tolerations == pod.spec.tolerations


def test_the_ray_version_is_the_locked_one() -> None:
    lock = (ROOT / "uv.lock").read_text()
    (locked,) = re.findall(r'^name = "ray"\nversion = "(.*)"', lock, re.M)
    assert CLUSTER.spec.ray_version == locked


def test_kustomizations_name_files_that_are_there() -> None:
    for path in DEPLOY.glob("*/kustomization.yaml"):
        document = yaml.safe_load(path.read_text())
        assert all((path.parent / name).exists() for name in document["resources"])
        named = {image["name"] for image in document.get("images", [])}
        assert named in (set(), {image.partition(":")[0] for image in IMAGES})


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_puts_them_together() -> None:
    made = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / "kuberay"], capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    documents = list(yaml.safe_load_all(made.stdout))
    found = {f"{d['kind']}/{d['metadata']['name']}" for d in documents}
    assert found == {"ConfigMap/coe-config", *MANIFESTS}
    for document in documents:
        if document["kind"] != "ConfigMap":
            KIND.validate_python(document)
