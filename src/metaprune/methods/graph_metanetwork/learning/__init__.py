"""How a metanetwork learns: networks, lessons, goals."""
