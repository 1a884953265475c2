"""A relay built as OPEA's LLM services are: each chunk becomes an object of OpenAI's SDK and is dumped again.

Run by `door` with uvicorn; ENGINE names the engine's /v1.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from openai import AsyncOpenAI

app = FastAPI()
client = AsyncOpenAI(base_url=os.environ["ENGINE"], api_key="unused", max_retries=0)


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Any:
    """One chat, streamed or whole."""
    reply: Any = await client.chat.completions.create(**await request.json())
    if not hasattr(reply, "__aiter__"):
        return JSONResponse(reply.model_dump())

    async def events() -> AsyncIterator[str]:
        async for chunk in reply:
            yield f"data: {chunk.model_dump_json()}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
