"""Makes a model smaller: by llm-compressor for CUDA and CPU, by Intel Neural Compressor for Gaudi.

Neither runs where vLLM serves: llm-compressor pins libraries that vLLM pins otherwise, so it has an environment or an
image of its own (engine/quantize/install.sh); Gaudi's calibration runs in the serving image, before it serves.
"""
