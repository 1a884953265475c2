"""Asks the hub for a model's files and their contents, patiently: a busy hub and a cut line are no errors yet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from berth.errors import BerthError, Exit, failed
from berth.models.hubcache import COMMIT, HubFile
from berth.models.transfer import Transfer

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

    from berth.models.checked import Checked

ATTEMPTS = 6  # without a byte in between; with the pauses below a hub may be away for two minutes
LONGEST_PAUSE_S = 60.0
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})

T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """A model at one commit: all its files, and its licence's gate."""

    model: str
    revision: str
    commit: str
    files: tuple[HubFile, ...]


class Hub:
    """The hub at HF_ENDPOINT, with the token that huggingface_hub finds."""

    def __init__(self, environ: Mapping[str, str], transfer: Transfer) -> None:
        from berth.host import hub

        self.endpoint = hub.address(environ)
        self.transfer = transfer
        self._token = environ.get("HF_TOKEN") or None

    def listing(self, model: str, revision: str = "main") -> Listing:
        """The files of a model at a revision, once it is certain that they may be had. Raises BerthError."""
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        api = HfApi(endpoint=self.endpoint, token=self._token)
        info = self.patiently(lambda: api.model_info(model, revision=revision), model)
        if info.gated:  # the entry is public, the files are not
            self.patiently(lambda: api.auth_check(model), model)
        commit = str(info.sha or "")
        if not COMMIT.fullmatch(commit):
            raise failed(f"the hub says no commit of {model}", "is HF_ENDPOINT a hub?")
        entries = self.patiently(
            lambda: [
                each
                for each in api.list_repo_tree(model, recursive=True, revision=commit)
                if isinstance(each, RepoFile)
            ],
            model,
        )
        files = [
            checked(HubFile(each.path, each.lfs.sha256 if each.lfs else each.blob_id, each.size)) for each in entries
        ]
        return Listing(model, revision, commit, tuple(sorted(files, key=lambda file: file.path)))

    def download(self, listing: Listing, file: HubFile, out: "Checked") -> None:
        """Append what of a file is still to come. Raises BerthError when the hub stays away or says no."""
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import get_session, hf_raise_for_status

        url = hf_hub_url(listing.model, file.path, revision=listing.commit, endpoint=self.endpoint)
        headers = {**build_hf_headers(token=self._token), "Accept-Encoding": "identity"}

        def rest() -> None:
            # Always a range: so files come, too, that are larger than what the hub sends in one answer (50 GB). Not
            # huggingface_hub's own http_get, which keeps nothing of the last 10 MB when a line is cut.
            asked = {**headers, "Range": f"bytes={out.size}-"}
            with get_session().stream("GET", url, headers=asked, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as answer:
                hf_raise_for_status(answer)
                if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
                    out.begin_again()
                for piece in answer.iter_raw():
                    out.write(piece)
                    if out.size > file.size:
                        break
            if out.size < file.size:
                raise ConnectionError(f"{file.path}: the line was cut")

        if out.size < file.size:
            self.patiently(rest, listing.model, lambda: out.size)

    def patiently(self, call: Callable[[], T], model: str, place: Callable[[], int] = lambda: 0) -> T:
        """Call until it works, with growing pauses; a count that has grown at `place` makes a failure the first."""
        import httpx2  # what huggingface_hub itself speaks HTTP with
        from huggingface_hub.errors import HfHubHTTPError

        failures, reached = 0, place()
        while True:
            try:
                return call()
            except HfHubHTTPError as error:
                if error.response.status_code not in _BUSY:
                    raise _refused(error, model, self.endpoint, bool(self._token)) from error
                why, wait = f"HTTP {error.response.status_code}", _retry_after(error)
            except (httpx2.TransportError, ConnectionError, TimeoutError) as error:
                why, wait = str(error) or type(error).__name__, None
            failures = 1 if place() > reached else failures + 1
            reached = place()
            if failures >= ATTEMPTS:
                raise failed(
                    f"{self.endpoint} does not give {model}: {why}",
                    "run the same command again when the hub answers; it goes on where it stopped"
                    " (a mirror is named by HF_ENDPOINT, a proxy by HTTPS_PROXY)",
                    Exit.MISSING_PREREQUISITE,
                )
            seconds = min(LONGEST_PAUSE_S, wait if wait is not None else 2.0 ** (failures - 1))
            self.transfer.progress.say(f"{why}; trying again in {seconds:.0f} s")
            self.transfer.pause(seconds)


def _retry_after(error: "HfHubHTTPError") -> float | None:
    said = error.response.headers.get("Retry-After", "")
    return float(said) if said.isascii() and said.isdigit() else None


def checked(file: HubFile) -> HubFile:
    """A file whose names lead nowhere else on this machine. Raises BerthError."""
    path = PurePosixPath(file.path)
    plain = not path.is_absolute() and ".." not in path.parts and str(path) == file.path and "\0" not in file.path
    named = len(file.blob) in (40, 64) and set(file.blob) <= set("0123456789abcdef")
    if not (plain and named and file.size >= 0):
        raise failed(f"a file is named that cannot be: {file.path!r}", "do not take this model from there")
    return file


def _refused(error: "HfHubHTTPError", model: str, endpoint: str, has_token: bool) -> BerthError:
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    status: Any = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return failed(f"{model} has no such revision", f"see {endpoint}/{model}/commits/main", Exit.BAD_SETTING)
    if isinstance(error, GatedRepoError) and not has_token:
        return failed(
            f"{model} is gated on the hub, and there is no token that opens it (HTTP {status})",
            f"accept its licence at {endpoint}/{model}, then set HF_TOKEN, or HF_TOKEN_PATH to a file with the token",
            Exit.BAD_SETTING,
        )
    if isinstance(error, GatedRepoError):
        return failed(
            f"{model} is gated on the hub, and this token does not open it (HTTP {status})",
            f"accept its licence at {endpoint}/{model} with the token's account; the token needs the right to read it",
            Exit.BAD_SETTING,
        )
    return failed(
        f"the hub does not give {model} (HTTP {status})",
        "check the spelling; a private model needs HF_TOKEN",
        Exit.BAD_SETTING,
    )
