"""From runs to what people look at."""
