"""Whatever an env file says reaches vLLM's process in the SIF exactly as in Compose: by hand, and through `berth up`.

Many values travel at once, a name each, since every batch starts real containers and real jobs.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from berth import envfiles
from berth.slurm.submit import job_env
from engine import catalog, devices
from tests.compose.conftest import MakeProject, WriteEnv
from tests.compose.conftest import project as project  # fixtures of the Compose tests
from tests.compose.conftest import write_env as write_env
from tests.support.slurm import ROOT, Checkout, Lab, User

pytestmark = [pytest.mark.slurm, pytest.mark.docker]

SCRATCH = "/shared/tests-values"
FILES = ("env/cpu.env", "env/models/demo.env")
JSON = '{"rope_scaling": {"a b": [1, "x, y"], "u": "Zoë $HOME #1"}}'
FIXED = [
    JSON,
    "a,b,c",
    "TOKEN=1,OTHER=2",
    "$HOME",
    "${HOME:-x} $(id) `id` $$ $1",
    "two  blanks and\ta tab",
    " blanks around ",
    "x#y",
    "x # y",
    "# z",
    '"quoted"',
    "it's",
    "'single'",
    'say "hi", {{ x }}',
    "back\\slash \\n \\\\ end\\",
    "café 日本語 🙂 e\u0301",
    "--flag x --other='y z'",
    "-e",
    "*?[a-z]~!&|;<>(){}^%@=:",
    "export A=1",
    "%s%d\\x41",
    "=",
    "0" * 4000,
]
# What readers do not agree on has no place in an env file: control characters, and white space beyond blank and tab.
CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"])
SPECIAL = st.sampled_from(
    [*"\"'`\\#={}[]:;,&*|!~%^()<>?$ \t", '{"a b": 1}', "--flag x", "\\n", "it's", " #", "$HOME", "${X}"]
)
VALUES = st.lists(st.one_of(CHARACTERS, SPECIAL), min_size=1, max_size=12).map("".join)
_numbers = itertools.count()


def written(name: str, value: str) -> str | None:
    """The line of an env file that means this value to every reader; None where the portable subset has none."""
    bare = value == value.strip() and "$" not in value and value[:1] not in ("'", '"', "#")
    if bare and " #" not in value and "\t#" not in value:
        return f"{name}={value}"
    if not set("'\\") & set(value):
        return f"{name}='{value}'"
    return None if set('"\\$') & set(value) else f'{name}="{value}"'


OTHER_DEVICES = (
    "ROCM",
    "BUILD",
    "RAY",
    "MOONCAKE",
    "NIXL",
    "EC",
    "P2P",
    "FLASHINFER",
    "LORA",
    "CUDART",
    "MORIIO",
    "XLA",
)


def known_names() -> list[str]:
    """Variables that vLLM reads elsewhere than on CPUs: they take any value, and the launcher looks at none."""
    known = catalog.parse((catalog.TRACKED / "cpu.json").read_text(encoding="utf-8"))
    plain = known.variables - known.variable_types.keys() - known.variable_choices.keys()
    prefixes = tuple(f"VLLM_{word}_" for word in OTHER_DEVICES)
    return sorted(name for name in plain if name.startswith(prefixes) and name not in devices.load("cpu").STALE)


def lines(values: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Each value, with its line, by its name. Quotes mean something in names that Berth knows, elsewhere nothing."""
    made = {}
    known, unknown = iter(known_names()), (f"HOSTILE_{number}" for number in itertools.count())
    for value in values:
        bare = written("", value) == f"={value}"
        name = next(unknown) if bare else next(known, None)
        if name and (line := written(name, value)):
            made[name] = (line, value)
    return made


