"""conf/clusters: what stands there is known to Spark and Kubernetes, fits together, and holds no secret."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyspark
import pytest
import yaml

from jobs import settings

CLUSTERS = settings.ROOT / "conf" / "clusters"
KUBERNETES = CLUSTERS / "kubernetes"
CONFS = sorted(CLUSTERS.glob("*.conf"))
JARS = Path(pyspark.__file__).parent / "jars"
SCALING = (settings.ROOT / "docs" / "scaling.md").read_text()
# A name that the classes put together from two halves.
COMPOSED = {"spark.kubernetes.authenticate.executor.serviceAccountName"}


def properties(path: Path) -> dict[str, str]:
    """A file of Spark properties as java.util.Properties reads it; fails where a name is given twice."""
    found: dict[str, str] = {}
    for line in path.read_text().replace("\\\n", "").splitlines():
        if line.strip() and not line.lstrip().startswith(("#", "!")):
            name, value = re.fullmatch(r"\s*([^\s:=]+)\s*[:=]?\s*(.*)", line).groups()  # type: ignore[union-attr]
            assert name not in found, f"{path.name} names {name} twice"
            found[name] = re.sub(r",\s+", ",", value)
    return found


def objects() -> Iterator[dict[str, Any]]:
    for file in sorted(KUBERNETES.glob("*.yaml")):
        yield from yaml.safe_load_all(file.read_text())


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in objects() if each["kind"] == kind and "name" in each["metadata"]}


def pods() -> dict[str, dict[str, Any]]:
    """Every pod that is to run, by whose it is."""
    [template] = [each for each in objects() if each["kind"] == "Pod"]
    return {
        "executor": template["spec"],
        "spark-connect": of_kind("Deployment")["spark-connect"]["spec"]["template"]["spec"],
        "day": of_kind("CronJob")["day"]["spec"]["jobTemplate"]["spec"]["template"]["spec"],
    }


def everything_in(node: Any) -> Iterator[tuple[str, Any]]:
    """Each (key, value) of a tree, however deep."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield str(key), value
        yield from everything_in(value)


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The names of these files that the classes of Spark itself hold as constants, and S3A's of core-default.xml."""
    wanted = {name for conf in CONFS for name in properties(conf)}
    patterns = {name: constant(name) for name in wanted if not name.startswith("spark.hadoop.")}
    found = set()
    for jar in sorted(JARS.glob("spark-*.jar")):
        if re.match(r"spark-(core|sql|catalyst|connect|kubernetes|common-utils|network-common)", jar.name):
            with ZipFile(jar) as classes:
                for entry in classes.namelist():
                    if entry.endswith(".class"):
                        body = classes.read(entry)
                        found |= {name for name, pattern in patterns.items() if pattern in body}
    [hadoop] = JARS.glob("hadoop-client-api-*.jar")
    with ZipFile(hadoop) as classes:
        defaults = set(re.findall(r"<name>([^<]+)</name>", classes.read("core-default.xml").decode()))
    return found | {name for name in wanted if name.removeprefix("spark.hadoop.") in defaults}


def constant(name: str) -> bytes:
    """A name as a class file has it: whole, its length before it; or the beginning that somebody's own word follows."""
    family = re.match(r"spark\.(executorEnv|kubernetes\.executor\.(secretKeyRef|secrets|volumes))\.", name)
    return family[0].encode() if family else b"\x01" + len(name).to_bytes(2, "big") + name.encode()


@pytest.mark.parametrize("conf", CONFS, ids=lambda conf: conf.stem)
def test_every_setting_is_one_that_spark_or_hadoop_knows(conf, known):
    assert properties(conf).keys() - known - COMPOSED == set()


@pytest.mark.parametrize("conf", CONFS, ids=lambda conf: conf.stem)
def test_a_setting_stands_there_because_it_differs(conf):
    shared = properties(settings.ROOT / "spark-defaults.conf")
    assert [name for name, value in properties(conf).items() if shared.get(name) == value] == []


@pytest.mark.parametrize("conf", CONFS, ids=lambda conf: conf.stem)
def test_what_is_of_one_machine_only_is_set_anew(conf):
    here = {
        n for n, value in properties(settings.ROOT / "spark-defaults.conf").items() if re.search(r"127\.|file:", value)
    }
    connect = {"spark.connect.grpc.binding.address"} if conf.stem == "standalone" else set()
    assert here - properties(conf).keys() == connect


