"""The demonstration: the main job on the embedded stack, with everything counted."""
