"""The program as an ONNX graph, and rewrites of that graph: shared by every target that reads ONNX.

translate   torch.export -> ONNX, checked, without anything that tells about the machine
precision   an fp16 core
quantize    int8 and fp8 linear layers
editor      how those rewrites change a graph
"""
