"""V, M and C as torch modules: the paper's architectures, trained here, run by `ops`."""
