"""What the papers' authors tuned and published."""
