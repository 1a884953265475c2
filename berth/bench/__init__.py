"""`berth bench`: vLLM's own benchmarks against what runs, their results kept and compared."""
