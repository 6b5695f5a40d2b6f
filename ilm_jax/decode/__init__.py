"""Ranking and generation with the frozen decoder: trie, beam, exact scoring, greedy text."""
