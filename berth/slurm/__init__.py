"""Deployments as Slurm jobs: the site, the cluster, the store, the queue, and what is submitted."""
