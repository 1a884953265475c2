"""Docker Engines on other machines, reached through SSH."""
