"""version.txt: what a packed model is, for people and for the program that unpacks it. NAME=value, one a line."""

from dataclasses import dataclass

from berth.models.hubcache import COMMIT, NAME

FILE = "version.txt"


@dataclass(frozen=True)
class Version:
    """A model at a commit; `revision` is the branch or tag that it was asked for."""

    model: str
    commit: str
    revision: str = "main"

    def text(self) -> str:
        """The file's text; the same model gives the same bytes."""
        return f"model={self.model}\nrevision={self.revision}\ncommit={self.commit}\n"


def read(text: str) -> Version | None:
    """The other way; None for a text that says no model and commit."""
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    model, commit = said.get("model", ""), said.get("commit", "")
    if not NAME.fullmatch(model) or ".." in model or not COMMIT.fullmatch(commit):
        return None
    return Version(model, commit, said.get("revision", "main"))
