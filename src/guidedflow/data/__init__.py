"""Training data: its formats, its checks, the container that is sampled from, conversion, inspection, downloads."""
