"""How files of others are opened: one way for each kind, with its limits (docs/reliability.md, "Data")."""
