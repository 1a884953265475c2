"""Models as a job finds them: whether the hub is needed, and what the container is shown."""

import json
from pathlib import Path

import pytest

from tests.support.job_script import bash


def make_model(store: Path, *files: str, index: tuple[str, ...] = ()) -> Path:
    folder = store / "hub/models--org--small/snapshots/abc"
    folder.mkdir(parents=True)
    (store / "hub/models--org--small/refs").mkdir()
    (store / "hub/models--org--small/refs/main").write_text("abc")
    for file in files:
        (folder / file).write_text("x")
    if index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(index, index[0])}))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {str(n): n for n in index}}))
    return folder


def complete(store: Path, model: str = "org/small") -> bool:
    script = f"declare -A settings=([LLM_VLLM_MODEL_NAME]='{model}'); models_dir={store}; model_is_complete"
    return bash(script, parts=["lib/models"]).returncode == 0


def test_a_model_that_is_all_there_needs_no_hub(tmp_path: Path) -> None:
    assert complete(tmp_path, "demo")
    assert complete(tmp_path, str(tmp_path))
    assert not complete(tmp_path)
    make_model(tmp_path, "config.json", "model.safetensors")
    assert complete(tmp_path)
    assert not complete(tmp_path, "org/other")


@pytest.mark.parametrize("lack", ["config", "weights", "shard", "incomplete", "dangling"])
def test_a_model_that_lacks_a_file_needs_the_hub(tmp_path: Path, lack: str) -> None:
    files = ["config.json", "a-1.safetensors", "a-2.safetensors"]
    shards = ("a-1.safetensors", "a-2.safetensors")
    if lack == "config":
        files.pop(0)
    if lack == "weights":
        files[1:], shards = [], ()
    if lack == "shard":
        files.pop()
    folder = make_model(tmp_path, *files, index=shards)
    if lack == "incomplete":
        (tmp_path / "hub/models--org--small/blobs").mkdir()
        (tmp_path / "hub/models--org--small/blobs/1.incomplete").touch()
    if lack == "dangling":
        (folder / "tokenizer.json").symlink_to("../../blobs/none")
    assert not complete(tmp_path)


def test_a_snapshot_of_the_hub_is_shown_with_the_files_that_it_links_to(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "config.json")
    script = f"declare -A settings=([LLM_VLLM_MODEL_NAME]='{folder}' [VLLM_TOKENIZER]=/no/such); model_paths"
    assert bash(script, parts=["lib/models"]).stdout == f"{tmp_path}/hub/models--org--small\n"


def test_a_squashfs_image_of_a_model_is_mounted_under_its_own_name(tmp_path: Path) -> None:
    image, tar = tmp_path / "model.squashfs", tmp_path / "model.tar"
    image.touch()
    tar.touch()
    script = (
        f"declare -A settings=([LLM_VLLM_MODEL_NAME]='{image}' [VLLM_TOKENIZER]='{tar}') site=();"
        f"models_dir={tmp_path} cache_dir={tmp_path} run_dir={tmp_path}; container_shared_binds"
    )
    lines = bash(script, parts=["lib/messages", "lib/models", "lib/container"]).stdout.splitlines()
    assert f"{image}:{image}:image-src=/" in lines
    assert f"{tar}:{tar}:ro" in lines
