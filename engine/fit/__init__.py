"""Whether a model fits: arithmetic over its configuration, shared by the launcher and the command line."""

GIB = 1 << 30
GB = 10**9
