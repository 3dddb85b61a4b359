"""A run's folder: what was asked for, what was measured, and the services that show it elsewhere."""
