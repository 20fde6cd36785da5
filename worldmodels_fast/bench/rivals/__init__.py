"""Other libraries' dreams: PyTorch, torch.compile, JAX, ONNX Runtime."""
