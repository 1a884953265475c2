"""Where tokens and places come from for verbs that need no env file: the shell, and env/local.env below it."""

import os
from collections.abc import Mapping


def environment() -> Mapping[str, str]:
    """The shell, and below it what env/local.env says: tokens and places."""
    from berth import envfiles
    from berth.deployment import LOCAL
    from berth.paths import ROOT

    local = envfiles.read(ROOT / LOCAL) if (ROOT / LOCAL).is_file() else {}
    return {**{name: setting.value for name, setting in local.items() if setting.value}, **os.environ}
