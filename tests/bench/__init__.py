"""``make bench``: each claim of speed as a ratio against a floor or a peer, measured in the same run."""
