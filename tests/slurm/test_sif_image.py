"""`berth sif`, run by an ordinary user with real Apptainer: what it makes, when it does nothing, what it refuses.

The images are a few bytes: what is in them does not matter to the conversion.
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.docker_socket import relayed
from tests.support.compose import docker
from tests.support.slurm import Checkout, Lab, User

pytestmark = [pytest.mark.slurm, pytest.mark.docker]

PLACE = "/shared/tests-sif"
NAME = "berth-test/tiny"
CPU = {"berth.device": "cpu", "berth.vllm.version": "0.0.1"}


@dataclass(frozen=True)
class Sif:
    """The verb, run in the cluster, and files for it."""

    lab: Lab
    alice: User
    checkout: Checkout

    def run(self, *words: str, environ: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """`berth sif …`, whatever comes of it."""
        return self.checkout.berth(self.alice, "sif", *words, check=False, environ=environ)

    def made(self, *words: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What `berth sif … --json` says of the image."""
        done = self.run(*words, "--json", environ=environ)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def refused(self, code: int, *words: str, environ: Mapping[str, str] | None = None) -> str:
        """What it says when it refuses: one sentence and a hint."""
        done = self.run(*words, environ=environ)
        assert done.returncode == code, done.stdout + done.stderr
        said = [line for line in done.stderr.splitlines() if line.startswith(("berth: error: ", "berth: hint: "))]
        assert len(said) == 2, done.stderr
        assert "Traceback" not in done.stderr
        return said[0]

    def labels(self, path: str) -> dict[str, str]:
        """What Apptainer itself reads from the image."""
        said = json.loads(self.alice.say("apptainer", "inspect", "--json", "--labels", path))
        return dict(said["data"]["attributes"]["labels"])


@pytest.fixture(scope="module")
def sif(cluster: Lab, alice: User, checkout: Checkout) -> Iterator[Sif]:
    alice("bash", "-c", 'rm -rf "$0"; mkdir "$0"', PLACE)
    yield Sif(cluster, alice, checkout)
    alice("rm", "-rf", PLACE)


Image = Callable[..., str]


@pytest.fixture(scope="module")
def image(cluster: Lab, sif: Sif) -> Iterator[Image]:
    """Make an image in the Docker Engine, and its archive: image("a", labels={…}) -> the archive's path."""
    tags = []

    def make(tag: str, content: str = "x", labels: Mapping[str, str] = CPU, platform: str = "linux/amd64") -> str:
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            entry = tarfile.TarInfo("content")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
        file = cluster.outside(f"{PLACE}/{tag}.tar")
        layer_file = file.with_suffix(".layer")
        layer_file.write_bytes(layer.getvalue())
        changes = [f"--change=LABEL {name}={value}" for name, value in labels.items()]
        docker("import", f"--platform={platform}", *changes, str(layer_file), f"{NAME}:{tag}")
        docker("save", "--output", str(file), f"{NAME}:{tag}")
        file.chmod(0o644)
        tags.append(f"{NAME}:{tag}")
        return f"{PLACE}/{tag}.tar"

    yield make
    docker("rmi", "--force", *tags, check=False)


@pytest.fixture(scope="module")
def archive(image: Image) -> str:
    return image("cpu")


def test_the_image_says_what_it_was_made_of_and_is_made_once(sif: Sif, image: Image) -> None:
    first, output = image("changing", "one"), f"{PLACE}/changing.sif"
    words = ("cpu", "--from", f"docker-archive:{first}", "--output", output)
    made = sif.made(*words)
    assert made["fresh"]
    labels = sif.labels(output)
    assert labels["berth.sif.image"] == made["image"]
    assert made["image"] == docker("image", "inspect", "--format", "{{.Id}}", f"{NAME}:changing").strip()
    assert (labels["berth.device"], labels["berth.vllm.version"], labels["org.label-schema.build-arch"]) == (
        *CPU.values(),
        "amd64",
    )
    before = sif.lab.outside(output).stat()
    assert "up to date" in sif.run(*words).stdout
    assert sif.lab.outside(output).stat() == before
    image("changing", "another")
    assert sif.made(*words)["fresh"]
    assert sif.made(*words, "--compression", "gzip")["compression"] == "gzip"
    assert sif.labels(output)["berth.sif.compression"] == "gzip"


