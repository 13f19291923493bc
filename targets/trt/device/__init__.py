"""Files that travel beside the model and run on the device.

They need the standard library and TensorRT alone, and import nothing of the compiler.
"""
