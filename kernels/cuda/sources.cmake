# The CUDA sources: nvcc compiles them for devices, the tests' stand-in for the processor.
set(trireme_cuda_sources attention.cu attention_generic.cu elementwise.cu few_rows.cu launch.cc norm.cu rope_kv.cu sampling.cu)
list(TRANSFORM trireme_cuda_sources PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
