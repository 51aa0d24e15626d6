# The CUDA sources: nvcc compiles them for devices, the tests' stand-in for the processor.
set(trireme_cuda_sources
  attention.cu
  attention_generic.cu
  capture.cc
  choose_few_rows.cc
  convert.cu
  cuda_backend.cc
  device_facts.cc
  draw.cu
  elementwise.cu
  few_rows.cu
  gemm.cc
  gemm.cu
  last_tokens.cu
  logprobs.cu
  marks.cc
  norm.cu
  nvml.cc
  one_shot_all_reduce.cu
  rope_kv.cu
  runtime.cc
  sampling.cu
  staging.cc
  token_counts.cu
  weight.cc)
list(TRANSFORM trireme_cuda_sources PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
