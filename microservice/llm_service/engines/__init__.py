"""The engines behind the service: connections to them, their state, and which of them is asked."""
