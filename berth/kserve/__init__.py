"""KServe and SAP AI Core: what a deployment comes to there, as files that are printed and never applied.

Each name in `FACES` is a `--runtime` of `berth render`, and a module here with `render(deployment) -> str`.
"""

from importlib import import_module

from berth.deployment import Deployment

FACES = {"kserve": "serving", "aicore": "aicore"}


def render(face: str, deployment: Deployment) -> str:
    """The manifests of one of the faces. Raises BerthError for a deployment that it cannot hold."""
    text: str = import_module(f"{__name__}.{FACES[face]}").render(deployment)
    return text
