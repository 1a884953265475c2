"""Kubernetes: what a deployment comes to as manifests, and what a cluster says of it."""
