"""How tests compile: most of their time goes into it."""

from importlib.metadata import version

# For programs that are held against themselves: the code is slower, and rounds in its own way.
CHEAP = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1"
)
if version("jaxlib").startswith("0.10."):  # later ones refuse the flag; it halves the time
    CHEAP += " --xla_cpu_use_fusion_emitters=false"
