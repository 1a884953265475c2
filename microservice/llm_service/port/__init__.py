"""What stands at the port: connections of clients, their limits, TLS, and how they end."""