def test_no_secret_stands_in_a_file():
    texts = "\n".join(file.read_text() for file in CLUSTERS.rglob("*") if file.is_file())
    example = re.findall(r"^\w*(?:PASSWORD|_KEY)=(.+)", (settings.ROOT / ".env.example").read_text(), re.M)
    assert [secret for secret in example if secret in texts] == []
    assert [each for each in objects() if each["kind"] == "Secret"] == []
    for conf in CONFS:
        for name, value in properties(conf).items():
            if re.search("(?i)secret|password|token|access.?key", name):
                assert re.fullmatch(r"[a-z-]+:[a-z-]+|/etc/[a-z]+", value), name
    for key, value in everything_in(list(objects())):
        if key == "env":
            assert [v["name"] for v in value if re.search("PASSWORD|_KEY", v["name"]) and "valueFrom" not in v] == []


def test_every_file_is_applied_or_mounted():
    kustomization = yaml.safe_load((CLUSTERS / "kustomization.yaml").read_text())
    mounted = [file for each in kustomization["configMapGenerator"] for file in each["files"]]
    named = {CLUSTERS / file for file in [*kustomization["resources"], *mounted]}
    assert named == {*KUBERNETES.glob("*.yaml"), CLUSTERS / "kubernetes.conf"}


def test_what_is_referred_to_is_there():
    kustomization = yaml.safe_load((CLUSTERS / "kustomization.yaml").read_text())
    generated = {each["name"] for each in kustomization["configMapGenerator"]}
    conf = properties(CLUSTERS / "kubernetes.conf")
    tree = list(everything_in(list(objects())))
    accounts = {value for key, value in tree if key == "serviceAccountName"}
    accounts |= {s["name"] for each in of_kind("RoleBinding").values() for s in each["subjects"]}
    accounts.add(conf["spark.kubernetes.authenticate.executor.serviceAccountName"])
    assert accounts == of_kind("ServiceAccount").keys()
    assert {each["roleRef"]["name"] for each in of_kind("RoleBinding").values()} == of_kind("Role").keys()
    maps = {value["name"] for key, value in tree if key in ("configMap", "configMapRef", "configMapKeyRef")}
    assert maps == of_kind("ConfigMap").keys() | generated
    assert {value["claimName"] for key, value in tree if key == "persistentVolumeClaim"} == of_kind(
        "PersistentVolumeClaim"
    ).keys()
    namespaces = {each["metadata"].get("namespace") for each in objects()} - {None}
    assert namespaces == {conf["spark.kubernetes.namespace"], kustomization["namespace"]} == of_kind("Namespace").keys()


def test_every_secret_and_key_is_documented():
    conf = properties(CLUSTERS / "kubernetes.conf")
    used = {(value["name"], value["key"]) for key, value in everything_in(list(objects())) if key == "secretKeyRef"}
    used |= {tuple(value.split(":")) for name, value in conf.items() if ".secretKeyRef." in name}
    mounts = {value: name.rpartition(".")[2] for name, value in conf.items() if ".executor.secrets." in name}
    folder, _, file = conf["spark.executorEnv.PGPASSFILE"].rpartition("/")
    used.add((mounts[folder], file))
    for secret, key in used:
        [command] = re.findall(rf"kubectl [^\n]*create secret generic {secret} (?:[^\n]*\\\n)*[^\n]*", SCALING)
        assert f"{key}=" in command or f"from-file={key}" in command, (secret, key)


def test_executors_get_what_the_shared_settings_take_from_the_environment():
    conf = properties(CLUSTERS / "kubernetes.conf")
    shared = "\n".join(properties(settings.ROOT / "spark-defaults.conf").values())
    taken = {*re.findall(r"\$\{env\.(\w+)\}", shared), "PGPASSFILE"}
    given = {name.rpartition(".")[2] for name in conf if ".executor.secretKeyRef." in name or ".executorEnv." in name}
    assert given == taken
    driver = {each["name"] for each in pods()["spark-connect"]["containers"][0]["env"]}
    taken.add("SPARK_CONNECT_AUTHENTICATE_TOKEN")  # what it asks its clients for
    assert driver == taken | set(re.findall(r"\$\{env:(\w+)\}", "\n".join(conf.values())))


