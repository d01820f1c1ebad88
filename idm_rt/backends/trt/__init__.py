"""TensorRT and TensorRT-RTX: one implementation for both. Importing this package loads neither of them.

library      import either package, check its version, name what differs between them
step_graph   the ONNX of one denoising step from 8-bit crops to 8-bit corrections
network      parse, precision check, optimisation profiles: what the builder is given
build_child  the process in which a plan is built
building     start that process, watch it, take its plan
plan_key     what a plan depends on
plan_store   the folder of built plans
cuda_api     the CUDA run-time calls that are needed: memory, one stream, graphs
plan_runner  one opened plan: bound buffers, a captured CUDA graph per batch size and number of steps
backend      the engine as the rest of idm_rt sees it
"""
