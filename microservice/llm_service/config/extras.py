"""Optional extras: packages that only some settings need, each by the name of its requirements file."""

from importlib.util import find_spec

from llm_service.config.setting_kinds import ConnectorName
from llm_service.config.settings import Settings


def missing_extra(settings: Settings) -> tuple[str, str] | None:
    """Return a setting that needs an extra which is not installed, and the extra's name; None when all is there."""
    if settings.connector is ConnectorName.LANGCHAIN and not find_spec("langchain_openai"):
        return f"LLM_CONNECTOR={settings.connector}", "langchain"
    if settings.traces_endpoint and not _importable("opentelemetry.exporter.otlp.proto.http"):
        return f"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={settings.traces_endpoint}", "otel"
    return None


def _importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even what it would be a part of
        return False
