"""What carries chat requests to the engine: the relay itself, or LangChain's chat class."""

from llm_service.config.setting_kinds import ConnectorName
from llm_service.config.settings import Settings
from llm_service.engines.address import Address
from llm_service.engines.relay import Connector, Relay


def build_connector(settings: Settings, relay: Relay, address: Address) -> Connector:
    """Return what carries requests to the engine at this address."""
    if settings.connector is ConnectorName.LANGCHAIN:
        # Imported only when asked for: it is an optional extra.
        from llm_service.connectors.langchain import LangChainConnector

        return LangChainConnector(address, settings.connect_seconds, relay)
    return relay
