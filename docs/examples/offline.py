"""vLLM's offline engine from Python: questions in, answers out, no server. See docs/batch.md for how to run it."""

import sys

from vllm import LLM, SamplingParams

if __name__ == "__main__":  # vLLM's workers import this file again
    questions = ["Who are you?", "What is Deep Learning?"]
    llm = LLM(model=sys.argv[1], max_model_len=512)
    chats = [[{"role": "user", "content": question}] for question in questions]
    for question, answer in zip(questions, llm.chat(chats, SamplingParams(max_tokens=64)), strict=True):
        print(f"{question} {answer.outputs[0].text}")
