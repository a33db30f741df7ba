"""An exported folder: a checkpoint whose image tower and answers are an ONNX graph."""
