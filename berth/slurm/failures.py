"""What is known to go wrong under Slurm, and what a log says then: each with one sentence and its remedy.

Causes stand first: of what is found in a log, the one that stands highest here counts.
"""

import re
from dataclasses import dataclass

from berth.errors import Exit


@dataclass(frozen=True)
class Known:
    """A failure: what it looks like, what it is, and what helps. `{name}` in the texts is the pattern's group."""

    pattern: re.Pattern[str]
    sentence: str
    hint: str
    exit_code: Exit = Exit.FAILED


def _known(pattern: str, sentence: str, hint: str, exit_code: Exit = Exit.FAILED) -> Known:
    return Known(re.compile(pattern, re.MULTILINE), sentence, hint, exit_code)


_LESS = "lower VLLM_MAX_MODEL_LEN or VLLM_MAX_NUM_SEQS, raise VLLM_TP_SIZE, or serve a smaller or quantised model"
_DRIVER = "use a node with a newer driver, or on a data-centre GPU set VLLM_ENABLE_CUDA_COMPATIBILITY=1"
_INTERFACE = (
    "set SITE_INTERFACE in the site file to the interface that joins the nodes (`ip -4 addr` on a node lists them)"
)
_NEEDS, _SETTING = Exit.MISSING_PREREQUISITE, Exit.BAD_SETTING

