"""The recipes for clusters are accepted by the tools that read them."""

import importlib.resources
import importlib.util
import subprocess
from pathlib import Path

import pytest
import yaml

from tilepipe.cli.worker import worker_verb

RECIPES = Path(__file__).parents[2] / "configs" / "cluster"


@pytest.fixture
def slurm():
    """The SLURM recipe, as a module."""
    pytest.importorskip("dask_jobqueue")
    spec = importlib.util.spec_from_file_location("slurm_recipe", RECIPES / "slurm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")  # dask-jobqueue's own
def test_the_slurm_script_asks_for_what_the_worker_uses(slurm, tmp_path):
    from dask_jobqueue.slurm import SLURMJob

    job = SLURMJob("tcp://10.0.0.1:8786", name="tilepipe", **slurm.OPTIONS)
    script = tmp_path / "job.sh"
    script.write_text(job.job_script())
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text()
    for words in ("#SBATCH --cpus-per-task=8", "#SBATCH --mem=4G", "#SBATCH -t 02:00:00", "--nthreads 8"):
        assert words in text
    assert "--preload tilepipe.execution.executors.worker_process" in text
    assert "tcp://10.0.0.1:8786" in text


def strict(schema):
    """Return a schema that also rejects fields it does not name, which the server would drop without a word."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def schema_of(kind):
    """Return the schema of a kind of the operator's resources."""
    charts = importlib.resources.files("dask_kubernetes") / "operator" / "deployment" / "helm"
    file = charts / "dask-kubernetes-operator" / "crds" / f"{kind.lower()}.yaml"
    definition = yaml.safe_load(file.read_text())
    (version,) = definition["spec"]["versions"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
    return schema


def documents():
    return list(yaml.safe_load_all((RECIPES / "kubernetes.yaml").read_text()))


@pytest.mark.filterwarnings("ignore")  # dask-kubernetes' own
@pytest.mark.parametrize("document", documents(), ids=lambda document: document["kind"])
def test_the_kubernetes_resources_follow_the_operators_schema(document):
    pytest.importorskip("dask_kubernetes")
    jsonschema = pytest.importorskip("jsonschema")
    assert document["apiVersion"] == "kubernetes.dask.org/v1"
    jsonschema.validate(document, schema_of(document["kind"]))
    document["spec"]["misspelt"] = 1
    with pytest.raises(jsonschema.ValidationError, match="misspelt"):
        jsonschema.validate(document, schema_of(document["kind"]))


def test_the_kubernetes_worker_is_a_tilepipe_worker_within_its_limits():
    cluster, scaler = documents()
    (worker,) = cluster["spec"]["worker"]["spec"]["containers"]
    verb, *arguments = worker["args"][1:]
    assert verb == worker_verb.name
    with worker_verb.make_context("worker", arguments) as context:
        assert context.params["jobs"] == int(worker["resources"]["requests"]["cpu"])
        assert context.params["memory"] == "2GB", "below the limit of the pod, 2 GiB"
        assert context.params["dask_options"] == ("--name", "$(DASK_WORKER_NAME)")
    assert scaler["spec"]["cluster"] == cluster["metadata"]["name"]
