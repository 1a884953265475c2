"""Names that mean something to the engine, and what to say of one that does not."""

from difflib import get_close_matches

from engine import devices, names
from engine.catalog import Catalog
from engine.messages import Problem


def known_names(catalog: Catalog, device: str) -> list[str]:
    """Every name that means something to the engine on this device: settings, vLLM's variables, the device's, ours."""
    module = devices.load(device)
    own = {*names.OWN, *names.ALIASES, names.HF_TOKEN, names.HF_TOKEN_PATH, names.API_KEY}
    return sorted({*catalog.by_setting, *catalog.variables, *module.VARIABLES, *module.STALE, *own})


def problem(name: str, catalog: Catalog, device: str) -> Problem:
    for owner in devices.names():
        other = devices.load(owner)
        if name in other.VARIABLES:
            return Problem(f"{name}: only {owner} has this setting", other.ELSEWHERE.get(name, "leave it out"))
    known = known_names(catalog, device)
    near = get_close_matches(name, known, n=1)
    if not near and name.startswith("LLM_VLLM_"):
        near = [setting for setting in [name.removeprefix("LLM_")] if setting in known]
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"docs/settings.md lists every setting; what no name covers goes into {names.EXTRA_ARGS}"
    )
    return Problem(f"{name}: no such setting", hint)
