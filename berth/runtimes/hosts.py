"""Several Docker hosts with one model: Compose on each through SSH, its engine asked through docker-py."""

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from berth import images, staying, waiting
from berth.deployment import Deployment
from berth.errors import BerthError, Exit, Problem, failed
from berth.host import containers, dockers, hub
from berth.host.installing import reason
from berth.hosts import looking, placing, served
from berth.hosts.host import Host
from berth.hosts.memory import Deployed, forget, recall, remember
from berth.paths import ROOT, in_root
from berth.progress import Progress
from berth.runtimes import ENGINE, NOTHING, SERVICE, Ready, Request, Status
from berth.runtimes.compose_cli import ComposeCli, last_line
from engine import credentials
from engine.messages import mask
from engine.phases import READY, STARTING, Phase

if TYPE_CHECKING:
    from docker.models.containers import Container

FIRST_STEP = "prepare"
T = TypeVar("T")


class Runtime:
    """Containers of this checkout's Compose project on machines that ssh reaches; the first one is the head."""

    name = "hosts"
    local = False

    def __init__(self, request: Request = NOTHING) -> None:
        request.only_here(self.name)
        self._deployed, self._named = recall(), bool(request.hosts)
        named = request.hosts or (self._deployed.hosts if self._deployed else ())
        self._hosts = [Host(name) for name in named]
        self._cli = ComposeCli()

    def unavailable(self) -> Problem | None:
        """Compose must be here, and a Docker Engine must answer on every host that is named.

        Of those that are remembered one may be gone: whoever asks for its containers is told so.
        """
        if not self._hosts:
            return Problem("no Docker hosts are named", "name them: --hosts a,b", Exit.BAD_SETTING)
        problem = dockers.compose_problem()
        if problem or not self._named:
            return problem
        return next((problem for problem in self._everywhere(Host.problem) if problem), None)

    def problems(self, deployment: Deployment) -> list[Problem]:
        """What the launcher would refuse of these nodes, and other hosts that are still in use."""
        found = placing.problems(deployment, len(self._hosts))
        before = self._deployed
        if before and before.hosts != tuple(host.name for host in self._hosts):
            found.append(
                Problem(f"this checkout has a deployment on {', '.join(before.hosts)}", "stop it: scripts/berth down")
            )
        return found

    def commands(self, deployment: Deployment) -> list[str]:
        """`docker compose up` of each host, with what makes it that node."""
        lines = []
        for node in placing.nodes(deployment, self._hosts):
            told = shlex.join(f"{name}={value}" for name, value in placing.told(deployment, node).items())
            lines.append(in_root(f"{told} {shlex.join(self._up(node))}"))
        return lines

    def render(self, deployment: Deployment) -> str:
        """The Compose model of each host, secrets masked."""
        secrets = credentials.secrets(deployment.environ)
        parts = [
            f"# {host.name}\n{mask(self._cli.config(node), secrets).rstrip()}"
            for host, node in zip(self._hosts, placing.nodes(deployment, self._hosts), strict=True)
        ]
        return "\n---\n".join(parts)

    def start(self, deployment: Deployment, progress: Progress, attached: bool) -> None:
        """Bring the images, then `docker compose up` everywhere. Raises BerthError, with nothing left running.

        Containers belong to the hosts, so `attached` changes nothing here.
        """
        nodes = placing.nodes(deployment, self._hosts)
        found = self._cli.images_of(nodes[0])
        for rank, host in enumerate(self._hosts):
            for image in found if rank == 0 else found[:1]:
                host.provide(image, progress)
        address = nodes[0].value(placing.HEAD_ADDRESS)
        self._deployed = Deployed(tuple(host.name for host in self._hosts), self._cli.project(nodes[0]), address)
        remember(self._deployed)
        progress.show(Phase(STARTING))
        try:
            with ThreadPoolExecutor(len(nodes)) as pool:
                for done in [pool.submit(self._start, rank, node) for rank, node in enumerate(nodes)]:
                    done.result()
        except BaseException:
            self._give_up(progress)
            raise

    def _start(self, rank: int, node: Deployment) -> None:
        host, command = self._hosts[rank], self._up(node)
        done = self._cli.run(command, node)
        if done.returncode:
            refused = self._containers(host).get(FIRST_STEP)
            sentence, hint = reason(refused.logs(tail=50).decode(errors="replace")) if refused else ("", "")
            if sentence:
                raise failed(f"{host.name}: {sentence}", hint, Exit.BAD_SETTING)
            by_hand = f"try it yourself: DOCKER_HOST={host.address} {shlex.join(command)}"
            raise failed(f"{host.name}: docker compose could not start: {last_line(done.stderr)}", by_hand)

    def wait(self, deployment: Deployment, progress: Progress, timeout_s: float, attached: bool) -> Ready:
        """Until the head's own check finds that it serves. Raises BerthError, with nothing left running."""
        log = waiting.EngineLog(self._log(self._hosts[0]))
        try:
            if ended := served.wait(self._look, log, progress, timeout_s):
                raise BerthError(waiting.explained(self._log(ended[0]), ended[1]))
        except BaseException:
            self._give_up(progress)
            raise
        progress.show(Phase(READY))
        return placing.ready(deployment, self._hosts[0], self._deployed.head_address if self._deployed else "")

    def stay(self, progress: Progress, tell: Callable[[], None], show_logs: bool) -> None:
        """Show the logs; Ctrl-C stops what was started."""
        staying.stay(self, progress, tell, show_logs)

    def failure(self) -> Problem | None:
        """An engine that ended before all were ready; Compose would start it again and again."""
        return next((problem for _, problem in self._ended()), None)

    def _look(self) -> tuple[bool, tuple[Host, Problem] | None]:
        return self._health() == "healthy", next(self._ended(), None)

    def _ended(self) -> Iterator[tuple[Host, Problem]]:
        for host in self._hosts:
            if problem := host.ended(self._containers(host).get(ENGINE)):
                yield host, problem

    def downloaded(self, deployment: Deployment) -> int | None:
        """Not looked at: each host downloads for itself."""
        return None

    def has_model(self, deployment: Deployment) -> bool:
        """Whether every host's volume of models holds it."""
        node = placing.nodes(deployment, self._hosts)[0]
        volume, image = f"{self._cli.project(node)}_models", self._cli.images_of(node)[0].tag
        folder = hub.folder(deployment.model, Path("hub"))
        return all(
            self._everywhere(
                lambda host: bool(host.layers(image)) and images.volume_holds(volume, image, folder, host.client)
            )
        )

    def free_bytes(self, deployment: Deployment) -> int | None:
        """Not looked at."""
        return None

    def logs(self, part: str | None, follow: bool, tail: int | None) -> Iterator[str]:
        """The containers' logs, the head's last where they are not followed; each line begins with its host's name."""
        parts = [part] if part else [ENGINE, SERVICE]
        sources = {
            f"{host.name} {name}": partial(self._container, host, name)
            for host in reversed(self._hosts)
            for name in parts
            if name == ENGINE or host is self._hosts[0]
        }
        width = max(map(len, sources), default=0)
        for name, line in containers.read_logs(sources, follow, tail):
            yield f"{name:{width}} | {line}"

    def _log(self, host: Host) -> looking.EngineLog:
        return looking.EngineLog(partial(self._container, host, ENGINE))

    def _container(self, host: Host, service: str) -> "Container | None":
        return self._containers(host).get(service)

    def stop_commands(self) -> list[str]:
        """`docker compose down` of each host, which keeps volumes."""
        down = shlex.join(self._down())
        return [f"DOCKER_HOST={host.address} {down}" for host in self._hosts if self._containers(host)]

    def stop(self, progress: Progress) -> bool:
        """The head first, which finishes what is in flight; the others end with it."""
        stopped = False
        problems: list[Problem] = []
        for host in self._hosts:
            try:
                stopped |= self._stop(host)
            except BerthError as error:  # the others are stopped all the same
                problems += error.problems
        if problems:
            raise BerthError(problems)
        forget()
        return stopped

    def _give_up(self, progress: Progress) -> None:
        """Stop what was started; what cannot be stopped is said, and does not hide why."""
        try:
            self.stop(progress)
        except BerthError as error:
            for problem in error.problems:
                progress.say(f"{problem.sentence}; once it answers: scripts/berth down")

    def _stop(self, host: Host) -> bool:
        if not self._containers(host):
            return False
        environ = {**os.environ, "DOCKER_HOST": host.address}
        done = subprocess.run(self._down(), cwd=ROOT, env=environ, capture_output=True, text=True)
        if done.returncode:
            by_hand = f"try it yourself: DOCKER_HOST={host.address} {shlex.join(self._down())}"
            raise failed(f"{host.name}: docker compose could not stop: {last_line(done.stderr)}", by_hand)
        return True

    def status(self, deployment: Deployment | None = None) -> Status:
        """From the containers that carry this checkout's Compose labels, on every host."""
        found = dict(zip(self._hosts, self._everywhere(self._containers), strict=True))
        return looking.status(self.name, found, self._deployed.head_address if self._deployed else "")

    def _health(self) -> str:
        """The state of the head's engine, by the image's own check."""
        engine = self._containers(self._hosts[0]).get(ENGINE)
        return containers.described(engine)[0] if engine else "gone"

    def _up(self, node: Deployment) -> list[str]:
        return self._cli.words(node, "up", "--detach", "--no-build")

    def _down(self) -> list[str]:
        return ["docker", "compose", "-p", self._project, "down"]

    @property
    def _project(self) -> str:
        return self._deployed.project if self._deployed else os.environ.get("COMPOSE_PROJECT_NAME") or "berth"

    def _containers(self, host: Host) -> dict[str, "Container"]:
        return host.containers(self._project)

    def _everywhere(self, ask: Callable[[Host], T]) -> list[T]:
        with ThreadPoolExecutor(max(1, len(self._hosts))) as pool:
            return list(pool.map(ask, self._hosts))
