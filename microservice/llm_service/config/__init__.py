"""What the service may be told: its settings, and how they are read."""
