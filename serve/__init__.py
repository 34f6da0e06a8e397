"""What ships: the model package, preprocessing, the ONNX Runtime predictor and the HTTP service. Torch-free."""
