"""Pure state: no clock, no client, no event loop. Time is an argument."""
