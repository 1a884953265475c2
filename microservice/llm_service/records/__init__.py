"""What is kept of each request: log, metrics, statistics, traces."""
