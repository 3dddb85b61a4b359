"""Files of training data: one format a file."""
