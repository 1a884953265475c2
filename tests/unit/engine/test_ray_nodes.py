"""The head waits for all nodes of its Ray cluster, and says what is missing."""

import sys
from typing import Any

import pytest

from engine import ray_nodes
from engine.messages import Exit


class Ray:
    """A Ray of which a node more is alive each time it is asked."""

    def __init__(self, refusals: int = 0) -> None:
        self.joined, self.asked, self.refusals = False, 0, refusals

    def is_initialized(self) -> bool:
        return self.joined

    def init(self, **_: Any) -> None:
        self.refusals -= 1
        if self.refusals >= 0:
            raise ConnectionError("nobody listens")
        self.joined = True

    def nodes(self) -> list[dict[str, bool]]:
        self.asked += 1
        return [{"Alive": place < self.asked} for place in range(3)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_nodes, "POLL_S", 0.001)


def test_it_waits_for_the_head_and_then_for_every_node() -> None:
    ray = Ray(refusals=2)
    assert ray_nodes.wait(ray, "10.0.0.1:20003", 3, 60) is None
    assert ray.asked == 3


def test_nodes_that_do_not_come_are_counted() -> None:
    problem = ray_nodes.wait(Ray(), "10.0.0.1:20003", 4, 0.05)
    assert problem is not None
    assert "3 of 4 nodes" in problem.sentence
    assert problem.exit_code == Exit.NOT_READY


def test_an_image_without_ray_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(sys, "argv", ["ray_nodes", "10.0.0.1:1", "2"])
    assert ray_nodes.main() == Exit.BAD_SETTING
    assert "apptainer/ray.Dockerfile" in capsys.readouterr().err
