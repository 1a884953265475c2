"""Starts vLLM's router with the engines' key, which comes as a file: on a command line everybody could read it."""

import sys
from pathlib import Path

from vllm_router.launch_router import main

KEY_FILE = Path("/run/secrets/vllm_api_key")

if __name__ == "__main__":
    key = KEY_FILE.read_text(encoding="utf-8").strip() if KEY_FILE.is_file() else ""
    sys.argv += ["--api-key", key] if key else []
    main()
