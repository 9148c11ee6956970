"""``make chaos``: every row of the table of faults, then a random storm of them under load, counted from outside."""
