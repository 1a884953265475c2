"""Models on this machine: fetched from the hub, checked, listed, packed and cleared away."""
