"""The service on :9000: it speaks OpenAI's and OPEA's chat dialects and relays them to vLLM.

Importing this package reads no environment and opens nothing; `python -m llm_service` does both.
"""

__version__ = "0.1.0"
