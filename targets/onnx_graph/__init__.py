"""The program as an ONNX graph, and rewrites of that graph: shared by every target that reads ONNX.

translate    torch.export -> ONNX, checked, without anything that tells about the machine
precision    an fp16 core
quantize     int8 and fp8 linear layers
static       plain operators and known sizes, for microcontrollers and NPUs
static_int8  int8 linear layers as compilers of NPUs expect them
metadata     what a file says of its task
editor       how those rewrites change a graph
"""
