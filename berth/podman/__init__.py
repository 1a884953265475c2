"""Podman: what a deployment comes to there, as files that are printed or written and never started from here.

`quadlet` makes units for systemd of what Compose makes of the env files; `podman` makes the Kubernetes manifests such
that `podman kube play` takes them. Both are names of `berth render --runtime`, and modules here with
`files(deployment) -> dict[str, str]`.
"""

from importlib import import_module
from pathlib import Path

from berth.deployment import Deployment
from berth.errors import Exit, failed
from berth.output import show

FACES = {"quadlet": "quadlet", "podman": "kube"}


def deliver(face: str, deployment: Deployment, folder: Path | None, as_json: bool) -> None:
    """Print the files, or write them into a folder and print their paths. Raises BerthError."""
    found: dict[str, str] = import_module(f"{__name__}.{FACES[face]}").files(deployment)
    if folder:
        written = [str(path) for path in _write(found, folder)]
        show({"files": written}) if as_json else print("\n".join(written))
    elif as_json:
        show({"runtime": face, "device": deployment.device, "files": found})
    else:
        texts = [text if len(found) == 1 else f"# ---- {name}\n{text}" for name, text in found.items()]
        print("\n".join(texts).rstrip("\n"))


def _write(found: dict[str, str], folder: Path) -> list[Path]:
    paths = [folder.expanduser() / name for name in found]
    try:
        folder.expanduser().mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, found.values(), strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise failed(f"{folder}: {error.strerror}", "name a folder that you may write to", Exit.BAD_SETTING) from None
    return paths
