"""compose/settings.yaml is generated, fresh and complete."""

import yaml

from compose import write_settings
from engine import catalog, devices, names


def test_the_list_is_fresh() -> None:
    fresh = write_settings.TARGET.read_text(encoding="utf-8") == write_settings.text()
    assert fresh, "compose/settings.yaml is out of date: run python -m compose.write_settings"


def test_every_flag_and_variable_of_every_device_is_listed() -> None:
    listed = yaml.safe_load(write_settings.TARGET.read_text(encoding="utf-8"))["services"]["engine"]["environment"]
    # Secrets travel as files; what the images set is a place in them.
    exempt = {*names.SECRETS, names.API_KEY_FILE, *write_settings.image_names()}
    assert not exempt & {"VLLM_TP_SIZE", "VLLM_MAX_MODEL_LEN", "VLLM_LOGGING_LEVEL"}
    for path in catalog.TRACKED.glob("*.json"):
        known = catalog.parse(path.read_text(encoding="utf-8"))
        rule = {catalog.setting_name(flag) for flag in known.flags}
        assert not (rule - exempt) - listed.keys()
        assert not {name for name in known.variables if name.startswith("VLLM_")} - exempt - listed.keys()
    for device in devices.names():
        assert not devices.load(device).VARIABLES.keys() - exempt - listed.keys()
    assert not {names.MODEL, names.EXTRA_ARGS, names.FP8, "VLLM_TP_SIZE", "VLLM_PP_SIZE"} - listed.keys()


def test_no_secret_and_no_folder_of_the_user_rides_along() -> None:
    listed = yaml.safe_load(write_settings.TARGET.read_text(encoding="utf-8"))["services"]
    for service in listed.values():
        passed = {name for name, value in service["environment"].items() if value is None}
        assert not passed & {*names.SECRETS, "HF_HOME", "HF_HUB_CACHE", "HOME", "PATH", "LD_LIBRARY_PATH", "CUDA_HOME"}
        assert not [name for name in passed if "SECRET" in name or name.endswith("_PASSWORD")]


def test_no_name_that_an_image_sets_is_listed() -> None:
    """Listed and without a value, Docker would take the image's own value away."""
    set_by_images = write_settings.image_names()
    assert set_by_images >= {"PATH", "HOME", "HF_HOME", "VLLM_CACHE_ROOT"}
    assert not set_by_images & write_settings.engine_names()
