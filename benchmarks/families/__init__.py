"""One metanetwork for many families: small networks of many kinds, what can be won on each, and what carries over."""
