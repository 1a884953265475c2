"""SIFs for tests on the lab's cluster: the stub's, made in seconds, and the real vLLM's."""

import fcntl
import os
import subprocess

from tests.support.compose import docker
from tests.support.slurm import ROOT, Lab

STUB_IMAGE = "berth-test/stub:checkout"
PLACE = "/shared/sif"


def _identity(image: str) -> str | None:
    return docker("image", "inspect", "--format", "{{.Id}}", image, check=False).strip() or None


def service_image() -> str:
    """The service's image, on which the stub's stands."""
    return os.environ.get("BERTH_TEST_IMAGE_LLM") or "berth-test/llm:checkout"


def engine_image() -> str:
    """The image with the real vLLM for CPU."""
    return os.environ.get("BERTH_TEST_IMAGE_CPU") or "berth-test/vllm-cpu:checkout"


def build_stub_image() -> str:
    """Build the stub's image from this checkout (2 s) and return its name; the service's image must be there."""
    contexts = ["--build-context", "tests=tests", "--build-context", "catalogs=engine/catalogs"]
    arguments = ["--build-arg", f"SERVICE_IMAGE={service_image()}", "--tag", STUB_IMAGE]
    command = ["docker", "build", "--quiet", "--file", "tests/lab/cluster/stub.Dockerfile", *arguments, *contexts, "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"building the stub's image failed: {done.stderr}"
    return STUB_IMAGE


def build_ray_image(engine: str) -> str:
    """Build the Ray layer on an engine's image and return its name."""
    arguments = ["--build-arg", f"ENGINE_IMAGE={engine}"]
    if index := os.environ.get("PIP_INDEX_URL"):
        arguments += ["--build-arg", f"PACKAGE_INDEX={index}"]
    authorities = os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt"
    tag = f"{engine.partition(':')[0]}-ray:checkout"
    arguments += ["--secret", f"id=ca,src={authorities}", "--tag", tag]
    command = ["docker", "build", "--quiet", "--file", "apptainer/ray.Dockerfile", *arguments, "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"building the Ray layer failed: {done.stderr[-2000:]}"
    return tag


def missing(image: str) -> str | None:
    """Why there can be no SIF of `image`, or None."""
    return None if _identity(image) else f"no image {image} here (scripts/test slurm builds it)"


def make(lab: Lab, image: str, name: str, compressed: bool = True) -> str:
    """Return the path, in the cluster, of a SIF of `image` as it is now; makes it anew, as alice, when that changed.

    Compressed as `berth sif` does, but quicker; a large one that is not takes half the time to make. Raises
    AssertionError with Apptainer's words when it fails.
    """
    path = f"{PLACE}/{name}"
    sif, made_from = lab.outside(path), lab.outside(f"{path}.image")
    with open(lab.outside(f"{PLACE}/{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        identity = _identity(image)
        assert identity, f"no image {image}"
        if sif.exists() and made_from.exists() and made_from.read_text() == identity:
            return path
        archive = lab.outside(f"{path}.tar")
        try:
            docker("save", "--output", str(archive), image)
            os.chown(archive, 1001, 1001)
            squash = "-comp zstd -Xcompression-level 1" if compressed else "-noI -noD -noF -noX"
            build = ["apptainer", "--quiet", "build", "--force", "--mksquashfs-args", squash]
            alice = lab.user("alice")
            alice(*build, f"{path}.new", f"docker-archive:{path}.tar", timeout=1200)
            alice("mv", f"{path}.new", path)
        finally:
            archive.unlink(missing_ok=True)
            lab.outside(f"{path}.new").unlink(missing_ok=True)
        made_from.write_text(identity)
    return path
