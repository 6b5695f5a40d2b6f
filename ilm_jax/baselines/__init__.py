"""Rankings to compare with, scored by the same evaluator on the same split."""
