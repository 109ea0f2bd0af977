"""A cut network as a folder of transformers: in its own configuration where that can say what it is, else in ours."""
