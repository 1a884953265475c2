"""Manifests as people write them: several documents in one text, long strings as blocks."""

from collections.abc import Sequence
from typing import Any

import yaml


class Block(str):
    """A string that is printed as a block of lines."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Nothing is abbreviated by anchors."""
        return True


_Dumper.add_representer(Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|"))


def dump(*documents: dict[str, Any], notes: Sequence[str] = ()) -> str:
    """The documents in their order, with comments before them."""
    head = "".join(f"# {note}".rstrip() + "\n" for note in notes)
    parts = [yaml.dump(each, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000) for each in documents]
    return (head + "---\n".join(parts)).rstrip()
