"""One command on the login node to a correct answer: real vLLM in the SIF, and what is printed is run as printed."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.slurm.operators import SCRATCH, Operator
from tests.support.slurm import Checkout, Lab, User

pytestmark = pytest.mark.slurm

CLIENTS = f"{SCRATCH}-clients"
# The package index as the checkout's own environment was made with; uv is the checkout's own, too.
INSTALL = """
set -e
cd "$1"; source scripts/lib/setup.sh
[ -x "$0/bin/python" ] || "$(berth_uv)" venv --quiet "$0"
"$0/bin/python" -c 'import openai, litellm' 2>/dev/null && exit
berth_package_sources
"$(berth_uv)" pip install --quiet --python "$0/bin/python" openai litellm
"""
# Said by the demo model of this question; any of them makes the answer one about deep learning.
EXPECTED = re.compile(r"(?i)deep learning|neural network|layers")


@pytest.fixture(scope="module")
def operator(cluster: Lab, alice: User, checkout: Checkout, real_sif: str) -> Iterator[Operator]:
    """alice, with a store of her own for these tests."""
    one = Operator(cluster, alice, checkout, real_sif)
    one.prepare()
    one.site(SITE_TIME="30:00")
    yield one
    one.clear()


@pytest.fixture(scope="module")
def clients(operator: Operator) -> str:
    """A Python on the login node that has the OpenAI client and LiteLLM; skips where they cannot be had."""
    made = operator.user("bash", "-c", INSTALL, CLIENTS, operator.checkout.path, check=False, timeout=900)
    if made.returncode:
        pytest.skip(f"openai and litellm cannot be installed on the login node: {made.stderr.strip()[-300:]}")
    return f"{CLIENTS}/bin/python"


@pytest.fixture(scope="module")
def printed(operator: Operator) -> str:
    """What `berth up` prints, from the env files of the README, without --json."""
    words = ("--runtime", "slurm", "--env", "env/cpu.env", "--env", "env/models/demo.env", "-d")
    done = operator.berth("up", *words, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loading weights" in done.stderr or "warming up" in done.stderr or "compiling" in done.stderr
    return done.stdout


def block(printed: str, heading: str) -> str:
    """The lines below one `# In …` heading, as a reader would copy them."""
    _, _, rest = printed.partition(f"# In {heading}")
    text = rest.partition("\n")[2].partition("\n# In ")[0]
    return text.partition("\n\n  how it is:")[0]


def test_the_printed_curl_line_answers_correctly(operator: Operator, printed: str) -> None:
    said = operator.user.say("bash", "-c", block(printed, "a terminal:"), timeout=180)
    assert EXPECTED.search(said)


@pytest.mark.parametrize("client", ["OpenAI client", "LiteLLM"])
def test_the_printed_lines_of_a_client_answer_correctly(
    operator: Operator, printed: str, clients: str, client: str
) -> None:
    lines = block(printed, f"Python, with {'the ' if client == 'OpenAI client' else ''}{client}")
    done: subprocess.CompletedProcess[str] = operator.user(clients, "-", stdin=lines, timeout=300)
    assert EXPECTED.search(done.stdout), done.stdout + done.stderr


def test_the_key_is_shown_nowhere(operator: Operator, printed: str) -> None:
    key = operator.user.say("cat", f"{SCRATCH}/berth/deployments/demo/api_key")
    assert key not in printed
    for node in ("login", "n1", "n2", "n3"):
        assert key not in operator.user.say("ps", "-eo", "args", node=node)
    assert key not in operator.user.say("scontrol", "show", "job", operator.row("demo")["job"])
