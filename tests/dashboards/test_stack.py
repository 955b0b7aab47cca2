"""The configuration around the dashboards: its parts fit together, and what can run here runs."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="pyyaml: pip install -e '.[dev]'")

from dashboards import names  # noqa: E402
from tests.dashboards import boards  # noqa: E402
from tracesock import audit  # noqa: E402

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "dashboards" / "stack"
FILES = sorted(FOLDER.rglob("*.yaml"))
# The port that each service listens on, as its own configuration or its manual says.
PORTS = {"prometheus": 9090, "textfile": 9100, "grafana": 3000}


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


COMPOSE = load("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


class Strict(yaml.SafeLoader):
    """Refuses a key that is there twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"twice: {keys}"
        return super().construct_mapping(node, deep=deep)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_yaml_with_each_key_once(path: Path) -> None:
    assert yaml.load(path.read_text(), Loader=Strict)


def listening(service: str) -> set[int]:
    """The ports of a service of compose.yaml."""
    if service == "collector":
        protocols = load("collector.yaml")["receivers"]["otlp"]["protocols"]
        return {int(each["endpoint"].rpartition(":")[2]) for each in protocols.values()}
    if service == "tempo":
        own = load("tempo.yaml")
        protocols = own["distributor"]["receivers"]["otlp"]["protocols"].values()
        return {own["server"]["http_listen_port"]} | {
            int(each["endpoint"].rpartition(":")[2]) for each in protocols
        }
    if service == "loki":
        return {load("loki.yaml")["server"]["http_listen_port"]}
    return {PORTS[service]}


# --- compose ------------------------------------------------------------------------------------


def test_compose_names_what_is_there() -> None:
    for name, service in SERVICES.items():
        assert ("image" in service) != ("build" in service), name
        if "image" in service:
            assert re.fullmatch(r"[a-z./-]+:v?\d+(\.\d+)+", service["image"]), name
        else:
            context = (FOLDER / service["build"]["context"]).resolve()
            assert context == ROOT
            assert (context / service["build"]["dockerfile"]).is_file()
        assert set(service.get("depends_on", ())) <= SERVICES.keys()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).exists(), volume
            else:
                assert source in COMPOSE["volumes"], volume
    used = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", ())}
    assert set(COMPOSE["volumes"]) <= used


def test_nothing_listens_for_other_machines() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            address, outside, inside = port.split(":")
            assert address == "127.0.0.1", name
            assert outside == inside
            assert int(inside) in listening(name)


@pytest.mark.parametrize("path", [*FILES, FOLDER / "compose.yaml"], ids=lambda path: path.name)
def test_every_address_is_a_service_and_a_port_of_it(path: Path) -> None:
    text = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.M)
    found = re.findall(r"http://([a-z]+):(\d+)", text)
    found += re.findall(r"targets: \[\"([a-z]+):(\d+)", text)
    for host, port in found:
        if host != "localhost":
            assert int(port) in listening(host), f"{host}:{port}"


def test_paths_inside_are_those_that_are_mounted() -> None:
    for name, service in SERVICES.items():
        mounted = [volume.split(":")[1] for volume in service.get("volumes", ())]
        command = " ".join(service.get("command", ()))
        for path in re.findall(r"(?<=[= ])/(?:etc|audit|textfile)[\w./-]*", " " + command):
            assert any(path.startswith(each) for each in mounted), f"{name}: {path}"


# --- the collector, Tempo, Loki, Mimir ----------------------------------------------------------


def test_the_collectors_pipelines_are_made_of_what_is_defined() -> None:
    own = load("collector.yaml")
    pipelines = own["service"]["pipelines"]
    assert pipelines.keys() == {"metrics", "traces", "logs"}
    used: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in pipelines.values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"
        for kind, seen in used.items():
            assert set(pipeline[kind]) <= own[kind].keys()
            seen |= set(pipeline[kind])
    for kind, seen in used.items():
        assert seen == own[kind].keys(), "defined and not used"


