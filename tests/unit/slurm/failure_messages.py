"""What programs really say when they fail, and what is made of it."""

_CORE = "(EngineCore pid=77) ERROR 11-21 10:58:18 [core.py:1512] "

# (message, words of the sentence, words of the hint); where a message comes from: a run in the lab or here (run),
# vLLM's source (src), or a public thread.
MESSAGES = [
    (  # src, and vllm#34076
        _CORE + "ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is"
        " needed, which is larger than the available KV cache memory (9.04 GiB). Based on the available memory, the"
        " estimated maximum model length is 74080. Try increasing `gpu_memory_utilization` (which also controls CPU"
        " memory on the CPU backend) or decreasing `max_model_len` when initializing the engine.",
        "131072 tokens needs 16.0 GiB of KV cache, and 9.04 GiB is left",
        "VLLM_MAX_MODEL_LEN=74080",
    ),
    (  # deepseek-ai/DeepSeek-V2#83
        "ValueError: The model's max seq len (163840) is larger than the maximum number of tokens that can be stored in"
        " KV cache (13360). Try increasing gpu_memory_utilization or decreasing max_model_len",
        "no room for the KV cache",
        "VLLM_MAX_MODEL_LEN",
    ),
    (  # src
        _CORE + "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when",
        "no room for the KV cache",
        "VLLM_GPU_MEMORY_UTILIZATION",
    ),
    (  # src
        "ValueError: Free memory on device cuda:0 (8.51/79.15 GiB) on startup is less than desired GPU memory"
        " utilization (0.9, 71.23 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
        "8.51 of 79.15 GiB is free",
        "SITE_GRES",
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of 79.15"
        " GiB of which 1.12 GiB is free.",
        "memory of a GPU is used up",
        "VLLM_TP_SIZE",
    ),
    (  # nextflow-io/nextflow#5932
        "slurmstepd: error: Detected 1 oom_kill event in StepId=11300781.0. Some of the step tasks have been OOM"
        " Killed.",
        "more memory than it was given",
        "SITE_MEM",
    ),
    ("srun: error: n1: task 0: Out Of Memory", "more memory than it was given", "SITE_MEM"),
    (  # hafs-community/HAFS#101
        "slurmstepd: error: Detected 1 oom-kill event(s) in step 3495064.0 cgroup.",
        "more memory than it was given",
        "SITE_MEM",
    ),
    (  # src
        "(MainProcess pid=9) ERROR 11-21 10:59:33 [multiproc_executor.py:315] Worker proc VllmWorker-1 died"
        " unexpectedly (exit code: -9), shutting down executor.",
        "a worker was killed",
        "SITE_MEM",
    ),
    (  # McGill-NLP/llm2vec#130
        "OSError: You are trying to access a gated repo.\n401 Client Error. (Request ID: Root=1-66a71178)\n\nCannot"
        " access gated repo for url https://huggingface.co/mistralai/Mistral-7B-Instruct-v0.2/resolve/main/config.json."
        "\nAccess to model mistralai/Mistral-7B-Instruct-v0.2 is restricted. You must be authenticated to access it.",
        "the model mistralai/Mistral-7B-Instruct-v0.2 is gated",
        "HF_TOKEN",
    ),
    (
        "huggingface_hub.errors.GatedRepoError: 403 Client Error. (Request ID: Root=1-66f4b037)",
        "the model is gated, and the token",
        "licence",
    ),
    (
        "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error.\n\nRepository Not Found for url:"
        " https://huggingface.co/api/models/org/mistyped.",
        "the hub has no model",
        "spelling",
    ),
    (
        "OSError: org/mistyped is not a local folder and is not a valid model identifier listed on"
        " 'https://huggingface.co/models'",
        "the hub has no model org/mistyped that",
        "spelling",
    ),
    (
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the"
        " cached files.",
        "reaches no hub",
        "login node",
    ),
    (  # src
        "ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: dict_k",
        "does not know the model's architecture, FooForCausalLM",
        "newer vLLM",
    ),
    (  # run
        "  Value error, Total number of attention heads (2) must be divisible by tensor parallel size (3). [type=value",
        "VLLM_TP_SIZE=3 does not divide the model's 2 attention heads",
        "VLLM_TP_SIZE",
    ),
    (  # run
        "  Value error, User-specified max_model_len (9999999) is greater than the derived max_model_len"
        " (max_position_embeddings=2048.0 or model_max_length=None in model's config.json).",
        "VLLM_MAX_MODEL_LEN=9999999 is more than the 2048 tokens",
        "VLLM_MAX_MODEL_LEN=2048",
    ),
    (  # src
        "ValueError: Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
        "program code of its own",
        "VLLM_TRUST_REMOTE_CODE=true",
    ),
    ("OSError: [Errno 122] Disk quota exceeded: '/scratch/alice/berth/models'", "quota is used up", "SITE_SCRATCH"),
    ("OSError: [Errno 28] No space left on device", "a disk is full", "SITE_SCRATCH"),
    (  # vllm#1710 and others
        "OSError: [Errno 28] No space left on device: '/psm_3f0a1c2b'",
        "shared memory (/dev/shm) is missing on the node, or full",
        "SITE_MEM",
    ),
    (
        "RuntimeError: unable to write to file </torch_77_13_0>: No space left on device (28)",
        "shared memory (/dev/shm)",
        "SITE_MEM",
    ),
    (
        "NCCL WARN Error while creating shared memory segment /dev/shm/nccl-Qx7 (size 9637888)",
        "shared memory (/dev/shm)",
        "SITE_MEM",
    ),
    (  # llm-d/llm-d#706
        _CORE + "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before"
        " calling NumCudaDevices() that might have already set an error? Error 803: system has unsupported display"
        " driver / cuda driver combination",
        "driver is too old",
        "VLLM_ENABLE_CUDA_COMPATIBILITY=1",
    ),
    (  # gpustack/gpustack#1540
        "ERROR 03-26 05:25:01 engine.py:389] Error 804: forward compatibility was attempted on non supported HW",
        "driver is too old",
        "VLLM_ENABLE_CUDA_COMPATIBILITY=1",
    ),
    (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12020).",
        "driver is too old",
        "newer driver",
    ),
    ("RuntimeError: No CUDA GPUs are available", "no GPU can be used", "SITE_GRES"),
    (  # vllm#19185
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        "GPU is older",
        "SITE_CONSTRAINT",
    ),
    (  # src
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla V100 GPU"
        " has compute capability 7.0.",
        "GPU is older",
        "SITE_CONSTRAINT",
    ),
    (  # vllm#2734
        "[rank0]:[E ProcessGroupNCCL.cpp:563] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=2,"
        " OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600059 milliseconds before timing out.",
        "NCCL operation failed or timed out",
        "SITE_INTERFACE",
    ),
    (  # run
        "RuntimeError: [enforce fail at /pytorch/third_party/gloo/gloo/transport/tcp/device.cc:84] ifa != nullptr."
        " Unable to find address for: ib7",
        "no such network interface: ib7",
        "SITE_INTERFACE",
    ),
    (  # gpustack/gpustack#4128
        "RuntimeError: [enforce fail at device.cc:212] ifa != nullptr. Unable to find interface for: [0.0.0.189]",
        "no such network interface: 0.0.0.189",
        "SITE_INTERFACE",
    ),
    (  # vllm#7074
        "[rank8]:[E ProcessGroupGloo.cpp:144] Gloo connectFullMesh failed with [gloo/transport/tcp/pair.cc:144]",
        "did not find each other",
        "SITE_INTERFACE",
    ),
    (  # run
        "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.",
        "did not find each other",
        "SITE_INTERFACE",
    ),
    (  # run
        "torch.distributed.DistNetworkError: The client socket has timed out after 600000ms while trying to connect to"
        " (10.0.0.1, 20489).",
        "did not find each other",
        "SITE_INTERFACE",
    ),
    (  # run
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port:"
        " 21336, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
        "a port was taken",
        "other ports",
    ),
    ("OSError: [Errno 98] Address already in use", "a port was taken", "other ports"),  # run
    (  # run
        "INFO   : A system administrator may need to enable user namespaces, install\n"
        "INFO   :   apptainer-suid, or compile with ./mconfig --with-suid\n"
        "\x1b[91mERROR  : Failed to create user namespace: not allowed to create user namespace",
        "user namespaces are switched off",
        "max_user_namespaces",
    ),
    (  # run
        "FATAL:   container creation failed: image driver mount failure: image driver squashfuse_ll instance exited"
        " with error: squashfuse_ll exited: fuse: device /dev/fuse not found. Kernel module not loaded?",
        "FUSE is off",
        "/dev/fuse",
    ),
    (  # apptainer/apptainer#2324
        "FATAL:   container creation failed: image driver mount failure: image driver squashfuse_ll instance exited"
        " with error: squashfuse_ll exited: fusermount3: mount failed: Operation not permitted",
        "FUSE is off",
        "/dev/fuse",
    ),
    (  # run
        "FATAL:   While checking container encryption: could not open image /shared/x.sif: failed to retrieve path",
        "the image /shared/x.sif cannot be opened",
        "scripts/berth sif",
    ),
    (
        "FATAL:   container creation failed: mount hook function failure: mount /data->/data error: while mounting"
        " /data: mount source /data doesn't exist",
        "not there on the node: /data",
        "SITE_BIND",
    ),
    (
        "FATAL:   While checking image: the image's architecture (arm64) could not run on the host's (amd64)",
        "another kind of processor",
        "SITE_CONSTRAINT",
    ),
    (  # ZettaAI/zetta_utils#671
        "slurmstepd: error: *** JOB 494583 ON n1 CANCELLED AT 2024-04-20T09:09:37 DUE TO TIME LIMIT ***",
        "time limit",
        "--keep-alive",
    ),
    (
        "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2024-04-20T09:09:37 DUE TO PREEMPTION ***",
        "goes before it",
        "SITE_QOS",
    ),
    ("srun: error: n1: task 0: Bus error", "taken away", "berth stop"),
]
