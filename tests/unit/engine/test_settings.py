"""Names and values: what becomes a flag, what stays a variable, and what is refused."""

from pathlib import Path

import pytest

from engine import catalog, settings
from tests.unit.engine.conftest import Read


def sentences(reading: settings.Reading) -> str:
    return "\n".join(f"{problem.sentence} | {problem.hint}" for problem in reading.problems)


def test_a_setting_is_the_flag_of_its_name(read: Read) -> None:
    assert read(VLLM_MAX_MODEL_LEN="4096").args() == ["--max-model-len", "4096"]


@pytest.mark.parametrize(
    ("value", "words"),
    [("true", ["--enforce-eager"]), ("ON", ["--enforce-eager"]), ("0", ["--no-enforce-eager"]), ("", [])],
)
def test_a_switch_takes_words_for_true_and_false_and_empty_means_unset(
    read: Read, value: str, words: list[str]
) -> None:
    assert read(VLLM_ENFORCE_EAGER=value).args() == words


def test_the_negative_spelling_of_a_switch_is_a_setting_too(read: Read) -> None:
    assert read(VLLM_NO_ENFORCE_EAGER="true").args() == ["--no-enforce-eager"]
    assert read(VLLM_NO_ENFORCE_EAGER="false").args() == ["--enforce-eager"]


def test_json_passes_literally(read: Read) -> None:
    value = '{"mode": 3, "splitting_ops": ["a b", "$HOME"]}'
    assert read(VLLM_COMPILATION_CONFIG=value).args() == ["--compilation-config", value]


def test_a_list_is_split_as_a_shell_would(read: Read) -> None:
    assert read(VLLM_SERVED_MODEL_NAME="one 'two words'").args() == ["--served-model-name", "one", "two words"]
    assert read(VLLM_MIDDLEWARE="a.b c.d").args() == ["--middleware", "a.b", "--middleware", "c.d"]


def test_a_value_with_a_leading_dash_stays_a_value(read: Read) -> None:
    assert read(VLLM_CHAT_TEMPLATE="-x").args() == ["--chat-template=-x"]


def test_vllms_own_variables_pass_untouched(read: Read) -> None:
    reading = read(VLLM_LOGGING_LEVEL="DEBUG", VLLM_PORT="5000", VLLM_HOST_IP="10.0.0.1")
    assert reading.args() == []
    assert {"VLLM_LOGGING_LEVEL", "VLLM_PORT", "VLLM_HOST_IP"} <= reading.environ.keys()


def test_what_becomes_a_flag_leaves_the_environment(read: Read) -> None:
    reading = read(VLLM_MAX_MODEL_LEN="1k", VLLM_TP_SIZE="2", LLM_VLLM_PORT="9", LLM_DEVICE="cpu", PATH="/bin")
    assert reading.environ == {"PATH": "/bin"}


def test_older_names_stand_for_their_flags(read: Read) -> None:
    reading = read(VLLM_TP_SIZE="2", VLLM_PP_SIZE="3", LLM_VLLM_PORT="9000", LLM_VLLM_HOST="::")
    assert " ".join(reading.args()) == "--host :: --pipeline-parallel-size 3 --port 9000 --tensor-parallel-size 2"


