"""Limits are read from control groups of both versions, and CPUs from the kernel's topology."""

from pathlib import Path

import pytest

from engine import cpu_threads, host
from engine.host import Cpu


def files(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def tree(root: Path, texts: dict[str, str]) -> Path:
    return files(root, **texts)


V2 = {"proc/self/cgroup": "0::/\n", "proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n"}
V1 = {"proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n", "proc/meminfo": V2["proc/meminfo"]}


def test_version_2_quota(tmp_path: Path) -> None:
    assert host.cpu_quota(tree(tmp_path, {**V2, "sys/fs/cgroup/cpu.max": "150000 100000\n"})) == 1.5


@pytest.mark.parametrize("text", ["max 100000\n", "", "rubbish"])
def test_no_version_2_quota(tmp_path: Path, text: str) -> None:
    assert host.cpu_quota(tree(tmp_path, {**V2, "sys/fs/cgroup/cpu.max": text})) is None


def test_the_lowest_quota_of_the_groups_above_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/container\n",
            "sys/fs/cgroup/pod/cpu.max": "200000 100000",
            "sys/fs/cgroup/pod/container/cpu.max": "300000 100000",
        },
    )
    assert host.cpu_quota(root) == 2.0


def test_version_1_quota_where_the_hosts_path_is_not_visible(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {**V1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
    )
    assert host.cpu_quota(root) == 4.0
    files(root, **{"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"})
    assert host.cpu_quota(root) is None


def test_memory_limits_of_both_versions(tmp_path: Path) -> None:
    two = tree(
        tmp_path / "two",
        {
            **V2,
            "sys/fs/cgroup/memory.max": str(4 << 30),
            "sys/fs/cgroup/memory.current": str(2 << 30),
            "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {1 << 30}\n",
        },
    )
    assert host.memory_limit(two) == 4 << 30
    assert host.memory_available(two) == 3 << 30
    one = tree(tmp_path / "one", {**V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": str(1 << 30)})
    assert host.memory_limit(one) == 1 << 30


def test_a_limit_above_the_machines_memory_is_none(tmp_path: Path) -> None:
    root = tree(tmp_path, {**V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"})
    assert host.memory_limit(root) is None
    assert host.memory_available(root) == 4 << 30


def test_topology(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0,2",
            "sys/devices/system/cpu/cpu2/topology/thread_siblings_list": "0,2",
            "sys/devices/system/cpu/cpu2/node1/x": "",
        },
    )
    assert host.cpus({0, 2, 5}, root) == [Cpu(0, 0, 0), Cpu(2, 0, 1), Cpu(5, 5, 0)]


def machine(cores: int, threads: int = 2, nodes: int = 1) -> list[Cpu]:
    """Logical CPU numbers as Linux gives them: the second threads of all cores come last."""
    return [
        Cpu(core + thread * cores, core, core * nodes // cores) for thread in range(threads) for core in range(cores)
    ]


@pytest.fixture(autouse=True)
def _on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def test_without_a_quota_vllm_binds_by_itself() -> None:
    assert cpu_threads.bind(machine(32), None, 1) is None
    assert cpu_threads.bind(machine(4), 8.0, 1) is None


def test_a_quota_takes_the_first_physical_cores_and_leaves_one_to_the_front_end() -> None:
    assert cpu_threads.bind(machine(32), 8.0, 1) == [[32, 33, 34, 35, 36, 37, 38]]


def test_the_front_ends_share_may_be_said() -> None:
    assert cpu_threads.bind(machine(32), 4.0, 1, reserved=0) == [[32, 33, 34, 35]]
    assert cpu_threads.bind(machine(32), 4.0, 1, reserved=3) == [[32]]


def test_a_quota_of_one_cpu_or_less_still_gives_a_thread() -> None:
    assert cpu_threads.bind(machine(4), 1.0, 1) == [[4]]
    assert cpu_threads.bind(machine(4), 0.5, 1) == [[4]]


def test_workers_share_what_the_quota_allows() -> None:
    lists = cpu_threads.bind(machine(16, threads=1, nodes=2), 8.0, 2)
    assert lists == [[0, 1, 2], [3, 4, 5]]
    assert cpu_threads.as_setting(lists) == "0,1,2|3,4,5"


def test_more_workers_than_numa_nodes_are_bound_by_hand() -> None:
    assert cpu_threads.bind(machine(4, threads=1), None, 2) == [[0], [1]]
    assert cpu_threads.bind(machine(1, threads=1), None, 2) == [[0], [0]]
