"""What carries chat requests to the engine: the relay itself, or LangChain's chat class."""

from importlib.util import find_spec

from llm_service.address import Address
from llm_service.relay import Connector, Relay
from llm_service.setting_kinds import ConnectorName
from llm_service.settings import Settings


def missing_extra(settings: Settings) -> str | None:
    """Return the name of the optional extra that these settings need and that is not installed."""
    if settings.connector is ConnectorName.LANGCHAIN and find_spec("langchain_openai") is None:
        return "langchain"
    return None


def build_connector(settings: Settings, relay: Relay, address: Address) -> Connector:
    """Return what carries requests to the engine at this address."""
    if settings.connector is ConnectorName.LANGCHAIN:
        # Imported only when asked for: it is an optional extra.
        from llm_service.connectors.langchain import LangChainConnector

        return LangChainConnector(address, settings.connect_seconds, relay)
    return relay
