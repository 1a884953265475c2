"""How to talk to a deployment: lines that work as printed. The key is read from its file and never shown.

A key in curl's arguments would stand in the list of processes, which everybody on a login node can read.
"""

import json
import shlex
from pathlib import PurePath

QUESTION = "What is Deep Learning?"
MAX_TOKENS = 128


def curl(url: str, model: str, header_file: PurePath) -> str:
    """A curl line; `header_file` holds the line `Authorization: Bearer KEY`."""
    asked = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": MAX_TOKENS}
    body = shlex.quote(json.dumps(asked, ensure_ascii=False))
    header = shlex.quote(f"@{header_file}")
    return f"curl {url}/v1/chat/completions -H {header} -H 'Content-Type: application/json' -d {body}"


def openai(url: str, model: str, key_file: PurePath) -> str:
    """Python with the OpenAI client."""
    return f"""from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url={_quoted(f"{url}/v1")}, api_key=Path({_quoted(key_file)}).read_text().strip())
answer = client.chat.completions.create(
    model={_quoted(model)},
    messages=[{{"role": "user", "content": {_quoted(QUESTION)}}}],
    max_tokens={MAX_TOKENS},
)
print(answer.choices[0].message.content)"""


def litellm(url: str, model: str, key_file: PurePath) -> str:
    """Python with LiteLLM; `openai/` tells it which protocol to speak."""
    return f"""from pathlib import Path

import litellm

answer = litellm.completion(
    model={_quoted(f"openai/{model}")},
    api_base={_quoted(f"{url}/v1")},
    api_key=Path({_quoted(key_file)}).read_text().strip(),
    messages=[{{"role": "user", "content": {_quoted(QUESTION)}}}],
    max_tokens={MAX_TOKENS},
)
print(answer.choices[0].message.content)"""


def facts(url: str, model: str, key_file: PurePath, header_file: PurePath) -> dict[str, str]:
    """All three, as `--json` prints them."""
    return {
        "curl": curl(url, model, header_file),
        "openai": openai(url, model, key_file),
        "litellm": litellm(url, model, key_file),
    }


def words(url: str, model: str, key_file: PurePath, header_file: PurePath) -> str:
    """All three, as a person reads them: each can be copied whole."""
    return "\n".join(
        (
            "# In a terminal:",
            curl(url, model, header_file),
            "",
            "# In Python, with the OpenAI client (pip install openai):",
            openai(url, model, key_file),
            "",
            "# In Python, with LiteLLM (pip install litellm):",
            litellm(url, model, key_file),
        )
    )


def _quoted(value: object) -> str:
    """A Python string, in double quotes. JSON's are Python's, too."""
    return json.dumps(str(value))
