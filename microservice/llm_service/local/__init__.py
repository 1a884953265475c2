"""What the service answers itself."""
