"""Names that Kubernetes, KServe and SAP AI Core accept, made of a model's name."""

import re

from berth.deployment import slug

# KServe adds words such as -predictor-00001 to an InferenceService's name, and the whole is a label of at most 63.
_LONGEST = 40


def label(model: str) -> str:
    """`meta-llama/Llama-3.1-8B` is `llama-3-1-8b`: a name that begins with a letter and holds neither dots nor _."""
    plain = re.sub(r"[^a-z0-9]+", "-", slug(model)).strip("-")
    return (plain if plain[:1].isalpha() else f"m-{plain}")[:_LONGEST].rstrip("-")


def template(model: str, revision: str) -> str:
    """A serving template's name: the model's, and the first seven characters of its revision where one is pinned."""
    return "-".join(filter(None, (label(model), re.sub(r"[^a-z0-9]+", "", revision.lower())[:7])))


def flat(model: str) -> str:
    """`tiiuae/falcon-7b-instruct` is `tiiuae--falcon-7b-instruct`: the name of a packed model."""
    return model.replace("/", "--")


def artifact(model: str) -> str:
    """`tiiuae/falcon-7b-instruct` is `tiiuae_falcon_7b_instruct`: AI Core wants letters, digits and _ alone."""
    return re.sub(r"[^a-z0-9]+", "_", model.lower()).strip("_")
