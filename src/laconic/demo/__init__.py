"""The demonstration: a whole fleet on one machine, learning handwritten digits."""