def test_the_service_graph_is_of_spans_that_there_are() -> None:
    (statement,) = load("collector.yaml")["processors"]["transform/service_graph"][
        "trace_statements"
    ][0]["statements"]
    from tracesock.instrumentation import semconv

    (pattern,) = re.findall(r'IsMatch\(name, "(.+)"\)', statement)
    assert re.match(pattern, semconv.span_setup("db", 5432))
    assert not re.match(pattern, semconv.span_connect("127.0.0.1", 5432))
    assert f'"{semconv.SCOPE_NAME}"' in statement
    own = load("tempo.yaml")
    generator = own["metrics_generator"]
    assert semconv.SERVER_ADDRESS in generator["processor"]["service_graphs"]["peer_attributes"]
    assert "service-graphs" in own["overrides"]["defaults"]["metrics_generator"]["processors"]


def test_loki_takes_otlp() -> None:
    own = load("loki.yaml")
    assert own["limits_config"]["allow_structured_metadata"] is True
    (schema,) = own["schema_config"]["configs"]
    # https://grafana.com/docs/loki/latest/send-data/otel/: needed for structured metadata.
    assert (schema["schema"], schema["store"]) == ("v13", "tsdb")
    assert own["compactor"]["retention_enabled"] and own["compactor"]["delete_request_store"]


def test_mimir_has_the_names_of_the_one_path() -> None:
    assert load("mimir.yaml")["limits"]["otel_metric_suffixes_enabled"] is True


# --- Prometheus ---------------------------------------------------------------------------------


