"""How tests compile: most of their time goes into it."""

from importlib.metadata import version

# For programs that are held against themselves: the code is slower, and rounds in its own way.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}
AS_USERS_HAVE_IT = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
}
if version("jaxlib").startswith("0.10."):  # later ones refuse the flag; it halves the time
    QUICK["xla_cpu_use_fusion_emitters"] = False
    AS_USERS_HAVE_IT["xla_cpu_use_fusion_emitters"] = True
CHEAP = " ".join(f"--{flag}={str(value).lower()}" for flag, value in QUICK.items())
