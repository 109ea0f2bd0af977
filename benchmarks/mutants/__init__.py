"""Do the tests fail when the code is wrong? Small faults are put in, one at a time; writes `mutants.md`.

Why a runner of our own: mutmut rewrites each function into trampolines, and metaprune reads frames and the lines of
code; cosmic-ray starts the tests anew for each fault, and to import PyTorch takes longer than the tests that judge one.
"""
