"""How a model is spread over nodes, as far as its settings say: what each node is asked for."""

from berth.deployment import Deployment
from berth.errors import Exit, failed

NODES, GPUS_PER_NODE = "BERTH_NODES", "BERTH_GPUS_PER_NODE"


def number(deployment: Deployment, *settings: str) -> int | None:
    """The first of these settings that is set. Raises BerthError (exit code 2) where it is no whole number from 1."""
    for name in settings:
        if text := deployment.value(name):
            if not (text.isascii() and text.isdigit() and int(text) > 0):
                raise failed(
                    f"{deployment.where(name)}{name}={text}: not a whole number from 1", "write 2", Exit.BAD_SETTING
                )
            return int(text)
    return None


def gpus_per_node(deployment: Deployment, nodes: int) -> int:
    """How many devices each node is asked for: TP x PP x DP over the nodes; 0 for cpu.

    Raises BerthError (exit code 2) where that does not divide, or BERTH_GPUS_PER_NODE is too few.
    """
    tensor = number(deployment, "VLLM_TP_SIZE", "VLLM_TENSOR_PARALLEL_SIZE") or 1
    pipeline = number(deployment, "VLLM_PP_SIZE", "VLLM_PIPELINE_PARALLEL_SIZE") or 1
    data = number(deployment, "VLLM_DATA_PARALLEL_SIZE") or 1
    ranks, given = tensor * pipeline * data, number(deployment, GPUS_PER_NODE)
    shape = f"tensor parallel {tensor} x pipeline parallel {pipeline} x data parallel {data} is {ranks}"
    if ranks % nodes:
        raise failed(
            f"{shape}, which {nodes} nodes cannot share evenly",
            f"set VLLM_TP_SIZE or VLLM_PP_SIZE so that {nodes} divides their product, or give another --nodes",
            Exit.BAD_SETTING,
        )
    if deployment.device == "cpu":
        return 0
    if given and given * nodes < ranks:
        raise failed(
            f"{deployment.where(GPUS_PER_NODE)}{GPUS_PER_NODE}={given} on {nodes} nodes is too few: {shape}",
            f"leave {GPUS_PER_NODE} out, or raise it to {ranks // nodes}",
            Exit.BAD_SETTING,
        )
    return given or ranks // nodes