_SLURM = (
    _known(
        r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ DUE TO TIME LIMIT",
        "Slurm ended the job at its time limit",
        "give a longer --time, or --keep-alive so that a successor takes over",
    ),
    _known(
        r"CANCELLED AT \S+ DUE TO PREEMPTION",
        "Slurm gave the job's nodes to a job that goes before it",
        "it starts again by itself; a QOS or partition that is not preempted avoids it (SITE_QOS, SITE_PARTITION)",
    ),
    _known(
        r"CANCELLED AT \S+ DUE TO NODE FAILURE|Node failure on ",
        "a node of the job failed",
        "it starts again by itself; `sinfo -R` says what is wrong with the node",
    ),
    _known(
        r"Detected \d+ oom[_-]kill event|task \d+: Out Of Memory|exceeded (?:job|step) memory limit",
        "the job needed more memory than it was given, and the kernel ended it",
        "ask for more with SITE_MEM in the site file (--mem); VLLM_MAX_MODEL_LEN and VLLM_MAX_NUM_SEQS lower the need",
    ),
)
_CONTAINER = (
    _known(
        r"[Ff]ailed to create user namespace|unprivileged user ?namespaces? (?:are|is) (?:disabled|not)|"
        r"no space left on device.*user namespace|newuidmap.*not found",
        "Apptainer cannot start the image here: user namespaces are switched off",
        "ask the cluster's support for user.max_user_namespaces above 0, or for Apptainer with setuid (apptainer-suid)",
        _NEEDS,
    ),
    _known(
        r"squashfuse\S* exited|fusermount3?: .*(?:not permitted|failed)|fuse: (?:device|failed to open|mount)|"
        r"/dev/fuse.*(?:not found|denied|No such)",
        "Apptainer cannot mount the image here: FUSE is off, or /dev/fuse is not open to everyone",
        "ask the cluster's support for /dev/fuse; an image unpacked with `apptainer build --sandbox` runs without it",
        _NEEDS,
    ),
    _known(
        r"image's architecture \((?P<image>\w+)\) could not run on the host's \((?P<host>\w+)\)|[Ee]xec format error",
        "the image is for another kind of processor than this node has",
        "make it on a machine of the same kind, or choose other nodes with SITE_CONSTRAINT",
        _NEEDS,
    ),
    _known(
        r"FATAL:.*could not open image (?P<image>\S+?):",
        "the image {image} cannot be opened on the node",
        "see that the nodes mount that file system, or make the image anew: scripts/berth sif",
        _NEEDS,
    ),
    _known(
        r"FATAL:.*\bmount source (?P<path>/[^\s:]+) doesn't exist",
        "a directory that the image is to see is not there on the node: {path}",
        "correct SITE_BIND, SITE_SCRATCH or SITE_MODELS in the site file",
        _NEEDS,
    ),
)
_MODEL = (
    *(
        _known(
            pattern,
            "the model {model} is gated, and the token may not read it",
            "accept its licence on its page on the hub, and set HF_TOKEN to a token of the same account",
            _SETTING,
        )
        for pattern in (
            r"(?:Access to model|Repo model) (?P<model>[\w./-]+) is (?:restricted|gated)",
            r"(?P<model>)(?:GatedRepoError|[Cc]annot access gated repo|access(?:ing)? a gated repo)",
        )
    ),
    _known(
        r"RepositoryNotFoundError|Repository Not Found for url: \S*?/(?:api/models/)?(?P<model>[\w.-]+/[\w.-]+)|"
        r"(?P<name>\S+) is not a local folder and is not a valid model identifier",
        "the hub has no model {model}{name} that this account may see",
        "check LLM_VLLM_MODEL_NAME's spelling; a private model needs HF_TOKEN",
        _SETTING,
    ),
    _known(
        r"OfflineModeIsEnabled|LocalEntryNotFoundError|We couldn't connect to '(?P<hub>[^']+)' to load",
        "the model is not complete on the shared file system, and the node reaches no hub",
        "download it on the login node first (HF_HOME is SITE_MODELS, or models/ in the store), then start again",
        _NEEDS,
    ),
    _known(
        r"Model architectures? \[?'?(?P<arch>\w+)[^\n]{0,200}? (?:are|is) not supported (?:for now|in-tree)",
        "this vLLM does not know the model's architecture, {arch}",
        "serve another model, or use an image with a newer vLLM",
        _SETTING,
    ),
    _known(
        r"trust_remote_code=True|requires you to execute the (?:configuration|modeling) file",
        "the model brings program code of its own, which is not run unless you say so",
        "read that code, then set VLLM_TRUST_REMOTE_CODE=true",
        _SETTING,
    ),
    _known(
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<size>\d+)\)",
        "VLLM_TP_SIZE={size} does not divide the model's {heads} attention heads",
        "set VLLM_TP_SIZE to a number that does: 1, 2, 4 and 8 are usual",
        _SETTING,
    ),
    _known(
        r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len \(\w+=(?P<most>\d+)",
        "VLLM_MAX_MODEL_LEN={asked} is more than the {most} tokens that the model was made for",
        "set VLLM_MAX_MODEL_LEN={most} or less",
        _SETTING,
    ),
)
_GPU = (
    _known(
        r"max seq len \((?P<asked>\d+)\), \((?P<need>[\d.]+) GiB KV cache is needed.*?KV cache memory "
        r"\((?P<free>[\d.]+) GiB\)\..*?estimated maximum model length is (?P<most>\d+)",
        "a request of {asked} tokens needs {need} GiB of KV cache, and {free} GiB is left beside the weights",
        "set VLLM_MAX_MODEL_LEN={most} or less, or raise VLLM_GPU_MEMORY_UTILIZATION or VLLM_TP_SIZE",
        _SETTING,
    ),
    _known(
        r"No available memory for the cache blocks|larger than the (?:available KV cache|maximum number of tokens)",
        "beside the weights there is no room for the KV cache",
        f"raise VLLM_GPU_MEMORY_UTILIZATION (up to 0.95); else {_LESS}",
        _SETTING,
    ),
    _known(
        r"Free memory on device \S* ?\((?P<free>[\d.]+)/(?P<all>[\d.]+) GiB\) on startup is less than desired",
        "another program holds memory of the GPU: {free} of {all} GiB is free",
        "ask Slurm for whole GPUs (SITE_GRES, --exclusive), or lower VLLM_GPU_MEMORY_UTILIZATION",
    ),
    _known(
        r"OutOfMemoryError|CUDA out of memory|PT_DEVMEM.*[Aa]llocation failed|HIP out of memory",
        "the memory of a GPU is used up",
        f"{_LESS}; VLLM_GPU_MEMORY_UTILIZATION=0.85 leaves more for everything but the KV cache",
        _SETTING,
    ),
    _known(
        r"no kernel image is available|with CUDA capability sm_(?P<arch>\d+) is not compatible|"
        r"only supported on GPUs with compute capability of at least|not supported on (?:this|your) GPU",
        "the GPU is older than this vLLM supports",
        "choose newer GPUs with SITE_CONSTRAINT or SITE_GRES; compute capability 8.0 (A100) and up serves every preset",
        _NEEDS,
    ),
    _known(
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient|Error 80[34]: |"
        r"unsupported display driver|forward compatibility was attempted",
        "the node's NVIDIA driver is too old for the CUDA release in the image",
        _DRIVER,
        _NEEDS,
    ),
    _known(
        r"no CUDA-capable device|No CUDA GPUs are available|Failed to infer device type|CUDA unknown error|"
        r"Found no NVIDIA driver",
        "no GPU can be used on the node",
        "see that the job asks for GPUs (SITE_GRES), and that `nvidia-smi` works on that node",
        _NEEDS,
    ),
)
_DISK = (
    _known(
        r"(?:[Dd]isk quota exceeded|Errno 122)",
        "your disk quota is used up",
        "set SITE_SCRATCH to a file system with room, or delete what is not needed: scripts/berth gc",
        _NEEDS,
    ),
    _known(
        r"shared memory segment /dev/shm|unable to (?:open shared memory object|write to file) </\w+|"
        r"out of shared memory|(?:No space left on device|No such file or directory): '/psm_",
        "shared memory (/dev/shm) is missing on the node, or full",
        "it counts towards the job's memory: raise SITE_MEM (--mem); files of dead jobs there can be deleted",
        _NEEDS,
    ),
    _known(
        r"No space left on device|Errno 28\b",
        "a disk is full",
        "see the log for which: /tmp of the node, or the file system of SITE_SCRATCH",
        _NEEDS,
    ),
)
_NETWORK = (
    _known(
        r"Address already in use|EADDRINUSE|address already in use",
        "a port was taken by somebody else between the job's looking and its listening",
        "start it again: the next job has other ports",
    ),
    _known(
        r"[Uu]nable to find (?:address|interface) for: ?\[?(?P<name>[^\s\]]+)|no socket interface found",
        "the nodes have no such network interface: {name}",
        _INTERFACE,
        _SETTING,
    ),
    _known(
        r"connectFullMesh failed|\d+/\d+ clients joined|client socket has timed out",
        "the nodes did not find each other in time",
        _INTERFACE,
    ),
    _known(
        r"Watchdog caught collective operation timeout|ncclSystemError|ncclRemoteError|NCCL error|ncclInternalError",
        "the nodes' GPUs lost each other: an NCCL operation failed or timed out",
        f"{_INTERFACE}; NCCL_DEBUG=INFO in the environment of sbatch tells which network is used",
    ),
)
_LAST = (
    _known(
        r"Worker proc \S+ died unexpectedly \(exit code: -9\)|died unexpectedly.*exit code:? -9",
        "a worker was killed, as the kernel does when memory is used up",
        "ask for more memory with SITE_MEM in the site file (--mem)",
    ),
    _known(
        r"[Bb]us error",
        "what the engine had in memory was taken away: /dev/shm is full, or the image was unmounted under it",
        "raise SITE_MEM, and end jobs with scripts/berth stop: plain scancel takes the image away first",
    ),
    _known(
        r"Connection (?:closed|reset) by peer \[(?P<host>[\d.]+)\]|remote worker crashing",
        "the engine on another node ended first",
        "its own log, engine-<rank>.log beside this one, says why",
    ),
)
KNOWN = (*_SLURM, *_CONTAINER, *_MODEL, *_GPU, *_DISK, *_NETWORK, *_LAST)
# What helps without Slurm, too, speaks of no site file.
EVERYWHERE = tuple(known for known in (*_MODEL, *_GPU) if "SITE_" not in known.hint)
