"""Rankings to compare ILM with; the same evaluator scores them on the same split."""