def test_it_goes_to_the_store_and_leaves_nothing_else_there_or_at_home(sif: Sif, archive: str) -> None:
    sif.alice("bash", "-c", 'echo "SITE_SCRATCH=$0/scratch" >"$0/site.env"; mkdir "$0/home"; touch "$0/mark"', PLACE)
    environ = {"BERTH_SITE": f"{PLACE}/site.env", "HOME": f"{PLACE}/home"}
    made = sif.made("cpu", "--from", f"docker-archive:{archive}", environ=environ)
    assert made["path"] == f"{PLACE}/scratch/berth/sif/vllm-cpu.sif"
    found = sif.alice.say("find", f"{PLACE}/scratch/berth", "-type", "f")
    assert found == made["path"]
    assert (
        sif.alice.say("find", f"{PLACE}/home", "/home/alice/.apptainer", "-type", "f", "-newer", f"{PLACE}/mark") == ""
    )


def test_the_docker_engine_is_where_an_image_comes_from_unless_told_otherwise(
    sif: Sif, image: Image, cluster: Lab
) -> None:
    image("engine")
    docker("tag", f"{NAME}:engine", "berth-test-sif/vllm-cpu:1")
    try:
        with relayed(cluster.outside(f"{PLACE}/docker.sock")):
            environ = {
                "DOCKER_HOST": f"unix://{PLACE}/docker.sock",
                "BERTH_REGISTRY": "berth-test-sif",
                "BERTH_VERSION": "1",
            }
            made = sif.made("cpu", "--output", f"{PLACE}/engine.sif", environ=environ)
            assert made["source"] == "docker-daemon:berth-test-sif/vllm-cpu:1"
            assert made["fresh"]
            missing = ("cpu", "--from", "docker-daemon:berth-test-sif/none:1", "--output", f"{PLACE}/none.sif")
            assert "has no image berth-test-sif/none:1" in sif.refused(3, *missing, environ=environ)
    finally:
        docker("rmi", "berth-test-sif/vllm-cpu:1", check=False)


def test_a_dry_run_prints_commands_that_work_by_hand(sif: Sif, archive: str) -> None:
    output = f"{PLACE}/dry.sif"
    done = sif.run("cpu", "--from", f"docker-archive:{archive}", "--output", output, "--dry-run")
    assert done.returncode == 0
    assert not sif.lab.outside(output).exists()
    sif.alice("bash", "-euc", done.stdout)
    assert sif.labels(output)["berth.device"] == "cpu"


def test_signatures(sif: Sif, archive: str) -> None:
    for name in ("own", "other"):
        key, public = f"{PLACE}/{name}.pem", f"{PLACE}/{name}.pub.pem"
        sif.alice("openssl", "genrsa", "-out", key, "2048")
        sif.alice("openssl", "rsa", "-in", key, "-pubout", "-out", public)
    words = ("cpu", "--from", f"docker-archive:{archive}", "--output", f"{PLACE}/signed.sif")
    own = ("--verify", f"{PLACE}/own.pub.pem")
    sif.made(*words)
    assert "is not signed" in sif.refused(1, *words, *own)
    signed = sif.made(*words, "--sign", f"{PLACE}/own.pem", *own)
    assert (signed["signed"], signed["fresh"]) == (True, False)
    assert "was not signed with the key" in sif.refused(1, *words, "--verify", f"{PLACE}/other.pub.pem")
    assert "Public key" in sif.refused(1, *words, "--verify", f"{PLACE}/own.pem")
    assert "no readable key" in sif.refused(2, *words, "--sign", f"{PLACE}/none.pem")
    file = sif.lab.outside(f"{PLACE}/signed.sif")
    content = bytearray(file.read_bytes())
    content[content.index(b"hsqs") + 100] ^= 1  # in the file system
    file.write_bytes(content)
    assert "was changed since" in sif.refused(1, *words, *own)


