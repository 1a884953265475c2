"""What carries chat requests to the engine: the relay itself, or LangChain's chat class."""

from llm_service.address import Address
from llm_service.relay import Connector, Relay
from llm_service.setting_kinds import ConnectorName
from llm_service.settings import Settings


def build_connector(settings: Settings, relay: Relay, address: Address) -> Connector:
    """Return what carries requests to the engine at this address."""
    if settings.connector is ConnectorName.LANGCHAIN:
        # Imported only when asked for: it is an optional extra.
        from llm_service.connectors.langchain import LangChainConnector

        return LangChainConnector(address, settings.connect_seconds, relay)
    return relay
