"""What Ray is told of a node, and what vLLM on its head is told of Ray."""

from tests.support.job_script import bash


def test_ray_is_told_of_as_many_devices_as_vllm_has_ranks() -> None:
    say = 'device_ray 8; printf "%s\\n" "${ray_args[@]}"'
    assert bash(say, parts=("devices/cuda",)).stdout.split() == ["--num-gpus", "8"]
    assert bash(say, parts=("devices/hpu",)).stdout.splitlines() == ["--resources", '{"HPU": 8}']


def test_vllms_own_way_over_nodes_is_taken_back_where_ray_spans_them() -> None:
    script = """
        setting_prefix=APPTAINERENV_
        setting VLLM_NNODES 2; setting VLLM_MASTER_ADDR 10.0.0.1; setting VLLM_TP_SIZE 16
        ray_head_environ
        env | grep ^APPTAINERENV_ | sort
    """
    said = bash(script, parts=("lib/messages", "lib/container", "lib/ray")).stdout.split()
    assert said == ["APPTAINERENV_VLLM_DISTRIBUTED_EXECUTOR_BACKEND=ray", "APPTAINERENV_VLLM_TP_SIZE=16"]
