"""How many workers a model is spread over, and how many of them run on this machine."""

from engine.decisions import Situation
from engine.messages import Problem

LOOPBACK = "127.0.0.1"  # vLLM's own --master-addr


def here(situation: Situation) -> int:
    """Workers on this machine. vLLM spreads them, those of all copies of the model, evenly over --nnodes machines."""
    copies = situation.number("data-parallel-size")
    nodes = situation.number("nnodes")
    if nodes == 1:
        return of_one_copy(situation) * max(1, situation.number("data-parallel-size-local", copies))
    return max(1, of_one_copy(situation) * copies // max(1, nodes))


def of_one_copy(situation: Situation) -> int:
    """Workers that share one copy of the model."""
    return max(1, situation.number("tensor-parallel-size") * situation.number("pipeline-parallel-size"))


def problems(situation: Situation) -> list[Problem]:
    """What vLLM would refuse of several machines after it was imported everywhere, or wait for until its time-out."""
    nodes, rank = situation.number("nnodes"), situation.number("node-rank", 0)
    workers = of_one_copy(situation) * situation.number("data-parallel-size")
    if nodes <= 1:
        return []
    found = []
    if workers % nodes:
        hint = f"set VLLM_TP_SIZE or VLLM_PP_SIZE so that {nodes} divides their product"
        found.append(Problem(f"VLLM_TP_SIZE x VLLM_PP_SIZE is {workers}, which {nodes} nodes cannot share", hint))
    if not 0 <= rank < nodes:
        found.append(Problem(f"VLLM_NODE_RANK={rank} of VLLM_NNODES={nodes}", f"ranks are 0 (the head) to {nodes - 1}"))
    if rank > 0 and "headless" not in situation.values:
        hint = "set VLLM_HEADLESS=true on every node but the head"
        found.append(Problem(f"VLLM_NODE_RANK={rank} serves no requests, and VLLM_HEADLESS is not set", hint))
    if "master-addr" not in situation.values:
        hint = f"set it to the address of node 0, the same on every node (here alone: {LOOPBACK})"
        found.append(Problem(f"VLLM_NNODES={nodes}, and VLLM_MASTER_ADDR is not set", hint))
    return found
