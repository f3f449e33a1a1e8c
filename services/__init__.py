"""The four services; they share `kit`, `schemas` and the rule of access, never each other."""
