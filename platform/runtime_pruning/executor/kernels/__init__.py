"""The calls of one operation: the compiled library's, oneDNN's, PyTorch's."""
