# The CUDA sources: nvcc compiles them for devices, the tests' stand-in for the processor.
set(trireme_cuda_sources attention.cu attention_generic.cu device_facts.cc draw.cu elementwise.cu few_rows.cu last_tokens.cu
  launch.cc norm.cu nvml.cc one_shot_all_reduce.cu rope_kv.cu sampling.cu)
list(TRANSFORM trireme_cuda_sources PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
