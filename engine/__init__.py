"""The launcher inside every engine image: settings become `vllm serve …`. Standard library only."""
