"""A campaign of faults: kills, full disks, damaged files, links, limits, servers. ``python -m benchmarks.faults``."""
