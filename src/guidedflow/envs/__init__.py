"""Task ids to environments: seeded, wrapped as the published protocol asks, and stepped many at a time."""
