"""The page: a race of decodings that one can watch, stop, replay and read."""
