"""Batches: a file of requests answered by the offline engine, on this machine or by Slurm jobs."""