def test_prometheus_translates_to_the_names_of_the_one_path() -> None:
    assert load("prometheus.yaml")["otlp"] == {
        "translation_strategy": "UnderscoreEscapingWithSuffixes"
    }
    assert "--web.enable-otlp-receiver" in SERVICES["prometheus"]["command"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool: apt install prometheus")
def test_promtool_check_config(tmp_path: Path) -> None:
    own = load("prometheus.yaml")
    if (
        "2.42"
        in subprocess.run(
            ["promtool", "--version"], capture_output=True, text=True, timeout=60
        ).stdout
    ):
        del own["otlp"]  # it is of Prometheus 2.54 and later
    own["rule_files"] = [str(ROOT / "dashboards/prometheus/*.rules.yml")]
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(own))
    done = subprocess.run(
        ["promtool", "check", "config", str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- Grafana ------------------------------------------------------------------------------------


def test_data_sources_lead_to_each_other() -> None:
    sources = {
        each["uid"]: each for each in load("grafana/datasources/tracesock.yaml")["datasources"]
    }
    assert sources.keys() == {"prometheus", "tempo", "loki"}
    text = (FOLDER / "grafana/datasources/tracesock.yaml").read_text()
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    assert set(re.findall(r"datasourceUid: (\w+)", text)) == sources.keys()
    (exemplars,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert (exemplars["name"], exemplars["datasourceUid"]) == ("trace_id", "tempo")
    assert sources["tempo"]["jsonData"]["tracesToLogsV2"]["datasourceUid"] == "loki"
    interval = int(SERVICES["shop"]["environment"]["OTEL_METRIC_EXPORT_INTERVAL"]) / 1000
    assert sources["prometheus"]["jsonData"]["timeInterval"] == f"{interval:g}s"
    # A $ of Grafana's own is written twice: once is a variable of the environment.
    assert not re.search(r"(?<!\$)\$(?!\$)", text)


def test_the_boards_are_where_grafana_looks() -> None:
    (provider,) = load("grafana/dashboards/tracesock.yaml")["providers"]
    mounts = dict(reversed(v.split(":")[:2]) for v in SERVICES["grafana"]["volumes"])
    folder = (FOLDER / mounts[provider["options"]["path"]]).resolve()
    assert folder == boards.JSON
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (folder / Path(home).name).is_file()


# --- Kubernetes ---------------------------------------------------------------------------------


def test_the_pod_of_the_notes() -> None:
    text = (ROOT / "dashboards/kubernetes.md").read_text()
    pod = yaml.load(re.findall(r"```yaml\n(.*?)```", text, re.S)[0], Loader=Strict)
    template = pod["spec"]["template"]
    assert pod["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    (container,) = template["spec"]["containers"]
    before: set[str] = set()
    for variable in container["env"]:
        assert set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) <= before
        before.add(variable["name"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in template["spec"]["volumes"]
    }
    attributes = dict(
        each.split("=")
        for variable in container["env"]
        if variable["name"] == "OTEL_RESOURCE_ATTRIBUTES"
        for each in variable["value"].split(",")
    )
    assert {"service.namespace", "service.instance.id"} <= attributes.keys()


def test_the_policies_are_policies(tmp_path: Path) -> None:
    assert len(audit.read_policy(FOLDER / "egress.toml").rules) == 1
    text = (ROOT / "dashboards/kubernetes.md").read_text()
    path = tmp_path / "egress.toml"
    path.write_text('default = "deny"\n' + re.findall(r"```toml\n(.*?)```", text, re.S)[0])
    assert len(audit.read_policy(path).rules) == 1


# --- the sample service, for real ---------------------------------------------------------------


class Receiver:
    """Takes OTLP/HTTP and keeps what it was told."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

        kinds = {
            "/v1/metrics": metrics.ExportMetricsServiceRequest,
            "/v1/traces": traces.ExportTraceServiceRequest,
            "/v1/logs": logs.ExportLogsServiceRequest,
        }
        told: dict[str, list[Any]] = {path: [] for path in kinds}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                import gzip

                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                told[self.path].append(kinds[self.path].FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None: ...

        self.told = told
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def metrics(self) -> Iterator[Any]:
        for request in list(self.told["/v1/metrics"]):
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    yield from scope.metrics

    def logs(self) -> Iterator[dict[str, str]]:
        for request in list(self.told["/v1/logs"]):
            for resource in request.resource_logs:
                for scope in resource.scope_logs:
                    for record in scope.log_records:
                        yield {each.key: each.value.string_value for each in record.attributes}

    def spans(self) -> Iterator[Any]:
        for request in list(self.told["/v1/traces"]):
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    yield from scope.spans


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_sample_service_tells_what_the_dashboards_show(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="pip install -e '.[dev]'")
    receiver = Receiver()
    log = tmp_path / "audit.jsonl"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "TRACESOCK_"))},
        **SERVICES["shop"]["environment"],
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server.server_address[1]}",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_BLRP_SCHEDULE_DELAY": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "tracesock", "run", "--policy", str(FOLDER / "egress.toml")]
    command += ["--audit-log", str(log), str(FOLDER / "shop.py")]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    wanted = {
        "tracesock.connect.duration",
        "dns.lookup.duration",
        "tracesock.io",
        "tracesock.send.stall.duration",
        "tracesock.audit.decisions",
        "tracesock.connection.count",
        "tracesock.telemetry.records",
    }
    denied = {"tracesock.audit.action": "deny", "tracesock.audit.rule": "no-metadata"}
    exemplars: set[bytes] = set()
    try:
        until = time.monotonic() + 240
        while time.monotonic() < until and process.poll() is None:
            metrics = list(receiver.metrics())
            exemplars = {
                exemplar.trace_id
                for metric in metrics
                if metric.name == "tracesock.connect.duration"
                for point in metric.histogram.data_points
                for exemplar in point.exemplars
            }
            if (
                wanted <= {metric.name for metric in metrics}
                and any(denied.items() <= record.items() for record in receiver.logs())
                and exemplars & {span.trace_id for span in receiver.spans()}
            ):
                break
            time.sleep(0.5)
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=30)
        receiver.server.shutdown()
    told = {metric.name for metric in receiver.metrics()}
    assert wanted <= told
    assert {f"`{name}`" for name in told} <= {
        *names.METRIC_OF.values(),
        *names.WITH_SNAPSHOTS.values(),
    }
    assert any(denied.items() <= record.items() for record in receiver.logs())
    # An exemplar leads to a trace that Tempo has.
    assert exemplars & {span.trace_id for span in receiver.spans()}
    # The edge of the service graph.
    assert any(
        span.name.startswith("socket connection_setup localhost:") for span in receiver.spans()
    )
    # And the log beside it can be verified, whether the process could write its end or not.
    assert audit.verify(log).first == 1