@dataclass(frozen=True)
class Jobs:
    """Runs the job script with the stub image, and reads what vLLM was started with."""

    lab: Lab
    alice: User
    checkout: Checkout

    def submit(self, lines: Sequence[str]) -> tuple[str, str]:
        """A job of an env file; its number, and the directory for what vLLM sees."""
        dump = f"values-{next(_numbers)}"
        more = ["STUB_EXIT=0", f"STUB_DUMP=/cache/vllm/{dump}"]
        self.alice("tee", f"{SCRATCH}/{dump}.env", stdin="\n".join([*lines, *more, ""]))
        return self._sbatch(f"--deployment={SCRATCH}/berth/deployments/{dump}", *FILES, f"{SCRATCH}/{dump}.env"), dump

    def submit_merged(self, merged: Mapping[str, str]) -> tuple[str, str]:
        """A job as `berth up` submits it, with the env file that Berth writes."""
        dump = f"values-{next(_numbers)}"
        place = f"{SCRATCH}/berth/deployments/{dump}"
        merged = {**merged, "STUB_EXIT": "0", "STUB_DUMP": f"/cache/vllm/{dump}"}
        self.alice("mkdir", "-p", place)
        self.alice("tee", f"{place}/job.env", stdin=job_env(merged))
        return self._sbatch(f"--deployment={place}", f"{place}/job.env"), dump

    def _sbatch(self, deployment: str, *files: str) -> str:
        script = [f"{self.checkout.path}/apptainer/serve.sbatch", *deployment.split("=", 1)]
        options = ["--job-name=values", "--time=5", "--mem=200M", "--exclude=n3", f"--output={SCRATCH}/%j.log"]
        site = {"BERTH_SITE": f"{SCRATCH}/site.env"}
        return self.alice.sbatch(*options, *script, *files, cwd=self.checkout.path, environ=site)

    def started_with(self, submitted: tuple[str, str]) -> dict[str, Any]:
        """What vLLM's process was started with: {"argv": [...], "environ": {...}}."""
        job, dump = submitted
        self.alice.wait_until_ended(job)
        file = self.lab.outside(f"{SCRATCH}/berth/cache/cpu/{dump}/0.json")
        assert file.exists(), self.alice.say("cat", f"{SCRATCH}/{job}.log", check=False)
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found


@pytest.fixture(scope="module")
def jobs(cluster: Lab, alice: User, checkout: Checkout, stub_sif: str) -> Iterator[Jobs]:
    script = """rm -rf "$0"; umask 077; mkdir -p "$0/berth/sif" && ln -s "$1" "$0/berth/sif/vllm-cpu.sif" &&
        echo "SITE_SCRATCH=$0" >"$0/site.env" """
    alice("bash", "-c", script, SCRATCH, stub_sif)
    yield Jobs(cluster, alice, checkout)
    alice("bash", "-c", 'scancel --quiet --name=values --me; rm -rf "$0"', SCRATCH)


@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(generated=st.lists(VALUES, min_size=20, max_size=30))
def test_values_reach_vllm_in_the_sif_exactly_as_in_compose(
    generated: list[str], jobs: Jobs, project: MakeProject, write_env: WriteEnv
) -> None:
    hostile = lines([*FIXED, *generated])
    wanted = {name: value for name, (_, value) in hostile.items()}
    assert len(wanted) > len(FIXED) + 10
    written_lines = [*(line for line, _ in hostile.values()), f"VLLM_HF_OVERRIDES='{JSON}'"]
    by_hand = jobs.submit(written_lines)
    local = write_env("local", *written_lines)
    merged: dict[str, str] = {}
    for file in (*FILES, local):
        merged |= {name: each.value for name, each in envfiles.read(ROOT / file).items()}
    by_berth = jobs.submit_merged(merged)
    compose = project(*FILES, local)
    compose.run("up", "--detach", "engine")
    faces = {
        "Compose": compose.started_with(),
        "the job script by hand": jobs.started_with(by_hand),
        "berth up's job": jobs.started_with(by_berth),
    }
    for face, started in faces.items():
        assert {name: started["environ"].get(name) for name in wanted} == wanted, face
        assert started["argv"][started["argv"].index("--hf-overrides") + 1] == JSON, face
