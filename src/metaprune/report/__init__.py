"""Say it: what was cut, what it cost and what it won, as plain data, one HTML page and a model card."""
