"""How tests compile: most of their time goes into it."""

# For programs that are held against themselves: the code is slower, and rounds in its own way.
CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
