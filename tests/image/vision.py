"""Runs inside the image: what vision models need imports and works. Prints `seen` at the end."""

# mypy: disable-error-code="import-not-found"
import io

import cv2
import numpy
import torch
import torchvision.transforms as transforms
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

pixels = numpy.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=numpy.uint8)

# Image files, in and out, by both libraries that vLLM reads them with.
encoded = io.BytesIO()
Image.fromarray(pixels).save(encoded, "PNG")
picture = Image.open(encoded).convert("RGB")
decoded = cv2.imdecode(numpy.frombuffer(encoded.getvalue(), numpy.uint8), cv2.IMREAD_COLOR_RGB)
assert (decoded == pixels).all()
assert (numpy.asarray(picture) == pixels).all()

# torchvision's transforms, which InternVL, DeepSeek-OCR and others call.
small = transforms.Compose([transforms.Resize((28, 28)), transforms.ToTensor()])(picture)
assert small.shape == (3, 28, 28)

# Processors of Qwen2-VL (images, video) and CLIP, and a vision tower with random weights on top.
assert Qwen2VLImageProcessor()(picture, return_tensors="pt")["image_grid_thw"].tolist() == [[1, 6, 10]]
assert Qwen2VLVideoProcessor is not None
config = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
with torch.inference_mode():
    seen = CLIPVisionModel(config)(**CLIPImageProcessor()(picture, return_tensors="pt"))
assert seen.pooler_output.isfinite().all()
print("seen")
