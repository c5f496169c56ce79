"""A virtual world in which the production nodes run: virtual clock, links, broker, crashes."""
