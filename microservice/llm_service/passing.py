"""What happens to a stream on its way through: only whole events go on, in the shape that the client wants."""

from llm_service.asgi import Writer
from llm_service.engines.upstream import Pour
from llm_service.forms.events import Literals, WholeEvents
from llm_service.port.outlet import Outlet
from llm_service.shortcut import shortcut
from llm_service.watch import Watch


class Passing:
    """One stream."""

    __slots__ = ("_as_it_comes", "events", "feed")

    def __init__(self, shape: Literals | None) -> None:
        self.events = WholeEvents()
        whole = self.events.feed
        self.feed = whole if shape is None else lambda piece: shape.feed(whole(piece))
        """Takes bytes of the engine's, returns those that go to the client now."""
        self._as_it_comes = shape is None

    async def pour(self, pour: Pour, outlet: Outlet, writer: Writer, watch: Watch) -> None:
        """Pass on all that is still to come, each piece as soon as it is there. Raises ServiceError."""
        exchange, feed, write, now = writer.exchange, self.feed, outlet.write, watch.loop.time
        straight, settle = shortcut(self.events, outlet, exchange, watch)

        def take(piece: bytes) -> bool:
            settle()
            watch.since = now()
            if not (ready := feed(piece)):
                return True
            exchange.bytes_out += len(ready)
            exchange.chunks += 1
            return write(ready)

        try:
            while not await pour(take, straight if self._as_it_comes else None):
                watch.since = None  # a client that reads slowly must not look like an engine that is silent
                await outlet.room()
                watch.heard()
        finally:
            settle()