def test_no_pod_gets_variables_named_after_services():
    assert {name: pod.get("enableServiceLinks") for name, pod in pods().items()} == dict.fromkeys(pods(), False)


def test_the_ports_of_spark_connect_agree():
    conf, port = properties(CLUSTERS / "kubernetes.conf"), 15002  # Spark's default for spark.connect.grpc.binding.port
    assert "spark.connect.grpc.binding.port" not in conf
    [container] = pods()["spark-connect"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports["connect"] == port
    assert str(ports["driver"]) == conf["spark.driver.port"]
    assert str(ports["blocks"]) == conf["spark.driver.blockManager.port"]
    [service] = of_kind("Service")["spark-connect"]["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (port, "connect")
    assert conf["spark.blockManager.port"] == "7080"
    policies = of_kind("NetworkPolicy")
    between = {p["port"] for rule in policies["spark-executor"]["spec"]["ingress"] for p in rule["ports"]}
    assert between == {7080}
    luigi, driver = policies["spark-connect"]["spec"]["ingress"]
    assert [each["port"] for each in luigi["ports"]] == [port]
    assert [each["port"] for each in driver["ports"]] == [ports["driver"], ports["blocks"]]
    told = of_kind("ConfigMap")["platform"]["data"]
    assert (told["SPARK_CONNECT_HOST"], told["SPARK_CONNECT_PORT"]) == ("spark-connect", str(port))


def test_labels_and_selectors_agree():
    deployment = of_kind("Deployment")["spark-connect"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == of_kind("Service")["spark-connect"]["spec"]["selector"] == labels
    policy = of_kind("NetworkPolicy")["spark-connect"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    [template] = [each for each in objects() if each["kind"] == "Pod"]
    day = of_kind("CronJob")["day"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    senders = [rule["from"][0]["podSelector"]["matchLabels"] for rule in policy["ingress"]]
    assert senders == [day, template["metadata"]["labels"]]


def test_there_is_one_driver_at_a_time():
    deployment = of_kind("Deployment")["spark-connect"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    assert of_kind("CronJob")["day"]["spec"]["concurrencyPolicy"] == "Forbid"


def test_files_lie_where_the_settings_look_for_them():
    conf = properties(CLUSTERS / "kubernetes.conf")
    [container] = pods()["spark-connect"]["containers"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert conf["spark.kubernetes.executor.podTemplateFile"] == f"{mounts['spark-conf']}/executor-pod.yaml"
    assert f"--properties-file={mounts['spark-conf']}/kubernetes.conf" in container["command"]
    assert "--load-spark-defaults" in container["command"]
    [executor] = pods()["executor"]["containers"]
    assert conf["spark.kubernetes.executor.podTemplateContainerName"] == executor["name"]


def test_there_is_one_image():
    images = {value for key, value in everything_in(list(objects())) if key == "image"}
    images.add(properties(CLUSTERS / "kubernetes.conf")["spark.kubernetes.container.image"])
    [image] = images
    assert f"-t {image} " in (KUBERNETES / "Dockerfile").read_text()


def test_the_image_and_the_wheel_have_one_spark():
    assert f"FROM apache/spark:{pyspark.__version__}-" in (KUBERNETES / "Dockerfile").read_text()


# ---- what holds for every pod ----------------------------------------------------------------------------------------


def test_the_namespace_takes_restricted_pods_alone():
    labels = of_kind("Namespace")["healthcare"]["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn", "audit")} == {"restricted"}


@pytest.mark.parametrize("name", pods())
def test_a_pod_is_as_the_restricted_standard_has_it_and_writes_to_volumes_alone(name):
    pod = pods()[name]
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    whole = pod["securityContext"]
    assert whole["runAsNonRoot"] is True and whole["runAsUser"] > 0
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    kinds = {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        writable = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
        assert "/tmp" in {m["mountPath"] for m in container["volumeMounts"] if m["name"] in writable}
        assert all(m["name"] in writable or m.get("readOnly") for m in container["volumeMounts"])


def test_the_driver_is_probed_and_what_ends_by_itself_has_a_deadline():
    [connect] = pods()["spark-connect"]["containers"]
    ports = {port["name"] for port in connect["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        [way] = [each for each in ("tcpSocket", "httpGet") if each in connect[probe]]
        assert connect[probe][way]["port"] in ports
    job = of_kind("CronJob")["day"]["spec"]["jobTemplate"]["spec"]
    assert 0 < job["activeDeadlineSeconds"] < 86400


def test_no_pod_reaches_another_but_by_a_policy():
    policies = of_kind("NetworkPolicy")
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    apps = {"luigi", "spark-connect", "spark-executor"}
    assert {
        v["app"] for k, v in everything_in(list(objects())) if k in ("labels", "matchLabels") and "app" in v
    } == apps
    for name, policy in policies.items():
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, []):
                assert rule[peers] and all(rule["ports"]), f"{name} lets everybody through"


def test_no_secret_stands_in_a_command_of_the_documentation():
    for page in [settings.ROOT / "README.md", *(settings.ROOT / "docs").glob("*.md")]:
        assert "--from-literal" not in page.read_text(), page.name


# ---- the image -------------------------------------------------------------------------------------------------------


def is_excluded(path: str, rules: list[str]) -> bool:
    """Whether .dockerignore keeps a file out of the context: the last rule that matches it, or a directory above it."""
    parts, excluded = Path(path).parts, False
    for rule in rules:
        pattern = rule.removeprefix("!").strip("/")
        if any(matches("/".join(parts[:length]), pattern) for length in range(1, len(parts) + 1)):
            excluded = not rule.startswith("!")
    return excluded


def matches(path: str, pattern: str) -> bool:
    """As Docker matches: `*` within a name, `**/` any number of directories."""
    expression = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.fullmatch(expression, path) is not None


def dockerfiles() -> list[Path]:
    """Those that are built from the root of the clone."""
    return [settings.ROOT / "Dockerfile", *sorted((settings.ROOT / "conf").rglob("Dockerfile"))]


@pytest.mark.parametrize("file", dockerfiles(), ids=lambda file: str(file.relative_to(settings.ROOT)))
def test_what_an_image_copies_is_there_and_reaches_the_build(file):
    rules = [
        line
        for line in (settings.ROOT / ".dockerignore").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    copies = re.findall(r"^COPY (?!.*--from)(?:--\S+ )*(.+)", file.read_text().replace("\\\n", " "), re.M)
    sources = [source for line in copies for source in line.split()[:-1]]
    assert sources
    for source in sources:
        path = settings.ROOT / source
        files = (
            [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
        )
        assert files, f"{source} is not there"
        lost = [f for f in files if is_excluded(str(f.relative_to(settings.ROOT)), rules)]
        assert lost == [], f"{source} is kept out by .dockerignore"
    assert is_excluded(".env", rules) and is_excluded("conf/__pycache__/x.pyc", rules)


def test_the_files_of_the_image_bring_a_date_to_gold_with_the_environment_of_the_pod(stack, tmp_path, postgres):
    """No .env.example is in the image: what it has elsewhere, the pod has to name."""
    for line in re.findall(r"^COPY (?!--from)(.+)", (KUBERNETES / "Dockerfile").read_text(), re.M):
        for source in line.split()[:-1]:
            if (settings.ROOT / source).is_dir():
                shutil.copytree(settings.ROOT / source, tmp_path / source)
    [container] = pods()["day"]["containers"]
    named = of_kind("ConfigMap")["platform"]["data"].keys() | {each["name"] for each in container["env"]}
    own = {name: os.environ.get(name) or settings.get(name) for name in named - {"LUIGI_HOST", "LUIGI_PORT"}}
    own |= {name: of_kind("ConfigMap")["platform"]["data"][name] for name in ("LUIGI_HOST", "LUIGI_PORT")}
    own |= {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "STACK_DIR": str(tmp_path / "stack")}
    own |= {"PYTHONPATH": str(tmp_path), "LUIGI_CONFIG_PATH": str(tmp_path / "conf" / "luigi.cfg")}
    day = "2026-06-01"
    made = subprocess.run([sys.executable, "-m", "jobs.generate", day, "--scale", "0.1"], cwd=settings.ROOT)
    assert made.returncode == 0
    words = re.findall(r"luigi --module pipelines Day|--local-scheduler|--log-level \w+", container["args"][0])
    command = [sys.executable, "-m", *f"{words[0]} --date {day} {' '.join(words[1:])}".split()]
    done = subprocess.run(command, cwd=tmp_path, env=own, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    [row] = postgres.execute("select state from ops.dates where partition_date = %s", [day]).fetchall()
    assert row == ("done",)