def test_two_names_of_one_flag_must_agree(read: Read) -> None:
    assert not read(VLLM_TP_SIZE="2", VLLM_TENSOR_PARALLEL_SIZE="2").problems
    assert "both set --tensor-parallel-size" in sentences(read(VLLM_TP_SIZE="2", VLLM_TENSOR_PARALLEL_SIZE="4"))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("VLLM_MAX_NUM_SEQ", "VLLM_MAX_NUM_SEQS"),
        ("VLLM_TENSOR_PARALEL_SIZE", "VLLM_TENSOR_PARALLEL_SIZE"),
        ("LLM_VLLM_MODEL", "LLM_VLLM_MODEL_NAME"),
        ("VLLM_LOGING_LEVEL", "VLLM_LOGGING_LEVEL"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_right_one(read: Read, name: str, near: str) -> None:
    assert f"{name}: no such setting | did you mean {near}?" in sentences(read(**{name: "1"}))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("VLLM_ENFORCE_EAGER", "maybe", "a switch takes true or false"),
        ("VLLM_MAX_NUM_SEQS", "many", "not a whole number"),
        ("VLLM_MAX_NUM_SEQS", "1k", "not a whole number"),
        ("VLLM_MAX_MODEL_LEN", "1.5K", "no decimals with K"),
        ("VLLM_GPU_MEMORY_UTILIZATION", "ninety", "not a number"),
        ("VLLM_DTYPE", "int3", "not one of its values"),
        ("VLLM_COMPILATION_CONFIG", "{", "not JSON"),
        ("VLLM_SERVED_MODEL_NAME", "'open", "cannot be split"),
        ("VLLM_CPU_KVCACHE_SPACE", "4GB", "not a whole number"),
        ("LLM_VLLM_EXTRA_ARGS", "--max-num-seq 4", "no flag --max-num-seq | did you mean --max-num-seqs?"),
        ("IF_FP8_QUANTIZATION", "perhaps", "a switch takes true or false"),
    ],
)
def test_a_value_that_a_setting_cannot_take_is_one_sentence(read: Read, name: str, value: str, said: str) -> None:
    if name == "LLM_VLLM_EXTRA_ARGS":
        value = "--max-num-sek 4"
        said = "no flag --max-num-sek | did you mean --max-num-seqs?"
    reading = read(**{name: value})
    assert len(reading.problems) == 1
    assert said in sentences(reading)


@pytest.mark.parametrize("value", ["4096", "4k", "2M", "25.6k", "auto", "-1"])
def test_numbers_may_be_written_as_vllm_reads_them(read: Read, value: str) -> None:
    assert not read(VLLM_MAX_MODEL_LEN=value).problems


def test_a_missing_model_is_named(read: Read) -> None:
    assert "LLM_VLLM_MODEL_NAME is not set" in sentences(read(LLM_VLLM_MODEL_NAME=""))
    assert not read(LLM_VLLM_MODEL_NAME="", VLLM_CONFIG="serve.yaml").problems


@pytest.mark.parametrize("name", ["APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"])
def test_an_apptainer_image_without_any_setting_serves_the_built_in_model(read: Read, name: str) -> None:
    bare = {"LLM_VLLM_MODEL_NAME": "", name: "/scratch/vllm-cpu.sif"}
    for address in ({}, {"LLM_VLLM_PORT": "8123", "LLM_VLLM_HOST": "0.0.0.0"}):
        reading = read(**bare, **address)
        assert reading.model == "demo"
        assert not reading.problems
        assert "serving the built-in model, demo (LLM_VLLM_MODEL_NAME names another)" in reading.notes


@pytest.mark.parametrize(
    ("args", "environ"),
    [((), {"VLLM_UDS": "/run/a.sock"}), (("--max-model-len", "64"), {}), ((), {"LLM_VLLM_EXTRA_ARGS": "--seed 1"})],
)
def test_an_apptainer_image_with_settings_needs_a_model(
    read: Read, args: tuple[str, ...], environ: dict[str, str]
) -> None:
    reading = read(*args, LLM_VLLM_MODEL_NAME="", APPTAINER_CONTAINER="/scratch/vllm-cpu.sif", **environ)
    assert "LLM_VLLM_MODEL_NAME is not set" in sentences(reading)


