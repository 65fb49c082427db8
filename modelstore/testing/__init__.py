"""The proof kit: conformance suites, Hypothesis strategies, reference models, fault injectors."""
