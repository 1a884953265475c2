"""A tar file unpacked so that nothing of it lands outside of the folder."""

import os
import tarfile
from pathlib import Path


def extract(pack: Path, folder: Path) -> None:
    """Unpack files, folders and links. Raises tarfile.TarError, also for what leads out of the folder, and OSError."""
    with tarfile.open(pack) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
            return
        # Debian 12's Python, 3.11.2, has no filters.
        root = folder.resolve()
        for member in tar:
            if not _stays(member, root):
                raise tarfile.ExtractError(f"{member.name} leads out of the folder, or is no file")
            tar.extract(member, root, set_attrs=False)


def _stays(member: tarfile.TarInfo, root: Path) -> bool:
    """Whether a member ends up below the root: by its name, by links that are there already, and by its own."""
    places = [root / member.name]
    if member.issym():
        places.append(places[0].parent / member.linkname)
    elif member.islnk():
        places.append(root / member.linkname)
    elif not (member.isreg() or member.isdir()):
        return False
    return all(Path(os.path.realpath(place)).is_relative_to(root) for place in places)