def test_kubernetes_announcements_are_no_settings(read: Read) -> None:
    reading = read(
        VLLM_PORT="tcp://10.0.0.1:8000",
        VLLM_PORT_8000_TCP_ADDR="10.0.0.1",
        VLLM_SERVICE_HOST="10.0.0.1",
        LLM_VLLM_PORT="tcp://10.0.0.1:8008",
        LLM_VLLM_SERVICE_PORT_HTTP="80",
    )
    assert not reading.problems
    assert not reading.environ
    assert not reading.args()
    assert len(reading.notes) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_SKIP_WARMUP", "true"),
        ("IF_FP8_QUANTIZATION", "true"),
        ("VLLM_KV_CACHE_DTYPE", "fp8_inc"),
        ("VLLM_QUANTIZATION", "inc"),
        ("VLLM_PROMPT_BS_BUCKET_MIN", "1"),
        ("LLM_VLLM_EXTRA_ARGS", "--kv-cache-dtype=fp8_inc"),
    ],
)
@pytest.mark.parametrize("on", ["cpu", "cuda"])
def test_what_only_gaudi_takes_is_refused_elsewhere(read: Read, on: str, name: str, value: str) -> None:
    assert "only hpu" in sentences(read(on=on, **{name: value}))
    assert "only hpu" not in sentences(read(on="hpu", **{name: value}))


def test_stale_names_are_accepted_with_a_note(read: Read) -> None:
    reading = read(on="hpu", PT_HPU_LAZY_ACC_PAR_MODE="0", VLLM_CPU_KVCACHE_SPACE="40")
    assert not reading.problems
    assert not reading.environ
    assert len(reading.notes) == 2


def test_gaudi_has_no_pipeline_parallelism(read: Read) -> None:
    assert "no pipeline parallelism" in sentences(read(on="hpu", VLLM_PP_SIZE="2"))


def test_an_image_for_another_device_says_so(read: Read) -> None:
    assert "LLM_DEVICE=cuda, but this vLLM is for cpu" in sentences(read(LLM_DEVICE="cuda"))


@pytest.mark.parametrize("args", [["--api-key", "s3cret"], ["--api_key=s3cret"], ["--hf-token", "s3cret"]])
def test_a_secret_is_never_taken_as_an_argument(read: Read, args: list[str]) -> None:
    for reading in (read(*args), read(LLM_VLLM_EXTRA_ARGS=" ".join(args))):
        assert "process list" in sentences(reading)
        assert "s3cret" not in sentences(reading)


def test_a_hub_token_by_the_name_of_its_flag_becomes_a_variable(read: Read) -> None:
    reading = read(VLLM_HF_TOKEN="hf_abc")
    assert reading.environ == {"HF_TOKEN": "hf_abc"}
    assert read(VLLM_HF_TOKEN="true").args() == ["--hf-token"]


def test_every_flag_and_variable_of_each_catalog_is_a_name(device: str) -> None:
    known = catalog.parse((catalog.TRACKED / f"{device}.json").read_text(encoding="utf-8"))
    assert len(known.flags) > 250
    shadowed = {catalog.setting_name(name) for name in known.flags} & known.variables
    assert {"VLLM_API_KEY", "VLLM_PORT"} <= shadowed
    assert not shadowed & known.by_setting.keys()


def test_the_last_mention_of_a_flag_wins_and_decisions_give_way(read: Read) -> None:
    known = catalog.parse((catalog.TRACKED / "cpu.json").read_text(encoding="utf-8"))
    environ = {"LLM_VLLM_MODEL_NAME": "demo", "LLM_VLLM_EXTRA_ARGS": "--shutdown_timeout=5"}
    argv = settings.command(environ, known, "cpu", ["--port", "1"]).argv
    assert "--shutdown-timeout" not in argv
    assert argv[-3:] == ["--shutdown_timeout=5", "--port", "1"]
    assert "8008" not in argv


def test_what_a_config_file_says_is_not_overruled_by_a_decision(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("port: 9999\nshutdown_timeout: 5\ncompilation-config:\n  mode: 0\n", encoding="utf-8")
    known = catalog.parse((catalog.TRACKED / "cpu.json").read_text(encoding="utf-8"))
    argv = settings.command({"LLM_VLLM_MODEL_NAME": "demo", "VLLM_CONFIG": str(file)}, known, "cpu").argv
    assert "--port" not in argv
    assert "--shutdown-timeout" not in argv
    assert "--host" in argv