def test_a_conversion_that_fails_leaves_the_image_that_was_there(sif: Sif, archive: str) -> None:
    output = f"{PLACE}/kept.sif"
    sif.made("cpu", "--from", f"docker-archive:{archive}", "--output", output)
    before = sif.lab.outside(output).read_bytes()
    broken = sif.lab.outside(f"{PLACE}/broken.tar")
    with tarfile.open(sif.lab.outside(archive)) as whole, tarfile.open(broken, "w") as copy:
        layer = json.load(whole.extractfile("manifest.json") or io.BytesIO())[0]["Layers"][0]
        for entry in whole:
            content = (whole.extractfile(entry) or io.BytesIO()).read() if entry.isfile() else b""
            copy.addfile(entry, io.BytesIO(b"?" * len(content) if entry.name == layer else content))
    said = sif.refused(1, "cpu", "--from", f"docker-archive:{PLACE}/broken.tar", "--output", output, "--force")
    assert said.startswith("berth: error: apptainer build failed: ")
    assert sif.lab.outside(output).read_bytes() == before
    assert not list(Path(sif.lab.outside(PLACE)).glob(".sif-*"))


def test_images_that_do_not_fit_are_refused_before_they_are_converted(sif: Sif, image: Image, archive: str) -> None:
    def refused(device: str, path: str) -> str:
        return sif.refused(2, device, "--from", f"docker-archive:{path}", "--output", f"{PLACE}/no.sif")

    assert "is an image for cpu, not for cuda" in refused("cuda", archive)
    assert "no label berth.device" in refused("cpu", image("plain", labels={}))
    assert "is for arm64 processors, and this machine has amd64" in refused("cpu", image("arm", platform="linux/arm64"))
    assert "is not what docker save writes" in refused("cpu", f"{PLACE}/plain.layer")
    assert "no such device" in refused("tpu", archive)
    assert not sif.lab.outside(f"{PLACE}/no.sif").exists()


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("docker-archive:/nowhere.tar", 3, "there is no file /nowhere.tar"),
        ("docker://registry.example/vllm:latest", 2, "named by its digest"),
        ("oras://registry.example/vllm", 2, "no such source"),
        ("docker-daemon:berth/vllm-cpu:0.1.0", 3, "no Docker Engine answers"),
    ],
)
def test_sources_that_cannot_be_used_are_explained(sif: Sif, source: str, code: int, said: str) -> None:
    assert said in sif.refused(code, "cpu", "--from", source, "--output", f"{PLACE}/no.sif")


def test_a_machine_that_cannot_make_images_is_explained(sif: Sif, archive: str) -> None:
    words = ("cpu", "--from", f"docker-archive:{archive}")
    output = ("--output", f"{PLACE}/no.sif")
    sif.alice("bash", "-c", 'echo "SITE_APPTAINER=/opt/none/apptainer" >"$0/none.env"', PLACE)
    none = {"BERTH_SITE": f"{PLACE}/none.env"}
    assert "there is no /opt/none/apptainer" in sif.refused(3, *words, *output, environ=none)
    assert "cannot be written to" in sif.refused(2, *words, "--output", "/etc/berth/no.sif")
    berth = f"{sif.checkout.path}/scripts/berth sif {' '.join((*words, *output))}"
    limited = f"echo 1 >/proc/sys/user/max_user_namespaces; exec unshare -U --map-user=1001 --map-group=1001 {berth}"
    done = sif.alice("unshare", "-Ur", "bash", "-c", limited, check=False, cwd=sif.checkout.path)
    assert done.returncode == 3, done.stderr
    assert "no user namespaces" in done.stderr


def test_a_full_disk_is_noticed_before_anything_is_made(sif: Sif, image: Image) -> None:
    large = image("large", "x" * 3_000_000)
    root = sif.lab.user("root")
    root("bash", "-c", 'mkdir -p "$0" && mount -t tmpfs -o size=4m,mode=1777 none "$0"', f"{PLACE}/small")
    try:
        said = sif.refused(1, "cpu", "--from", f"docker-archive:{large}", "--output", f"{PLACE}/small/a.sif")
    finally:
        root("umount", f"{PLACE}/small")
    assert "GB free, and making this image needs" in said
