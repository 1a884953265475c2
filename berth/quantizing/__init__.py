"""Quantizing: what is asked for, looked at before anything starts, and the three places where it runs."""
